"""The two forms of an event: a line of JSON for programs, coloured text for people."""

from __future__ import annotations

import json
import shlex
import zlib
from typing import Final, NoReturn

from rich.highlighter import JSONHighlighter
from rich.text import Text

from ..wire import ReceivedEvent, ServerSentEvent

_COLOURS: Final = ("green", "cyan", "magenta", "yellow", "blue", "bright_green", "bright_cyan", "bright_magenta")
"""For event types: readable on a light and on a dark terminal, and without red, the colour of errors."""

_DIRECTIONS: Final = (0x061C, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Characters that change the direction of the text around them."""

_CONTROLS: Final = {
    number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0)) if chr(number) not in "\t\n"
} | {number: f"\\u{number:04x}" for number in _DIRECTIONS}
"""Characters that would move the cursor, change the colours of the terminal, or the direction of the text."""

_CONTROLS_IN_JSON: Final = {number: f"\\u{number:04x}" for number in (*range(0x7F, 0xA0), *_DIRECTIONS)}
"""The same as JSON escapes. JSON escapes the characters below U+0020 itself. These can only be inside of strings."""

_highlight: Final = JSONHighlighter()


def json_line(event: ServerSentEvent, topic: str | None, *, for_terminal: bool = False) -> bytes:
    """Return an event as one line of JSON, in UTF-8.

    If ``data`` is a JSON object or array, it is written exactly as it was sent, so that no number loses digits.
    Anything else is a string, so that its type does not depend on its content. For a terminal, characters that
    would control it are escaped.
    """
    head = {"id": event.id, "event": event.event or "message"} | ({} if topic is None else {"topic": topic})
    data = event.data or ""
    # Line breaks in JSON can only be between its tokens.
    value = data.replace("\n", " ") if _is_structured(data) else json.dumps(data, ensure_ascii=False)
    line = f'{json.dumps(head, ensure_ascii=False)[:-1]}, "data": {value}}}\n'
    return (line.translate(_CONTROLS_IN_JSON) if for_terminal else line).encode()


def _is_structured(data: str) -> bool:
    if not data.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def visible(text: str) -> str:
    """Return a text that cannot control a terminal."""
    return text.translate(_CONTROLS)


def out_of_envelope(event: ReceivedEvent) -> tuple[str | None, ReceivedEvent]:
    """Return the topic and the event of an envelope ``{"topic", "data"}``; no topic if it is not one."""
    try:
        envelope = event.json()
    except (ValueError, RecursionError):
        return None, event
    match envelope:
        case {"topic": str(topic), "data": str(data), **more} if not more:
            return topic, ReceivedEvent(data, event=event.event, id=event.id, retry=event.retry)
    return None, event


def since_option(id: str) -> str:
    """Return the option that resumes after an id, as it can be pasted into a shell."""
    quoted = shlex.quote(id)
    if visible(id) != id or "\t" in id:
        # Bytes as octal numbers: `\\x` would take the digits after it too.
        safe = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\'" else f"\\{byte:03o}" for byte in id.encode())
        quoted = f"$'{''.join(safe)}'"
    return f"--since={quoted}" if id.startswith("-") else f"--since {quoted}"


def styled_event(event: ServerSentEvent, topic: str | None = None) -> Text:
    """Return an event for a terminal: its id, its topic if that is not obvious, its type if it has one, its data."""
    line = Text()
    if event.id:
        line.append(visible(event.id), "dim").append("  ")
    if topic is not None:
        line.append(visible(topic), "bold").append("  ")
    if event.event is not None:
        line.append(visible(event.event), f"bold {_colour_of(event.event)}").append("  ")
    data = visible(event.data or "")
    first, *more = data.split("\n")
    # Indented, so that a line of data cannot look like another event.
    shown = Text("\n".join((first, *(f"    {text}" for text in more))))
    if _is_structured(data):
        _highlight.highlight(shown)
    return line.append_text(shown)


def _colour_of(name: str) -> str:
    # The same in every run, unlike `hash`.
    return _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]
