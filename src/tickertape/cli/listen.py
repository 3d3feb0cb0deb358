"""``tickertape listen``."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import ClientError, ContentTypeError, EventTooLargeError, StatusError
from ..wire import Gap, ServerSentEvent
from .console import (
    DEFAULT_URL,
    HeaderOption,
    HubOption,
    NoColorOption,
    discard_output,
    fail,
    headers_of,
    misuse,
    quiet_logs,
    stderr_console,
    until_signal,
)
from .lines import json_line, styled_event, visible

LISTEN_EPILOG: Final = """Into a pipe or a file it writes JSON, one event per line, with the fields `id`, `event`
(`message` for an event without a type), `topic` if there can be only one, and `data`: JSON objects and arrays as
they are, anything else as a string.

Connects, reconnects and gaps are reported on standard error, and at the end the last cursor, for `--since`.
The exit status is 0 after Ctrl-C, a closed pipe or status 204 of the server, 1 if the server refuses the request,
2 for a mistake in the command.

Examples:

- `tickertape listen orders/42 'chat/**'`: topics of the hub at http://127.0.0.1:8000
- `tickertape listen 'orders/**' --last 10 | jq .data`: the last ten events, then the new ones
- `tickertape listen https://example.org/stream --cursor place.txt`: any stream, resumed by each run
"""

_COMMAND: Final = "tickertape listen"


def listen(
    targets: Annotated[
        list[str], typer.Argument(metavar="URL|TOPIC...", help="A stream's URL, or topics of a hub; `**` for all.")
    ],
    url: HubOption = DEFAULT_URL,
    last: Annotated[
        int | None,
        typer.Option(min=0, help="Number of past events to begin with.", metavar="NUMBER", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Start after this cursor or event id.", metavar="CURSOR", show_default=False),
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(help="File that keeps the last event id between runs.", metavar="FILE", show_default=False),
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
    """Show the events of a stream as they come, and reconnect after every interruption.

    `Ctrl-C` ends it.
    """
    from ..client import FileCursor, SyncEventSource
    from .address import stream_url, topic_of

    if since is not None and cursor is not None:
        misuse("pass --since or --cursor, not both", command=_COMMAND)
    quiet_logs()
    reporter = _Reporter(stderr_console(no_color))
    try:
        address = stream_url(targets, hub=url, last=last)
        source = SyncEventSource(
            address,
            headers=headers_of(header, command=_COMMAND),
            last_event_id=since if cursor is None else FileCursor(cursor),
            on_open=lambda notice: reporter.connected(notice.url),
            on_gap=reporter.gap,
            on_reconnecting=lambda notice: reporter.disconnected(notice.reason, notice.delay),
        )
    except ValueError as error:
        misuse(str(error), command=_COMMAND)
    as_json = not sys.stdout.isatty() if json is None else json
    write = _json_writer(topic_of(address)) if as_json else _text_writer(no_color)
    wanted = frozenset(event or ())
    pipe = _Pipe(source.close)
    try:
        with until_signal() as stop, source:
            for item in source:
                with stop.held():
                    if not wanted or (item.event or "message") in wanted:
                        write(item)
                    source.commit()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        pipe.closed = True
    except (ClientError, EventTooLargeError, OSError, ValueError) as error:
        fail(visible(_explain(error)))
    if pipe.closed:
        discard_output()
    else:
        reporter.ended(source.last_event_id)


class _Reporter:
    """Report the state of the connection on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._is_connected = False

    def connected(self, url: str) -> None:
        self._is_connected = True
        self._print("green", f"connected to {url}")

    def disconnected(self, reason: str, delay: float) -> None:
        text = "connection lost" if self._is_connected else "no connection"
        self._is_connected = False
        self._print("yellow", f"{text} ({reason}); next attempt in {delay:.1f} s")

    def gap(self, gap: Gap) -> None:
        reason = {"expired": "they are no longer kept", "reset": "the log was replaced"}.get(gap.reason, gap.reason)
        self._print("red", f"events are missing after {gap.after or 'the last one'}: {reason}")

    def ended(self, id: str | None) -> None:
        self._print("dim", f"ended; to resume here: --since {id}" if id else "ended")

    def _print(self, style: str, sentence: str) -> None:
        self._console.print(f"[{style}]tickertape: {escape(visible(sentence))}[/{style}]")


class _Pipe:
    """Close the source as soon as the reader of the output is gone: the next event may be hours away."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.closed = False
        self._close = close
        kind = os.fstat(sys.stdout.fileno()).st_mode
        if hasattr(select, "poll") and (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are always reported
        poll.poll()
        self.closed = True
        self._close()


def _json_writer(topic: str | None) -> Callable[[ServerSentEvent], None]:
    for_terminal = sys.stdout.isatty()

    def write(event: ServerSentEvent) -> None:
        sys.stdout.buffer.write(json_line(event, topic, for_terminal=for_terminal))
        sys.stdout.buffer.flush()

    return write


def _text_writer(no_color: bool) -> Callable[[ServerSentEvent], None]:
    console = Console(highlight=False, soft_wrap=True, no_color=no_color or None)

    def write(event: ServerSentEvent) -> None:
        console.print(styled_event(event))
        console.file.flush()

    return write


def _explain(error: Exception) -> str:
    match error:
        case StatusError(status=401 | 403):
            return f"{error}; next step: --header 'Authorization: Bearer …'"
        case StatusError(status=404) | ContentTypeError():
            return f"{error}; next step: give the URL of an event stream, or a topic and --url with a hub's address"
        case StatusError():
            return f"{error}; next step: correct the request as the server explains"
        case EventTooLargeError():
            return f"{error}; next step: read this stream with a program, and max_event_size=None"
        case ClientError():
            return f"{error}; next step: tickertape doctor with the stream's URL"
        case _:
            return f"{error}; next step: tickertape listen --help"
