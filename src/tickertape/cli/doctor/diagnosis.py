"""``diagnose``: findings about a stream, with advice. Pure functions of an :class:`Observation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import urlsplit

NOTICEABLE: Final = 0.25
"""Seconds between the two parts of an event, from which on something must have held the second part back: no network
delivers the packets of one write so far apart, unless one is lost."""

LONG: Final = 35.0
"""Seconds without a byte, after which a stream has no useful heartbeat: two of the usual 15 s."""

LONG_LINE: Final = 64 * 1024
"""Bytes of an unfinished line that are worth a warning: clients must hold them all."""

_MAX_ID: Final = 40
"""Characters of an id in a finding."""

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class Arrival(NamedTuple):
    """Bytes that came at once."""

    seconds: float
    """Since the request was sent."""
    size: int
    ids: tuple[str | None, ...]
    """Of the events that these bytes completed, as in force when each was dispatched."""
    comments: int
    whole: bool
    """True if the bytes end where a block ends. A server writes whole events, a buffer cuts them anywhere."""


@dataclass
class Resumption:
    """The result of a reconnect with ``Last-Event-ID``."""

    after: str
    """The id that was sent."""
    expected: str
    """The id of the event that had followed it."""
    got: str | None = None
    """The id of the first event after the reconnect; ``None`` if none came in time."""


@dataclass
class Observation:
    """A record of one look at a stream."""

    url: str
    status: int = 0
    """``0`` if there was no response."""
    http_version: str = ""
    host: str = ""
    """Of the response, after redirects."""
    port: int = 0
    alpn: str = ""
    """The protocol that the server chose from HTTP/2 and HTTP/1.1 (RFC 7301); ``""`` without TLS or a choice."""
    tls: str = ""
    """The version of TLS; ``""`` without TLS."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    error: str = ""
    """The error that broke the connection, in words."""
    head_after: float = 0.0
    """Seconds until the head of the response came."""
    arrivals: list[Arrival] = field(default_factory=list)
    ended_after: float | None = None
    """Seconds until the server ended the stream; ``None`` if it did not."""
    seconds: float = 0.0
    """The time of the look."""
    retry: int | None = None
    resumption: Resumption | None = None
    """``None`` if the stream has shown no two events that have ids."""
    oversized: int = 0
    """Bytes of the limit that an event exceeded; ``0`` if none did."""
    unfinished: int = 0
    """Bytes after the last line end."""

    @property
    def ids(self) -> list[str | None]:
        """The ids of all events."""
        return [each for arrival in self.arrivals for each in arrival.ids]


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    FAULT = "fault"


class Finding(NamedTuple):
    """One fact about a stream, for its operator."""

    level: Level
    subject: str
    text: str
    advice: str = ""


def diagnose(seen: Observation) -> list[Finding]:
    """Return the findings, in the order of a request's way."""
    if not seen.status:
        return [_unreachable(seen)]
    findings = [*_status(seen)]
    if seen.status == 200:
        findings += [*_content(seen), *_transport(seen), *_headers(seen), *_pace(seen), *_size(seen), *_events(seen)]
    return findings


def _unreachable(seen: Observation) -> Finding:
    if seen.error:
        return Finding(Level.FAULT, "connection", seen.error, "check the address, the server and the proxies between")
    text = f"no answer within {seen.seconds:.1f} s"
    advice = "send the head of the response at once, with a first comment, and let no proxy wait for more"
    return Finding(Level.FAULT, "connection", text, advice)


def _status(seen: Observation) -> Iterator[Finding]:
    advice = {
        204: "browsers and clients never reconnect after 204: answer 200 if more events follow",
        401: "pass credentials: --header 'Authorization: Bearer …'",
        403: "pass credentials: --header 'Authorization: Bearer …'",
        404: "check the path of the URL",
        429: "browsers never reconnect after 429: end streams instead of refusing them",
    }.get(seen.status, "browsers never reconnect after a status other than 200: end streams instead of refusing them")
    if seen.status == 200:
        yield Finding(Level.OK, "status", f"200 after {seen.head_after * 1000:.0f} ms")
    else:
        yield Finding(Level.FAULT, "status", str(seen.status), advice)
    if seen.status >= 429 and "retry-after" not in seen.headers:
        yield Finding(
            Level.INFO, "Retry-After", "not given", "send Retry-After: tickertape's clients and others wait that long"
        )


def _content(seen: Observation) -> Iterator[Finding]:
    kind, _, parameters = seen.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "text/event-stream":
        advice = "clients refuse anything but text/event-stream"
        yield Finding(Level.FAULT, "content type", repr(kind.strip()), advice)
    elif "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        advice = "the format is always UTF-8: remove the charset"
        yield Finding(Level.WARNING, "content type", parameters.strip(), advice)
    else:
        yield Finding(Level.OK, "content type", "text/event-stream")
    if "content-length" in seen.headers:
        advice = "a stream has no length: a proxy or middleware collected it"
        yield Finding(Level.FAULT, "length", f"Content-Length: {seen.headers['content-length']}", advice)


def _transport(seen: Observation) -> Iterator[Finding]:
    if seen.http_version == "HTTP/2":
        yield Finding(Level.OK, "HTTP", "HTTP/2")
    elif seen.alpn == "h2":
        yield Finding(Level.OK, "HTTP", f"HTTP/2 is offered; this look used {seen.http_version}")
    elif not seen.tls:
        advice = "browsers open six connections to a host over HTTP/1.1, for all tabs, and speak HTTP/2 only over TLS"
        yield Finding(Level.INFO, "HTTP", f"{seen.http_version}, without TLS", advice)
    else:
        advice = "browsers open six connections to a host over HTTP/1.1, for all tabs: offer HTTP/2 to them"
        yield Finding(Level.INFO, "HTTP", seen.http_version, advice)
    host = urlsplit(seen.url).hostname
    if seen.tls:
        yield Finding(Level.OK, "TLS", seen.tls)
    elif host in _LOCAL:
        yield Finding(Level.INFO, "TLS", "none, on this machine")
    else:
        advice = "use https: proxies may delay plain streams, and read them"
        yield Finding(Level.WARNING, "TLS", "none", advice)


def _headers(seen: Observation) -> Iterator[Finding]:
    caching = seen.headers.get("cache-control", "").lower()
    if "no-store" in caching or "no-cache" in caching:
        yield Finding(Level.OK, "caching", f"Cache-Control: {caching}")
    else:
        advice = "send Cache-Control: no-store, so that no cache collects the stream"
        yield Finding(Level.WARNING, "caching", f"Cache-Control: {caching or 'not given'}", advice)
    if "age" in seen.headers:
        advice = "the answer comes from a cache: keep it away from this path"
        yield Finding(Level.FAULT, "caching", f"Age: {seen.headers['age']}", advice)
    if seen.headers.get("incremental", "").strip() == "?1":
        yield Finding(Level.OK, "Incremental", "?1")
    else:
        found = seen.headers.get("incremental", "not given")
        advice = "send Incremental: ?1, so that proxies that know it pass on each event at once"
        yield Finding(Level.INFO, "Incremental", found, advice)
    coding = seen.headers.get("content-encoding", "identity")
    if coding == "identity":
        yield Finding(Level.OK, "compression", "none")
    else:
        advice = "compress only if each event is flushed; Cache-Control: no-transform keeps proxies from compressing"
        yield Finding(Level.WARNING, "compression", coding, advice)


def _pace(seen: Observation) -> Iterator[Finding]:
    advice = "nginx: proxy_buffering off, or X-Accel-Buffering: no; and no compression that does not flush"
    if not seen.arrivals:
        text = f"no byte within {seen.seconds:.1f} s"
        yield Finding(Level.WARNING, "first byte", text, f"send a comment at once; if the server does: {advice}")
        return
    first = seen.arrivals[0].seconds - seen.head_after
    yield Finding(Level.OK, "first byte", f"{first * 1000:.0f} ms after the head")
    cuts = [later.seconds - earlier.seconds for earlier, later in pairwise(seen.arrivals) if not earlier.whole]
    beats = max(arrival.comments for arrival in seen.arrivals)
    if max(cuts, default=0.0) >= NOTICEABLE:
        text = f"an event arrived in two parts, {max(cuts):.1f} s apart: a proxy or middleware fills a buffer first"
        yield Finding(Level.FAULT, "buffering", text, advice)
    elif beats > 1:
        text = f"{beats} heartbeats arrived at once: a proxy or middleware delays them"
        yield Finding(Level.FAULT, "buffering", text, advice)
    else:
        most = max(len(arrival.ids) for arrival in seen.arrivals)
        yield Finding(Level.OK, "buffering", f"none seen; at most {most} event{'' if most == 1 else 's'} at once")
    if seen.error:
        yield Finding(
            Level.FAULT, "connection", f"broken off: {seen.error}", "read the logs of the server and of the proxies"
        )
    elif seen.ended_after is not None:
        text = f"the server ended the stream after {seen.ended_after:.1f} s"
        yield Finding(
            Level.WARNING, "connection", text, "clients reconnect each time: keep it open, or make retry long"
        )
    yield _heartbeat(seen)


def _heartbeat(seen: Observation) -> Finding:
    beats = [arrival.seconds for arrival in seen.arrivals if arrival.comments]
    if len(beats) > 2:
        # The first may be a greeting.
        longest = max(later - earlier for earlier, later in pairwise(beats[1:]))
        return Finding(Level.OK, "heartbeat", f"a comment every {longest:.1f} s or sooner")
    if len(beats) > 1:
        return Finding(Level.OK, "heartbeat", f"a comment after {beats[1] - beats[0]:.1f} s")
    silence = seen.seconds - seen.arrivals[-1].seconds
    if silence >= LONG:
        advice = "send a comment every 15 s: proxies end silent connections, and dead ones are not noticed"
        return Finding(Level.WARNING, "heartbeat", f"none in {silence:.0f} s of silence", advice)
    return Finding(Level.INFO, "heartbeat", f"none needed in {seen.seconds:.0f} s", "look for longer: --seconds 40")


def _size(seen: Observation) -> Iterator[Finding]:
    advice = "end each event with a blank line, and send less per event: clients hold an event until it ends"
    if seen.oversized:
        yield Finding(Level.FAULT, "size", f"an event of more than {seen.oversized} bytes", advice)
    elif seen.unfinished >= LONG_LINE:
        yield Finding(Level.WARNING, "size", f"a line of {seen.unfinished} bytes had no end yet", advice)


def _events(seen: Observation) -> Iterator[Finding]:
    ids = seen.ids
    # An event without an id shows the id before it.
    missing = sum(not own for own in ids) + sum(bool(own) and own == before for before, own in pairwise(ids))
    if not ids:
        yield Finding(
            Level.INFO, "ids", f"no event arrived in {seen.seconds:.0f} s", "publish some, or look for longer"
        )
    elif missing:
        advice = "send an id with each event: without ids, the events sent during a reconnect are lost"
        yield Finding(Level.WARNING, "ids", f"{missing} of {len(ids)} events have no id", advice)
    else:
        yield Finding(Level.OK, "ids", f"all {len(ids)} events have one" if len(ids) > 1 else "the event has one")
    if seen.retry is None:
        advice = "send retry: milliseconds; browsers wait from 3 s (Chrome) to 5 s (Firefox) without"
        yield Finding(Level.INFO, "retry", "not given", advice)
    elif seen.retry < 500:
        yield Finding(
            Level.WARNING, "retry", f"{seen.retry} ms", "send a second or more: otherwise all clients reconnect at once"
        )
    else:
        yield Finding(Level.OK, "retry", f"{seen.retry} ms")
    yield _resume(seen)


def _resume(seen: Observation) -> Finding:
    resumption = seen.resumption
    if resumption is None:
        return Finding(
            Level.INFO, "resume", "not tried: it takes two events with ids", "publish some, or look for longer"
        )
    if resumption.got == resumption.expected:
        return Finding(Level.OK, "resume", f"after {_short(resumption.after)} the same event followed")
    came = "nothing came" if resumption.got is None else f"{_short(resumption.got)} came first"
    text = f"after {_short(resumption.after)} {came}, not {_short(resumption.expected)}"
    return Finding(Level.FAULT, "resume", text, "keep a history, and start after the Last-Event-ID of the request")


def _short(id: str) -> str:
    """Return the start and the end of a long id: both differ between ids."""
    half = (_MAX_ID - 1) // 2
    return id if len(id) <= _MAX_ID else f"{id[:half]}…{id[-half:]}"
