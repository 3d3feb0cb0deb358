"""Hostile servers: nothing that they send can control the terminal of ``listen`` and ``doctor``."""

from __future__ import annotations

from typing import Final

import pytest

from support.command import Command
from support.raw_server import RawServer, Script, stream

HOSTILE: Final = "\x1b]0;owned\x07\x9b31m\u202e\x08\x7f"
"""The title of the window by ESC, a colour by the single character CSI, text from right to left, backspaces."""

RAW: Final = HOSTILE.encode()

EVENTS: Final = b'id: 1%b\nevent: e%b\ndata: d%b\n\nid: 2%b\ndata: {"progress": 0.5, "a": "%b"}\n\n' % ((RAW,) * 5)


def head(line: bytes, header: bytes = b"X: y", body: bytes = b"") -> Script:
    """Return a script that sends an answer as it is."""
    length = b"Content-Length: %d" % len(body)
    return lambda connection: connection.send(b"\r\n".join([b"HTTP/1.1 " + line, length, header, b"", body]))


PROBLEM: Final = b'{"title": "\\u001b]0;owned\\u0007", "detail": "\\u202e\\u009b\\b"}'

SCRIPTS: Final[dict[str, Script]] = {
    "events": stream(EVENTS),
    "a gap": stream(b'event: stream:gap\ndata: {"reason": "%b", "after": "%b"}\n\n' % (RAW, RAW), EVENTS),
    "an end": stream(b'event: stream:end\ndata: {"reason": "\\u001b]0;owned\\u0007%b"}\n\n' % RAW),
    "an error": head(b"400 Bad", body=RAW),
    "a problem": head(b"403 Forbidden", b"Content-Type: application/problem+json", PROBLEM),
    "a reason": head(b"400 " + RAW),
    "a version": lambda connection: connection.send(RAW + b" 200 OK\r\n\r\n"),
    "a header": head(b"200 OK", b"Content-Type: text/" + RAW, RAW),
    "headers": head(b"200 OK", b"Content-Type: text/event-stream\r\nCache-Control: \xc2\x9b31m\xe2\x80\xae", RAW),
    "a coding": head(b"200 OK", b"Content-Type: text/event-stream\r\nContent-Encoding: \xc2\x9b31m", RAW),
    "a redirect": head(b"302 Found", b"Location: /\xc2\x9b31m%1b]0;owned%07"),
    "a host": head(b"302 Found", b"Location: http://\xc2\x9b31m\xe2\x80\xae.invalid/"),
}


CASES: Final = [
    *(("listen", name) for name in ("events", "a gap", "an end", "an error", "a problem", "a header", "a redirect")),
    *(("doctor", name) for name in ("events", "a problem", "a reason", "a version", "headers", "a coding", "a host")),
]


@pytest.mark.parametrize(("command", "name"), CASES)
def test_hostile_server(command: str, name: str) -> None:
    options = ["--count=2"] if command == "listen" else ["--seconds=0.1"]
    with RawServer(SCRIPTS[name]) as server, Command(command, server.url, *options, terminal=True) as running:
        shown = "".join(iter(running.line, ""))
        running.process.wait(30)
    assert "Traceback" not in shown
    assert (command, name) != CASES[0] or "\\x1b]0;owned\\x07" in shown
    assert {part for part in ("\x1b]", "\x07", "\x9b", "\u202e", "\x08", "\x7f") if part in shown} == set()
