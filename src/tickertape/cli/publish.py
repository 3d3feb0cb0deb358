"""``tickertape publish``."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import ClientError, GaveUpError, PublishError, TickertapeError
from ..redaction import redact_url
from ..wire import Draft
from .console import (
    DEFAULT_URL,
    HeaderOption,
    HubOption,
    NoColorOption,
    argument_data,
    fail,
    headers_of,
    misuse,
    quiet_logs,
    stderr_console,
    until_signal,
)
from .lines import visible

PUBLISH_EPILOG: Final = """`DATA` is one event; `@file` is one event with the text of a file, `@-` one with all of the
standard input. `-`, or nothing, reads the standard input line by line: each line is an event and is published at once;
empty lines are skipped.

It prints the cursor of the event, or of the last one. With `--key`, a second run changes nothing: the hub keeps one
event of each key. Line by line the keys are `KEY:1`, `KEY:2`, … by the number of the line.

The exit status is 0 if everything is published, 1 if the hub refuses an event or cannot be reached, 2 for a mistake in
the command, 130 if Ctrl-C ends it before the input ends.

Examples:

- `tickertape publish greetings hello`: to the hub at http://127.0.0.1:8000
- `tickertape publish orders/42 '{"total": 99}' --event paid`: with an event type, for `addEventListener`
- `tail -f access.log | tickertape publish log/web`: each line when it is written
- `tickertape publish import - --key run-7 < rows.ndjson`: may be run again after an interruption
"""

DEFAULT_ATTEMPTS: Final = 4
"""A few seconds in all: long enough for a hub's restart, short enough to report a wrong address to a waiting person."""

READ_SIZE: Final = 64 * 1024
"""Bytes of the input that become one request; fewer if no more are there."""

MAX_LINES: Final = 1_000
"""Lines that become one request. A hub accepts ten times as many, but its other clients wait that long."""

_COMMAND: Final = "tickertape publish"


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, as `orders/42`.")],
    data: Annotated[str, typer.Argument(metavar="DATA|-|@FILE", help="The data.", show_default=False)] = "-",
    event: Annotated[
        str | None, typer.Option(help="Event type. Default: none.", metavar="TYPE", show_default=False)
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key. Default: random.", metavar="KEY", show_default=False)
    ] = None,
    url: HubOption = DEFAULT_URL,
    attempts: Annotated[
        int, typer.Option(min=1, help="Attempts if the hub cannot be reached.", metavar="NUMBER")
    ] = DEFAULT_ATTEMPTS,
    header: HeaderOption = None,
    no_color: NoColorOption = False,
) -> None:
    """Publish an event to a topic of a hub, or each line of the input as one."""
    from ..client import SyncPublisher
    from .address import checked_url

    quiet_logs()
    try:
        publisher = SyncPublisher(checked_url(url), headers=headers_of(header, command=_COMMAND), max_attempts=attempts)
        content = data if data == "-" else argument_data(data)
    except (ValueError, OSError) as error:
        misuse(str(error), command=_COMMAND)
    target = str(publisher.url)
    with publisher, until_signal():
        if data == "-":
            lines = _Lines(publisher.publish_many, target, stderr_console(no_color))
            lines.publish(_batches(topic, event, key))
        else:
            try:
                typer.echo(publisher.publish(topic, content, event=event, key=key))
            except TickertapeError as error:
                fail(_explain(error, target))


class _Batch(NamedTuple):
    """Lines that were read at once."""

    drafts: list[Draft]
    numbers: list[int]
    """Of the lines, from 1, empty lines included."""
    size: int
    """Their bytes in the input."""

    def halves(self) -> tuple[_Batch, _Batch]:
        """Return two smaller batches."""
        middle = len(self.drafts) // 2
        first = _Batch(self.drafts[:middle], self.numbers[:middle], 0)
        return first, _Batch(self.drafts[middle:], self.numbers[middle:], 0)


class _Lines:
    """Publish lines, and report how many.

    Arguments:
        publish_many: publishes events and returns their cursors.
        target: the URL, for messages.
        console: for messages.
    """

    def __init__(self, publish_many: Callable[[list[Draft]], list[str]], target: str, console: Console) -> None:
        self._publish_many = publish_many
        self._target = target
        self._console = console
        self._published = 0
        self._cursor: str | None = None
        self._batch: _Batch | None = None  # the current one, or the last

    def publish(self, batches: Iterable[_Batch]) -> None:
        """Publish all batches. Exit with status 1 if one fails."""
        if sys.stdin.isatty():
            self._console.print("[dim]tickertape: each line becomes an event; Ctrl-D ends[/dim]")
        size = _size_of_input()
        progress = _progress(self._console, size)
        try:
            with progress:
                task = progress.add_task("", total=size)
                for batch in batches:
                    self._publish(batch)
                    progress.update(task, advance=batch.size, description=f"{self._published} events")
        except (TickertapeError, ValueError) as error:
            self._report()
            fail(_explain(error, self._target, self._batch))
        except KeyboardInterrupt:
            self._report()
            raise
        self._report()

    def _publish(self, batch: _Batch) -> None:
        self._batch = batch
        try:
            cursors = self._publish_many(batch.drafts)
        except PublishError as error:
            if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or len(batch.drafts) < 2:
                raise
            for half in batch.halves():  # the hub accepts fewer at once
                self._publish(half)
        else:
            self._published += len(cursors)
            self._cursor = cursors[-1] if cursors else self._cursor

    def _report(self) -> None:
        if self._cursor is not None:
            typer.echo(self._cursor)
        plural = "" if self._published == 1 else "s"
        self._console.print(f"[dim]tickertape: published {self._published} event{plural}[/dim]")


def _batches(topic: str, event: str | None, key: str | None) -> Iterator[_Batch]:
    first = 1
    for lines in _lines():
        numbered = [(number, line.removesuffix(b"\r")) for number, line in enumerate(lines, first)]
        numbered = [(number, line) for number, line in numbered if line]
        keys = [None if key is None else f"{key}:{number}" for number, _ in numbered]
        drafts = [
            Draft(topic, line.decode(), event=event, key=own) for (_, line), own in zip(numbered, keys, strict=True)
        ]
        yield _Batch(drafts, [number for number, _ in numbered], sum(map(len, lines)) + len(lines))
        first += len(lines)


def _lines() -> Iterator[list[bytes]]:
    """Yield the lines that can be read, at most as many as fit into one request; then wait for more."""
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
    """Return a progress bar for long input. Input from a terminal, or of one request, needs none."""
    is_long = console.is_terminal and not sys.stdin.isatty() and (size is None or size > READ_SIZE)
    columns = [TextColumn("{task.description}")]
    bar = [BarColumn(), TaskProgressColumn(), TimeRemainingColumn()] if size is not None else [BarColumn()]
    return Progress(*columns, *bar, console=console, transient=True, disable=not is_long)


def _explain(error: Exception, url: str, batch: _Batch | None = None) -> str:
    sentence = visible(str(error))
    match error:
        case GaveUpError():
            return (
                f"cannot reach {redact_url(url)}: {visible(error.reason)}; "
                "next step: tickertape serve, or --url with its address"
            )
        case PublishError(status=401 | 403):
            return f"{sentence}; next step: --header 'Authorization: Bearer …'"
        case PublishError():
            index = error.extensions.get("index")
            if batch is not None and isinstance(index, int) and 0 <= index < len(batch.numbers):
                sentence = f"line {batch.numbers[index]}: {sentence}"
            return f"{sentence}; next step: correct the event as the hub explains"
        case ClientError():
            return f"{sentence}; next step: --url with the address of a hub"
        case UnicodeDecodeError():
            return "the input is not UTF-8; next step: convert it, for example with iconv"
        case _:
            return f"{sentence}; next step: {_COMMAND} --help"
