"""``tickertape listen``."""

from __future__ import annotations

import json as jsonlib
import os
import select
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import ClientError, ContentTypeError, EventTooLargeError, StatusError
from ..wire import End, Gap, ReceivedEvent
from .console import (
    DEFAULT_URL,
    HeaderOption,
    HubOption,
    NoColorOption,
    argument_data,
    discard_output,
    fail,
    headers_of,
    misuse,
    quiet_logs,
    stderr_console,
    until_signal,
)
from .lines import json_line, out_of_envelope, since_option, styled_event, visible
from .progress import ProgressBars

LISTEN_EPILOG: Final = """Into a pipe or a file it writes JSON, one event per line, with the fields `id`, `event`
(`message` for an event without a type), `topic` if the stream is one of a hub, and `data`: JSON objects and arrays as
they are, anything else as a string.

On a terminal, an event with data such as `{"progress": 0.4}`, from 0 to 1, is shown as a bar, one for each topic.

Connects, reconnects and gaps are reported on standard error, and at the end the last cursor, for `--since`.
The exit status is 0 after Ctrl-C, a closed pipe, `--count`, `--until`, the end of a topic or status 204 of the server,
1 if the server refuses the request or does not know the cursor of `--since`, 2 for a mistake in the command. For the
stream of a run it shows how the run ended: 0 if it is done, 3 after an error, 4 if it was cancelled, 5 if its producer
is gone.

`--token-command` runs in a shell before each attempt. After a 401, `TICKERTAPE_TOKEN_REFUSED=1` is in its environment.

Examples:

- `tickertape listen orders/42 'chat/**'`: topics of the hub at http://127.0.0.1:8000
- `tickertape listen 'orders/**' --last 10 | jq .data`: the last ten events, then the new ones
- `tickertape listen https://example.org/stream --cursor place.txt`: any stream, resumed by each run
- `tickertape listen localhost:8000/chat --data '{"prompt": "Hello"}' --until '[DONE]'`: an answer that is streamed
- `tickertape listen https://example.org/stream --token-command 'gcloud auth print-access-token'`: fresh credentials
"""

_COMMAND: Final = "tickertape listen"

_RUN_STATUS: Final = {"error": 3, "cancelled": 4, "orphaned": 5}
"""Exit statuses for the ways in which a run can end, besides ``done``."""


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
    method: Annotated[
        str | None,
        typer.Option(help="Method of the request. Default: GET, POST with --data.", metavar="NAME", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Body of the request: text, - for standard input, @FILE for a file.",
            metavar="DATA|-|@FILE",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Number of events to show; then end.", metavar="NUMBER", show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="End at the event with these data, without showing it.", metavar="DATA", show_default=False),
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
    token_command: Annotated[
        str | None,
        typer.Option(help="Shell command that prints a bearer token.", metavar="COMMAND", show_default=False),
    ] = None,
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
    reporter = _Reporter(stderr_console(no_color), since)
    try:
        address = stream_url(targets, hub=url, last=last)
        content = None if data is None else argument_data(data)
        headers = headers_of(header, command=_COMMAND)
        if content is not None and _is_json(content) and "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = "application/json"
        source = SyncEventSource(
            address,
            method=method or ("GET" if content is None else "POST"),
            content=content,
            headers=headers,
            auth=None if token_command is None else _TokenCommand(token_command),
            last_event_id=since if cursor is None else FileCursor(cursor),
            until=until,
            on_open=lambda notice: reporter.connected(notice.url),
            on_gap=reporter.gap,
            on_reconnecting=lambda notice: reporter.disconnected(notice.reason, notice.delay),
        )
    except (ValueError, OSError) as error:
        misuse(str(error), command=_COMMAND)
    as_json = not sys.stdout.isatty() if json is None else json
    only_topic = topic_of(address)
    has_envelope = address.params.get("envelope") == "topic"
    bars: ProgressBars | None = None
    if as_json:
        write = _json_writer()
    else:
        console = Console(highlight=False, soft_wrap=True, no_color=no_color or None)
        bars = ProgressBars(console) if sys.stdout.isatty() and not console.is_dumb_terminal else None
        write = _text_writer(console, bars)
    wanted = frozenset(event or ())
    shown = 0
    pipe = _Pipe(source.close)
    try:
        with until_signal() as stop, source:
            for item in source:
                with stop.held():
                    if not wanted or item.type in wanted:
                        topic, inner = out_of_envelope(item) if has_envelope else (None, item)
                        write(inner, topic or (only_topic if as_json else None))
                        shown += 1
                    source.commit()
                if shown == count:
                    break
            else:
                if source.end is not None and (not wanted or source.end.type in wanted):
                    write(source.end, only_topic if as_json else None)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        pipe.closed = True
    except (ClientError, EventTooLargeError, _WrongCursorError, OSError, ValueError) as error:
        if bars is not None:
            bars.close()
        fail(visible(_explain(error)))
    if bars is not None:
        bars.close()
    if pipe.closed:
        discard_output()
    else:
        reporter.ended(source.last_event_id, source.end)
    if source.end is not None and source.end.run is not None:
        raise typer.Exit(_RUN_STATUS.get(source.end.reason, 0))


class _Reporter:
    """Report the state of the connection on standard error."""

    def __init__(self, console: Console, since: str | None) -> None:
        self._console = console
        self._since = since
        self._is_connected = False
        self._connections = 0

    def connected(self, url: str) -> None:
        self._is_connected = True
        self._connections += 1
        self._print("green", f"connected to {url}")

    def disconnected(self, reason: str, delay: float) -> None:
        text = "connection lost" if self._is_connected else "no connection"
        self._is_connected = False
        self._print("yellow", f"{text} ({reason}); next attempt in {delay:.1f} s")

    def gap(self, gap: Gap) -> None:
        if gap.reason == "reset" and self._since is not None and self._connections == 1:
            raise _WrongCursorError(f"{self._since!r} is not a cursor of this log")
        reason = {"expired": "they are no longer kept", "reset": "the log was replaced"}.get(gap.reason, gap.reason)
        self._print("red", f"events are missing after {gap.after or 'the last one'}: {reason}")

    def ended(self, id: str | None, end: End | None) -> None:
        if end is not None:
            what = "the run" if end.run is not None else "the topic" if end.topic else "the stream"
            message = f" ({end.message})" if end.message else ""
            self._print("dim", f"{what} has ended: {end.reason}{message}")
            return
        self._print("dim", f"ended; to resume here: {since_option(id)}" if id else "ended")

    def _print(self, style: str, sentence: str) -> None:
        self._console.print(f"[{style}]tickertape: {escape(visible(sentence))}[/{style}]")


class _WrongCursorError(Exception):
    """The hub does not know the cursor that the user typed."""


class _TokenCommand:
    """Run a shell command for a bearer token before each attempt."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._has_worked = False

    def __call__(self, *, refused: bool) -> str:
        """Return the token.

        Raises:
            ValueError: the command has failed at its first run.
            OSError: it has failed later, and is worth another attempt.
        """
        env = {**os.environ, "TICKERTAPE_TOKEN_REFUSED": "1"} if refused else None
        result = subprocess.run(
            self._command, shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, env=env
        )
        token = result.stdout.decode("utf-8", "replace").strip()
        if result.returncode or not token:
            problem = f"failed with status {result.returncode}" if result.returncode else "printed nothing"
            text = f"the command of --token-command {problem}"
            raise OSError(text) if self._has_worked else ValueError(text)
        self._has_worked = True
        return token


def _is_json(content: str) -> bool:
    try:
        jsonlib.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


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


def _json_writer() -> Callable[[ReceivedEvent, str | None], None]:
    for_terminal = sys.stdout.isatty()

    def write(event: ReceivedEvent, topic: str | None) -> None:
        sys.stdout.buffer.write(json_line(event, topic, for_terminal=for_terminal))
        sys.stdout.buffer.flush()

    return write


def _text_writer(console: Console, bars: ProgressBars | None) -> Callable[[ReceivedEvent, str | None], None]:
    def write(event: ReceivedEvent, topic: str | None) -> None:
        if bars is not None and bars.show(event, topic):
            return
        console.print(styled_event(event, topic))
        console.file.flush()

    return write


def _explain(error: Exception) -> str:
    match error:
        case StatusError(status=401 | 403):
            return f"{error}; next step: --header 'Authorization: Bearer …' or --token-command"
        case StatusError(status=404) | ContentTypeError():
            return f"{error}; next step: give the URL of an event stream, or a topic and --url with a hub's address"
        case StatusError():
            return f"{error}; next step: correct the request as the server explains"
        case EventTooLargeError():
            return f"{error}; next step: read this stream with a program, and max_event_size=None"
        case _WrongCursorError():
            return f"{error}; next step: --last NUMBER, or no option to begin with new events"
        case ClientError():
            return f"{error}; next step: tickertape doctor with the stream's URL"
        case _:
            return f"{error}; next step: tickertape listen --help"
