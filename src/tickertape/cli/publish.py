"""``tickertape publish``."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import ClientError, GaveUpError, InvalidEventError, PublishError
from .console import fail
from .lines import visible
from .shared import (
    DEFAULT_URL,
    HeaderOption,
    HubOption,
    NoColorOption,
    headers_of,
    misuse,
    quiet_logs,
    stderr_console,
    until_told_to_stop,
)

if TYPE_CHECKING:
    from ..client import Draft, SyncPublisher

__all__ = ["PUBLISH_EPILOG", "publish"]

PUBLISH_EPILOG: Final = """`DATA` is one event; `@file` is one event with the text of a file, `@-` one with all of the
standard input. `-`, or nothing, takes the standard input line by line: each line is an event, published as soon as it
is there; empty lines are passed over.

It prints the cursor of the event, or of the last one. `--key` makes a second run harmless: the hub keeps one event of
each key. Line by line the keys are `KEY:1`, `KEY:2`, … by the number of the line.

The exit status is 0 when all is published, 1 when the hub refuses something or cannot be reached, 2 for a mistake in
the command, 130 when Ctrl-C ends it before the input does.

Examples:

- `tickertape publish greetings hello`: to the hub at http://127.0.0.1:8000
- `tickertape publish orders/42 '{"total": 99}' --event paid`: with an event type, for `addEventListener`
- `tail -f access.log | tickertape publish log/web`: each line as it is written
- `tickertape publish import - --key run-7 < rows.ndjson`: may be run again after an interruption
"""

DEFAULT_ATTEMPTS: Final = 4
"""A few seconds in all: a hub that restarts is waited for, a wrong address is told while somebody is looking."""

READ_SIZE: Final = 64 * 1024
"""Bytes of the input that become one request; less, when there is no more for the moment."""

MAX_LINES: Final = 1_000
"""Lines that become one request: a hub takes ten times as many, and its other clients wait that long."""

_COMMAND: Final = "tickertape publish"


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Where to, as `orders/42`.")],
    data: Annotated[str, typer.Argument(metavar="DATA|-|@FILE", help="What to publish.", show_default=False)] = "-",
    event: Annotated[
        str | None, typer.Option(help="Event type. Default: none.", metavar="TYPE", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key. Default: made up.", metavar="KEY", show_default=False)
    ] = None,
    url: HubOption = DEFAULT_URL,
    attempts: Annotated[
        int, typer.Option(min=1, help="How often to try when the hub cannot be reached.", metavar="NUMBER")
    ] = DEFAULT_ATTEMPTS,
    header: HeaderOption = None,
    no_color: NoColorOption = False,
) -> None:
    """Publish an event to a topic of a hub, or each line of the input as one."""
    from ..client import SyncPublisher
    from ..client.address import checked_url

    quiet_logs()
    try:
        publisher = SyncPublisher(checked_url(url), headers=headers_of(header, command=_COMMAND), max_attempts=attempts)
        content = data if data == "-" else _content(data)
    except (ValueError, OSError) as error:
        misuse(str(error), command=_COMMAND)
    with publisher, until_told_to_stop():
        if data != "-":
            _publish_one(publisher, topic, content, event, key)
        else:
            _publish_lines(publisher, topic, event, key, stderr_console(no_color))


def _content(data: str) -> str:
    """Return what an argument stands for."""
    if not data.startswith("@"):
        return data
    if data == "@-":
        return sys.stdin.buffer.read().decode()
    return Path(data[1:]).read_bytes().decode()


def _publish_one(publisher: SyncPublisher, topic: str, data: str, event: str | None, key: str | None) -> None:
    try:
        typer.echo(publisher.publish(topic, data, event=event, key=key))
    except (ClientError, InvalidEventError) as error:
        fail(_explain(error, str(publisher.url)))


class _Batch(NamedTuple):
    """Lines that were there at once."""

    drafts: list[Draft]
    numbers: list[int]
    """Of the lines, from 1, with the empty ones counted."""
    size: int
    """Bytes of the input that they were."""

    def halves(self) -> tuple[_Batch, _Batch]:
        """Return two smaller ones."""
        middle = len(self.drafts) // 2
        first = _Batch(self.drafts[:middle], self.numbers[:middle], 0)
        return first, _Batch(self.drafts[middle:], self.numbers[middle:], 0)


def _publish_lines(publisher: SyncPublisher, topic: str, event: str | None, key: str | None, console: Console) -> None:
    if sys.stdin.isatty():
        console.print("[dim]tickertape: each line becomes an event; Ctrl-D ends[/dim]")
    sent = _Sent()
    size = _size_of_input()
    with _progress(console, size) as progress:
        task = progress.add_task("", total=size)
        try:
            for batch in _batches(topic, event, key):
                sent.publish(publisher, batch)
                progress.update(task, advance=batch.size, description=f"{publisher.statistics().published} events")
        except (ClientError, ValueError) as error:
            progress.stop()
            _end(publisher, sent.cursor, console)
            fail(_explain(error, str(publisher.url), sent.batch))
        except KeyboardInterrupt:
            progress.stop()
            _end(publisher, sent.cursor, console)
            raise
    _end(publisher, sent.cursor, console)


class _Sent:
    """How far the lines are published."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.batch: _Batch | None = None  # the one under way, or the last

    def publish(self, publisher: SyncPublisher, batch: _Batch) -> None:
        self.batch = batch
        try:
            cursors = publisher.publish_many(batch.drafts)
        except PublishError as error:
            if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or len(batch.drafts) < 2:
                raise
            for half in batch.halves():  # the hub takes less at once
                self.publish(publisher, half)
        else:
            self.cursor = cursors[-1] if cursors else self.cursor


def _end(publisher: SyncPublisher, cursor: str | None, console: Console) -> None:
    published = publisher.statistics().published
    if cursor is not None:
        typer.echo(cursor)
    console.print(f"[dim]tickertape: published {published} event{'' if published == 1 else 's'}[/dim]")


def _batches(topic: str, event: str | None, key: str | None) -> Iterator[_Batch]:
    from ..client import Draft

    first = 1
    for lines in _lines():
        numbered = [(number, line.removesuffix(b"\r")) for number, line in enumerate(lines, first)]
        numbered = [(number, line) for number, line in numbered if line]
        keys = [None if key is None else f"{key}:{number}" for number, _ in numbered]
        drafts = [Draft(topic, line.decode(), event, own) for (_, line), own in zip(numbered, keys, strict=True)]
        yield _Batch(drafts, [number for number, _ in numbered], sum(map(len, lines)) + len(lines))
        first += len(lines)


def _lines() -> Iterator[list[bytes]]:
    """Give the lines of the input that are there, so many at a time as a request may have; then wait for more."""
    rest: list[bytes] = []
    while data := os.read(sys.stdin.fileno(), READ_SIZE):
        whole, newline, begun = data.rpartition(b"\n")
        if newline:
            lines = b"".join((*rest, whole)).split(b"\n")
            yield from (lines[start : start + MAX_LINES] for start in range(0, len(lines), MAX_LINES))
            rest = []
        rest.append(begun)
    if last := b"".join(rest):
        yield [last]


def _size_of_input() -> int | None:
    status = os.fstat(sys.stdin.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _progress(console: Console, size: int | None) -> Progress:
    """Return a bar for input that takes a while: what comes from a terminal, or in one go, needs none."""
    is_long = console.is_terminal and not sys.stdin.isatty() and (size is None or size > READ_SIZE)
    columns = [TextColumn("{task.description}")]
    bar = [BarColumn(), TaskProgressColumn(), TimeRemainingColumn()] if size is not None else [BarColumn()]
    return Progress(*columns, *bar, console=console, transient=True, disable=not is_long)


def _explain(error: Exception, url: str, batch: _Batch | None = None) -> str:
    sentence = visible(str(error))
    match error:
        case GaveUpError():
            return f"{url} cannot be reached: {error.reason}; next step: tickertape serve, or --url with its address"
        case PublishError(status=401 | 403):
            return f"{sentence}; next step: --header 'Authorization: Bearer …'"
        case PublishError():
            index = error.extensions.get("index")
            if batch is not None and isinstance(index, int) and index < len(batch.numbers):
                sentence = f"line {batch.numbers[index]}: {sentence}"
            return f"{sentence}; next step: publish what the hub says it expects"
        case ClientError():
            return f"{sentence}; next step: --url with the address of a hub"
        case UnicodeDecodeError():
            return "expected text in UTF-8, got other bytes; next step: convert the input, with iconv say"
        case _:
            return f"{sentence}; next step: tickertape publish --help"
