"""``tickertape listen``."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import ClientError, ContentTypeError, EventTooLargeError, StatusError
from ..wire import ServerSentEvent
from .console import fail
from .lines import json_line, visible, written_event
from .shared import (
    DEFAULT_URL,
    HeaderOption,
    HubOption,
    NoColorOption,
    headers_of,
    leave_pipe,
    misuse,
    quiet_logs,
    stderr_console,
    until_told_to_stop,
)

if TYPE_CHECKING:
    from ..client import Gap, Opened, Reconnecting, SyncEventSource

__all__ = ["LISTEN_EPILOG", "listen"]

LISTEN_EPILOG: Final = """Into a pipe or a file it writes JSON, an event a line, with the fields `id`, `event`
(`message` for an event without a type), `topic` if there can be only one, and `data`: JSON objects and arrays as
they are, anything else as a string.

Connects, reconnects and gaps are told on standard error; so is the last cursor at the end, for `--since`.
The exit status is 0 when it ends by Ctrl-C, by a closed pipe or because the server said so (204), 1 when the server
refuses, 2 for a mistake in the command.

Examples:

- `tickertape listen orders/42 'chat/**'`: topics of the hub at http://127.0.0.1:8000
- `tickertape listen 'orders/**' --last 10 | jq .data`: the last ten events, then those to come
- `tickertape listen https://example.org/stream --cursor place.txt`: any stream, each time from where it was left
"""

_COMMAND: Final = "tickertape listen"


def listen(
    targets: Annotated[
        list[str], typer.Argument(metavar="URL|TOPIC...", help="A stream's URL, or topics of a hub; `**` for all.")
    ],
    url: HubOption = DEFAULT_URL,
    last: Annotated[
        int | None, typer.Option(min=0, help="Begin with so many past events.", metavar="NUMBER", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Begin after this cursor, or event id.", metavar="CURSOR", show_default=False),
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(help="File that keeps the place from run to run.", metavar="FILE", show_default=False),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(help="Show events of this type only; may be repeated.", metavar="TYPE", show_default=False),
    ] = None,
    json: Annotated[
        bool | None,
        typer.Option("--json/--text", help="JSON or text. Default: text on a terminal.", show_default=False),
    ] = None,
    header: HeaderOption = None,
    no_color: NoColorOption = False,
) -> None:
    """Show the events of a stream as they come, and go on when the server was away.

    `Ctrl-C` ends it.
    """
    from ..client import FileCursor, SyncEventSource
    from ..client.address import stream_url, topic_of

    if since is not None and cursor is not None:
        misuse("expected --since or --cursor, got both", command=_COMMAND)
    quiet_logs()
    told = _Told(stderr_console(no_color))
    try:
        address = stream_url(targets, hub=url, last=last)
        source = SyncEventSource(
            address,
            headers=headers_of(header, command=_COMMAND),
            last_event_id=since if cursor is None else FileCursor(cursor),
            on_open=told.opened,
            on_gap=told.gap,
            on_reconnecting=told.reconnecting,
        )
    except ValueError as error:
        misuse(str(error), command=_COMMAND)
    as_json = not sys.stdout.isatty() if json is None else json
    put = _json_put(topic_of(address)) if as_json else _text_put(no_color)
    wanted = frozenset(event or ())
    pipe = _Pipe(source)
    try:
        with until_told_to_stop() as stop, source:
            for item in source:
                with stop.held():
                    if not wanted or (item.event or "message") in wanted:
                        put(item)
                    source.commit()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        pipe.closed = True
    except (ClientError, EventTooLargeError, OSError, ValueError) as error:
        fail(visible(_explain(error)))
    if pipe.closed:
        leave_pipe()
    else:
        told.end(source.last_event_id)


class _Told:
    """Tell on standard error what happens to the connection."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._connected = False

    def opened(self, notice: Opened) -> None:
        self._connected = True
        self._say("green", f"connected to {notice.url}")

    def reconnecting(self, notice: Reconnecting) -> None:
        what = "the connection is lost" if self._connected else "no connection"
        self._connected = False
        self._say("yellow", f"{what} ({notice.reason}); next attempt in {notice.delay:.1f} s")

    def gap(self, gap: Gap) -> None:
        why = {"expired": "they are no longer kept", "reset": "the log was replaced by another"}.get(gap.reason)
        self._say("red", f"events are missing after {gap.after or 'the last one'}: {why or gap.reason}")

    def end(self, place: str | None) -> None:
        if place:
            self._say("dim", f"ended; to go on from here: --since {place}")
        else:
            self._say("dim", "ended")

    def _say(self, style: str, sentence: str) -> None:
        self._console.print(f"[{style}]tickertape: {escape(visible(sentence))}[/{style}]")


class _Pipe:
    """Close the source as soon as nobody reads what it would print: the next event may be hours away."""

    def __init__(self, source: SyncEventSource) -> None:
        self.closed = False
        self._source = source
        kind = os.fstat(sys.stdout.fileno()).st_mode
        if hasattr(select, "poll") and (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are told without being asked for
        poll.poll()
        self.closed = True
        self._source.close()


def _json_put(topic: str | None) -> Callable[[ServerSentEvent], None]:
    def put(event: ServerSentEvent) -> None:
        sys.stdout.buffer.write(json_line(event, topic))
        sys.stdout.buffer.flush()

    return put


def _text_put(no_color: bool) -> Callable[[ServerSentEvent], None]:
    console = Console(highlight=False, soft_wrap=True, no_color=no_color or None)

    def put(event: ServerSentEvent) -> None:
        console.print(written_event(event))
        console.file.flush()

    return put


def _explain(error: Exception) -> str:
    match error:
        case StatusError(status=401 | 403):
            return f"{error}; next step: --header 'Authorization: Bearer …'"
        case StatusError(status=404) | ContentTypeError():
            return f"{error}; next step: give the URL of an event stream, or a topic and --url with a hub's address"
        case StatusError():
            return f"{error}; next step: ask for what the server says it expects"
        case EventTooLargeError():
            return f"{error}; next step: read this stream with a program, and max_event_size=None"
        case ClientError():
            return f"{error}; next step: tickertape doctor with the stream's URL"
        case _:
            return f"{error}; next step: tickertape listen --help"
