"""How events look: a line of JSON for programs, coloured text for people."""

from __future__ import annotations

import json
import zlib
from typing import Final, NoReturn

from rich.highlighter import JSONHighlighter
from rich.text import Text

from ..wire import ServerSentEvent

__all__ = ["json_line", "visible", "written_event"]

_COLOURS: Final = ("green", "cyan", "magenta", "yellow", "blue", "bright_green", "bright_cyan", "bright_magenta")
"""For event types: what can be read on a light and on a dark terminal, without red, which stands for trouble."""

_CONTROLS: Final = {
    number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0)) if chr(number) not in "\t\n"
} | {number: f"\\u{number:04x}" for number in (*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that would move the cursor, recolour the terminal or turn the direction of the text around."""

_highlight: Final = JSONHighlighter()


def json_line(event: ServerSentEvent, topic: str | None) -> bytes:
    """Return an event as one line of JSON, in UTF-8.

    ``data`` is the JSON value itself where it is an object or an array, exactly as it was sent, so
    that no number loses digits; everything else is a string, so that its type is no matter of luck.
    """
    head = {"id": event.id, "event": event.event or "message"} | ({} if topic is None else {"topic": topic})
    data = event.data or ""
    # Line breaks in JSON can only stand between its tokens.
    value = data.replace("\n", " ") if _is_structured(data) else json.dumps(data, ensure_ascii=False)
    return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "data": {value}}}\n'.encode()


def _is_structured(data: str) -> bool:
    if not data.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"expected JSON, got {name}, which Python takes for it")


def visible(text: str) -> str:
    """Return a text that does to a terminal nothing but to be shown."""
    return text.translate(_CONTROLS)


def written_event(event: ServerSentEvent) -> Text:
    """Return an event for a terminal: its id, its type unless it has none, its data."""
    line = Text()
    if event.id:
        line.append(visible(event.id), "dim").append("  ")
    if event.event is not None:
        line.append(visible(event.event), f"bold {_colour_of(event.event)}").append("  ")
    data = visible(event.data or "")
    first, *more = data.split("\n")
    # Indented, so that no line of data can be taken for another event.
    shown = Text("\n".join((first, *(f"    {text}" for text in more))))
    if _is_structured(data):
        _highlight.highlight(shown)
    return line.append_text(shown)


def _colour_of(name: str) -> str:
    # The same in every run, which `hash` is not.
    return _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]
