"""Our client and others on the same bytes, as a table. ``PYTHONPATH=tests python -m support.peers`` writes it.

A cell is ``yes`` if the client follows WHATWG HTML. Otherwise it shows what the client did.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import httpx2
from ld_eventsource import SSEClient
from ld_eventsource.config import ErrorStrategy

from support.raw_server import RawServer, Script, answer, stream
from tickertape.client import Reconnecting, SyncEventSource

__all__ = ["CASES", "CLIENTS", "PAGE", "Case", "Outcome", "header", "run", "table"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "topics" / "clients.md"

RETRY: Final = 0.01
"""Seconds between attempts: short, because tests wait for them."""


MAX_FAILURES: Final = 4
"""Failures in a row, after which a client that would never stop is stopped."""


@dataclass
class Outcome:
    """The behaviour of a client."""

    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, data and id of each."""
    delays: list[float] = field(default_factory=list)
    """Seconds before another attempt, waited or announced."""
    error: str = ""
    requests: int = 0
    places: list[str] = field(default_factory=list)
    """The ``Last-Event-ID`` of each request."""


def tickertape(url: str, seen: Outcome) -> None:
    def note(notice: Reconnecting) -> None:
        seen.delays.append(notice.delay)

    with SyncEventSource(url, retry=RETRY, max_delay=RETRY, on_reconnecting=note, random=lambda: 1.0) as source:
        for event in source:
            seen.events.append((event.event or "message", event.data or "", event.id or ""))


def launchdarkly(url: str, seen: Outcome) -> None:
    # Without this strategy it does not reconnect at all.
    strategy = ErrorStrategy.continue_with_max_attempts(MAX_FAILURES)
    client = SSEClient(url, initial_retry_delay=RETRY, error_strategy=strategy)
    try:
        for event in client.events:
            seen.events.append((event.event, event.data, event.last_event_id or ""))
            seen.delays.append(client.next_retry_delay)
    finally:
        seen.delays.append(client.next_retry_delay)
        client.close()


def of_httpx2(url: str, seen: Outcome) -> None:
    with httpx2.Client() as client, client.sse(url) as source:
        for event in source:
            seen.events.append((event.event, event.data, event.id))
            seen.delays.append((event.retry or 0) / 1000)


CLIENTS: Final[dict[str, Callable[[str, Outcome], None]]] = {
    "tickertape": tickertape,
    "launchdarkly-eventsource": launchdarkly,
    "httpx2": of_httpx2,
}


class Case(NamedTuple):
    """Bytes, and a condition for a client that follows the standard."""

    name: str
    scripts: list[Script]
    holds: Callable[[Outcome], bool]


def gives(*data: str) -> Callable[[Outcome], bool]:
    """Return the condition that exactly these data come."""
    return lambda seen: [event[1] for event in seen.events] == list(data)


def data_and_ids(*pairs: tuple[str, str]) -> Callable[[Outcome], bool]:
    """Return the condition that exactly these data come, with these ids."""
    return lambda seen: [event[1:] for event in seen.events] == list(pairs)


A: Final = b"id: 1\ndata: a\n\n"
B: Final = b"id: 2\ndata: b\n\n"
LARGE: Final = 512 * 1024
HUGE: Final = 24 * 1024 * 1024

CASES: Final = [
    Case("a BOM at the start", [stream(b"\xef\xbb\xbfdata: a\n\n")], gives("a")),
    Case("CRLF, split between CR and LF", [stream(b"data: a\r", b"\n\r", b"\ndata: b\r\n\r\n")], gives("a", "b")),
    Case("CR only", [stream(b"data: a\r\rdata: b\r\r")], gives("a", "b")),
    Case("U+2028 in the data", [stream("data: a\u2028b\n\n".encode())], gives("a\u2028b")),
    Case("invalid UTF-8", [stream(b"data: \xff\n\ndata: b\n\n")], gives("\ufffd", "b")),
    Case("an id with NUL", [stream(A + b"id: x\0y\ndata: b\n\n")], data_and_ids(("a", "1"), ("b", "1"))),
    Case("a heartbeat after an id", [stream(b"id: 1\n\n: beat\n\ndata: a\n\n")], data_and_ids(("a", "1"))),
    Case(
        "`event:` without data",
        [stream(b"event: x\n\ndata: a\n\n")],
        lambda seen: seen.events == [("message", "a", "")],
    ),
    Case("`retry: 1000` is honoured", [stream(b"retry: 1000\ndata: a\n\n")], lambda seen: max(seen.delays) > 0.5),
    Case("`retry: 1_000` is ignored", [stream(b"retry: 1_000\ndata: a\n\n")], lambda seen: max(seen.delays) < 0.5),
    Case(
        "half an event, then the end",
        [stream(A + b"id: 2\ndata: half", then="drop")],
        lambda seen: data_and_ids(("a", "1"))(seen) and "2" not in seen.places,
    ),
    Case(
        "reconnects with `Last-Event-ID`",
        [stream(A), stream(B)],
        lambda seen: gives("a", "b")(seen) and seen.places[:2] == ["", "1"],
    ),
    Case("stops on 204", [answer(204), stream(A)], lambda seen: not seen.events and seen.requests == 1),
    Case("reconnects after 503", [answer(503, "Retry-After: 0"), stream(A)], gives("a")),
    Case(
        "refuses another content type",
        [answer(200, "Content-Type: text/html", body=A)],
        lambda seen: not seen.events and bool(seen.error),
    ),
    Case(
        "an event of 512 KiB",
        [stream(b"data: ", *[b"x" * 1024] * (LARGE // 1024), b"\n\n")],
        lambda seen: [len(event[1]) for event in seen.events] == [LARGE],
    ),
    Case(
        "refuses an event without end",
        [stream(b"data: ", *[b"x" * 1024 * 1024] * (HUGE // 1024 // 1024), b"\n\n")],
        lambda seen: not seen.events and bool(seen.error),
    ),
]


def run(name: str, case: Case) -> Outcome:
    """Run a client on a case."""
    seen = Outcome()
    with RawServer(*case.scripts) as server:
        try:
            CLIENTS[name](server.url, seen)
        except Exception as error:
            seen.error = type(error).__name__
        seen.requests = len(server.requests)
        seen.places = [request.headers.get("last-event-id", b"").decode() for request in server.requests]
    return seen


def cell(name: str, case: Case) -> str:
    """Return a cell of the table."""
    seen = run(name, case)
    if case.holds(seen):
        return "yes"
    if case.name.startswith("reconnects with") and seen.requests == 1:
        return "no: does not reconnect"
    if case.name.startswith("`retry: 1_000"):
        return f"no: as {max(seen.delays) * 1000:.0f} ms"
    if case.name.startswith("`retry"):
        return "no: ignored"
    if not seen.events:
        return "no: nothing"
    shown = ", ".join(f"`{data!r}`" if len(data) < 20 else f"{len(data) // 1024} KiB" for _, data, _ in seen.events)
    ids = f", ids {', '.join(repr(own) for _, _, own in seen.events)}" if " id" in case.name else ""
    return f"no: {shown}{ids}".replace("\0", "\\0")


def header() -> str:
    """Return the first line of the table, with the versions that are installed."""
    names = [f"{name} {version(name)}" if name != "tickertape" else name for name in CLIENTS]
    return f"| | {' | '.join(names)} |"


def table() -> str:
    """Return the table in Markdown."""
    lines = [header(), f"|---{'|---' * len(CLIENTS)}|"]
    lines += [f"| {case.name} | {' | '.join(cell(name, case) for name in CLIENTS)} |" for case in CASES]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    before, start, rest = PAGE.read_text().partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end -->")
    PAGE.write_text(f"{before}{start}{table()}{end}{after}")
