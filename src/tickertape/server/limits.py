"""The limits of the server for its clients, and the counts of what they refused.

:class:`Limits` has the values. A :class:`Guard` applies them in one process: to connections, which
:mod:`tickertape.server.connections` asks, and to requests. A client is a user if the request has one, else an
address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol

from .problems import Problem

GUARD: Final = "tickertape.guard"
"""The key in the state of the application's lifespan; the value is a :class:`Guard`."""

BODY: Final = "tickertape.body"
"""The key in the scope of a request; the value is its client, and the bytes of its body that are accounted for."""

USER: Final = "tickertape.user"
"""The key in the scope of a request; the value is the name of the user that made it."""

_EXEMPT_BODY: Final = 64 * 1024
"""Bytes of a body that do not count: a usual event can be published while large bodies use up the memory for them."""

_EXEMPT_ANSWER: Final = 64 * 1024
"""Bytes of an answer that is always sent: health and metrics are answered while others do not read theirs."""

_CLIENT_SHARE: Final = 4
"""A client may use one part in this many of the memory for bodies, and of that for answers."""

_MAX_CLIENTS: Final = 10_000
"""Clients whose rates are remembered, some 2 MiB. Those that may do everything again are forgotten first."""

_IPV6_PREFIX: Final = 64
"""Bits of an IPv6 address that name a client: providers assign at least so large a network to each."""

_CHECKS: Final = 4
"""Checks in the shortest timeout, at which connections are closed that are too late."""

_LONGEST_PAUSE: Final = 1.0
"""Seconds between two checks at most."""


class Limits(NamedTuple):
    """The values of the limits; ``None`` for no limit.

    Attributes:
        head_timeout: seconds for the head of a request, also for a first one that does not begin.
        body_timeout: seconds for a body, and
        body_rate: bytes of a body or an answer for each of which its time is extended by a second.
        keep_alive: seconds that a connection may stay open between requests.
        send_timeout: seconds in which a client must read an answer.
        max_head_size: bytes of the head of a request, and of the trailers of a body.
        max_headers: headers and trailers of a request.
        max_body_memory: bytes of all bodies that are being received.
        max_answer_memory: bytes of all answers that clients have not read yet.
        max_batch: events of a batch, which is stored as a whole.
        max_values: values in one event of JSON, as the numbers of a list.
        max_digits: digits of an integer in JSON.
        max_history_bytes: bytes of the data in a page of the history, unless its first event alone has more.
        client_connections: connections of one address.
        max_streams: event streams.
        client_streams: event streams of one client.
        stream_rate: new event streams per second.
        client_stream_rate: those of one client.
        publish_rate: published events per second.
        client_publish_rate: those of one client.
        publish_bytes: bytes of published bodies per second.
        client_publish_bytes: those of one client.
        publish_wait: seconds for which a publisher waits for streams that are about to lose events.
        trusted_proxies: addresses and networks of proxies, which are not clients.
    """

    head_timeout: float | None = 10.0  # a phone on a bad network sends a head in two round trips
    body_timeout: float | None = 30.0
    body_rate: int | None = 32 * 1024  # slower than any network with which 8 MiB would be tried
    keep_alive: float = 5.0
    send_timeout: float | None = 30.0
    max_head_size: int = 32 * 1024  # twice what Node.js accepts: cookies and tokens are large
    max_headers: int = 100  # of Apache, too; browsers send 20
    max_body_memory: int | None = 64 * 1024 * 1024  # as much as the window of events has by default
    max_answer_memory: int | None = 64 * 1024 * 1024  # the same as for bodies
    max_batch: int = 10_000  # stored as a whole: other publishers wait until then
    max_values: int | None = 50_000  # a large table fits, and 0.1 s pass until others are served
    max_digits: int = 400  # more than a float can have, or a key of 1,024 bits
    max_history_bytes: int = 1024 * 1024  # as much as the largest event has by default
    client_connections: int | None = 10_000  # half of what a usual limit of descriptors leaves
    max_streams: int | None = None
    client_streams: int | None = None
    stream_rate: float | None = None
    client_stream_rate: float | None = None
    publish_rate: float | None = None
    client_publish_rate: float | None = None
    publish_bytes: int | None = None
    client_publish_bytes: int | None = None
    publish_wait: float | None = None
    trusted_proxies: tuple[str, ...] = ()


class LimitCounts(NamedTuple):
    """Counts of refused requests and closed connections since the start, by limit.

    Attributes:
        descriptors: connections closed because the descriptors were used up.
        accepting: times that new connections had to wait because the descriptors were used up all the same.
        client_connections: connections closed because their address had too many.
        head_timeout: connections closed before the head of a request was complete.
        body_timeout: requests whose body was too slow.
        send_timeout: connections closed because the client did not read an answer in time.
        head_size: requests with too large a head, or too large trailers.
        headers: requests with too many headers.
        body_size: bodies that were too large.
        body_memory: bodies refused because others used up the memory.
        answer_memory: requests for large answers refused because others are not read.
        event_size: events that were too large.
        batch: batches of too many events.
        values: events of JSON with too many values.
        digits: integers of JSON with too many digits.
        hosts: requests for a host that is not allowed.
        streams: streams refused because there were too many.
        stream_rate: streams refused because too many were opened in a short time.
        publish_rate: publications refused because too many events were published in a short time.
        publish_bytes: publications refused because too many bytes were published in a short time.
        publish_wait: publications refused because a stream was about to lose events.
    """

    descriptors: int = 0
    accepting: int = 0
    client_connections: int = 0
    head_timeout: int = 0
    body_timeout: int = 0
    send_timeout: int = 0
    head_size: int = 0
    headers: int = 0
    body_size: int = 0
    body_memory: int = 0
    answer_memory: int = 0
    event_size: int = 0
    batch: int = 0
    values: int = 0
    digits: int = 0
    hosts: int = 0
    streams: int = 0
    stream_rate: int = 0
    publish_rate: int = 0
    publish_bytes: int = 0
    publish_wait: int = 0


class TokenBucket:
    """A rate, with bursts of one second. More than the current level may be taken; the debt is paid off by waiting.

    Arguments:
        rate: per second, > 0.
        now: the current time.
    """

    __slots__ = ("_level", "_rate", "_time")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._level = self._burst
        self._time = now

    @property
    def _burst(self) -> float:
        return max(self._rate, 1.0)

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._time) * self._rate)
        self._time = now

    def wait(self, now: float) -> float:
        """Return the seconds until something may be taken."""
        self._refill(now)
        return 0.0 if self._level >= min(1.0, self._burst) else (min(1.0, self._burst) - self._level) / self._rate

    def take(self, count: float, now: float) -> None:
        """Take ``count``."""
        self._refill(now)
        self._level -= count

    def is_full(self, now: float) -> bool:
        """Return True if the bucket is as a new one."""
        self._refill(now)
        return self._level >= self._burst


class _Rate:
    """A rate in total, and one for each client; ``None`` for no limit."""

    def __init__(self, total: float | None, client: float | None, now: Callable[[], float]) -> None:
        self._now = now
        self._total = None if total is None else TokenBucket(total, now())
        self._rate = client
        self._clients: dict[str, TokenBucket] = {}

    def wait(self, client: str) -> float:
        """Return the seconds until the client may take something."""
        now = self._now()
        waits = [0.0]
        if self._total is not None:
            waits.append(self._total.wait(now))
        if client in self._clients:
            waits.append(self._clients[client].wait(now))
        return max(waits)

    def take(self, client: str, count: float) -> None:
        now = self._now()
        if self._total is not None:
            self._total.take(count, now)
        if self._rate is not None:
            if client not in self._clients:
                self._make_room(now)
                self._clients[client] = TokenBucket(self._rate, now)
            self._clients[client].take(count, now)

    def _make_room(self, now: float) -> None:
        if len(self._clients) < _MAX_CLIENTS:
            return
        self._clients = {client: bucket for client, bucket in self._clients.items() if not bucket.is_full(now)}
        while len(self._clients) >= _MAX_CLIENTS:
            del self._clients[next(iter(self._clients))]


class Watched(Protocol):
    """A connection that may be too slow.

    Attributes:
        received: bytes of the current body that were received.
    """

    received: int

    def overdue(self, limit: str) -> None:
        """Close the connection: the time of ``limit`` is over."""


class Answering(Watched, Protocol):
    """A connection whose client reads an answer."""

    @property
    def address(self) -> str:
        """The client, as :func:`address_of` returns it."""

    @property
    def unread(self) -> int:
        """The bytes that wait until the client reads."""


class Guard:
    """Apply limits in one process, and count what they refused.

    Arguments:
        limits: the values.
        now: a monotonic clock.

    Attributes:
        limits: the values.
        limits_streams: True if there is a limit for streams.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counts: Counter[str] = Counter()
        self._heads: dict[Watched, float] = {}  # with the time at which each began, in that order
        self._bodies: dict[Watched, float] = {}
        self._answers: dict[Answering, tuple[float, int]] = {}  # when each was written, and the bytes left then
        self._timer: asyncio.TimerHandle | None = None
        self._addresses: Counter[str] = Counter()
        self._counted = -math.inf
        self._streams: Counter[str] = Counter()
        self._body_bytes: Counter[str] = Counter()
        self.apply(limits)

    def apply(self, limits: Limits) -> None:
        """Replace the values. The rates start again."""
        self.limits = limits
        self.limits_streams = any(
            limit is not None
            for limit in (limits.max_streams, limits.client_streams, limits.stream_rate, limits.client_stream_rate)
        )
        self._stream_rate = _Rate(limits.stream_rate, limits.client_stream_rate, self._now)
        self._publish_rate = _Rate(limits.publish_rate, limits.client_publish_rate, self._now)
        self._publish_bytes = _Rate(limits.publish_bytes, limits.client_publish_bytes, self._now)

    def __repr__(self) -> str:
        return f"<Guard {dict(self._counts)}>"

    def statistics(self) -> LimitCounts:
        """Return the counts of what was refused."""
        return LimitCounts(**self._counts)

    def count(self, limit: str) -> None:
        """Count a connection or a request that a limit has ended."""
        self._counts[limit] += 1

    # Connections.

    def accepts(self, transport: asyncio.BaseTransport, connections: Collection[Any]) -> bool:
        """Return False if the address of a new connection has too many of them.

        The connections are counted once a second, and only while there are as many in total.
        """
        limit = self.limits.client_connections
        if limit is None or len(connections) < limit:
            return True
        address = address_of(transport)
        if is_in(address, self.limits.trusted_proxies):
            return True
        now = self._now()
        if now - self._counted >= 1.0:
            self._counted = now
            self._addresses = Counter(map(_address_of_connection, connections))
        self._addresses[address] += 1
        if self._addresses[address] <= limit:
            return True
        self.count("client_connections")
        return False

    def watch_head(self, connection: Watched) -> None:
        """Call ``overdue()`` of a connection if it does not complete the head of a request in time."""
        if self.limits.head_timeout is not None and connection not in self._heads:
            self._heads[connection] = self._now()
            self._schedule()

    def watch_body(self, connection: Watched) -> None:
        """Call ``overdue()`` of a connection if it does not complete a body in time."""
        if self.limits.body_timeout is not None:
            self._bodies[connection] = self._now()
            self._schedule()

    def forget_head(self, connection: Watched) -> None:
        """Stop watching the head of a request."""
        self._heads.pop(connection, None)

    def forget_body(self, connection: Watched) -> None:
        """Stop watching the body of a request."""
        self._bodies.pop(connection, None)

    def watch_answer(self, connection: Answering) -> None:
        """Call ``overdue()`` of a connection if its client does not read an answer in time.

        Its unread bytes count until then.
        """
        if connection.unread:
            self._answers[connection] = self._now(), connection.unread
            self._schedule()

    def forget_answer(self, connection: Answering) -> None:
        """Stop watching the answer of a connection."""
        self._answers.pop(connection, None)

    def _schedule(self) -> None:
        if self._timer is None:
            limits = self.limits
            times = filter(None, (limits.head_timeout, limits.body_timeout, limits.send_timeout))
            shortest = min(times, default=_LONGEST_PAUSE)
            pause = min(_LONGEST_PAUSE, shortest / _CHECKS)
            self._timer = asyncio.get_running_loop().call_later(pause, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._now()
        for connection in [*self._late_heads(now)]:
            del self._heads[connection]
            self.count("head_timeout")
            connection.overdue("head_timeout")
        for connection in [*self._late_bodies(now)]:
            del self._bodies[connection]
            self.count("body_timeout")
            connection.overdue("body_timeout")
        for answering in [*self._late_answers(now)]:
            self.count("send_timeout")
            answering.overdue("send_timeout")
        if self._heads or self._bodies or self._answers:
            self._schedule()

    def _late_heads(self, now: float) -> Iterator[Watched]:
        for connection, began in self._heads.items():
            if now - began < (self.limits.head_timeout or 0.0):
                return  # the others began later
            yield connection

    def _late_bodies(self, now: float) -> Iterator[Watched]:
        allowed = self.limits.body_timeout or 0.0
        for connection, began in self._bodies.items():
            if now - began < allowed:
                return
            rate = self.limits.body_rate
            if rate is None or now - began >= allowed + connection.received / rate:
                yield connection

    def _late_answers(self, now: float) -> Iterator[Answering]:
        """Yield the connections whose clients are too slow, and forget them and those that have read everything."""
        allowed, rate = self.limits.send_timeout, self.limits.body_rate
        for connection, (began, size) in [*self._answers.items()]:
            unread = connection.unread
            extension = 0.0 if rate is None else (size - unread) / rate
            late = allowed is not None and now - began >= allowed + extension
            if late or not unread:
                del self._answers[connection]
            if late and unread:
                yield connection

    # Requests.

    def check_answer(self, client: str, size: int) -> None:
        """Refuse a large answer if clients have not read earlier ones.

        Arguments:
            client: the address of the client.
            size: bytes of the answer.

        Raises:
            Problem: the answers to all clients, or to this one, take too much memory.
        """
        total = self.limits.max_answer_memory
        if total is None or size <= _EXEMPT_ANSWER:
            return
        unread: Counter[str] = Counter()
        for connection in self._answers:
            unread[connection.address] += connection.unread
        own, all_clients = unread[client], unread.total()
        if (own and own + size > total // _CLIENT_SHARE) or (all_clients and all_clients + size > total):
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many large answers are not read: read them, or retry later"
            ).counted_as("answer_memory")

    def receive(self, scope: MutableMapping[str, Any], size: int) -> None:
        """Account for the memory of a body, until :meth:`release` is called for its request.

        Arguments:
            scope: of the request.
            size: bytes received so far.

        Raises:
            Problem: all bodies, or those of the client, take too much memory.
        """
        total = self.limits.max_body_memory
        if total is None or size <= _EXEMPT_BODY:
            return
        client, counted = scope.get(BODY) or (who(scope), 0)
        more = size - counted
        if self._body_bytes.total() + more > total or self._body_bytes[client] + more > total // _CLIENT_SHARE:
            self.count("body_memory")
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too many large bodies are being received: send smaller ones, or retry later",
            ).with_header(b"connection", b"close")
        self._body_bytes[client] += more
        scope[BODY] = client, size

    def release(self, scope: MutableMapping[str, Any]) -> None:
        """Account for the end of a request."""
        client, counted = scope.pop(BODY, ("", 0))
        if counted:
            self._body_bytes[client] -= counted
            if not self._body_bytes[client]:
                del self._body_bytes[client]

    def check_publisher(self, client: str) -> None:
        """Refuse a client that has published too much. Call :meth:`published` for what it publishes then."""
        self._refuse_for("publish_rate", self._publish_rate.wait(client), "events")
        self._refuse_for("publish_bytes", self._publish_bytes.wait(client), "bytes")

    def published(self, client: str, events: int, size: int) -> None:
        """Charge a client for what it publishes."""
        self._publish_rate.take(client, events)
        self._publish_bytes.take(client, size)

    def may_stream(self, client: str, streams: int) -> bool:
        """Return True if :meth:`open_stream` would allow a stream."""
        return not (self._has_too_many(client, streams) or self._stream_rate.wait(client))

    def open_stream(self, client: str, streams: int) -> Callable[[], None] | None:
        """Account for a new stream.

        Return a function to call when it has ended; a second call does nothing. Return ``None`` if that is not needed.

        Arguments:
            client: the client.
            streams: the number of streams that are open.

        Raises:
            Problem: there are too many, or too many in a short time.
        """
        if self._has_too_many(client, streams):
            self.count("streams")
            raise _too_many("too many streams are open: close some, or retry later", 5)
        self._refuse_for("stream_rate", self._stream_rate.wait(client), "streams")
        self._stream_rate.take(client, 1)
        if self.limits.client_streams is None:
            return None
        self._streams[client] += 1
        is_open = True

        def close() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._streams[client] -= 1
                if not self._streams[client]:
                    del self._streams[client]

        return close

    def _has_too_many(self, client: str, streams: int) -> bool:
        most, own = self.limits.max_streams, self.limits.client_streams
        return (most is not None and streams >= most) or (own is not None and self._streams[client] >= own)

    def _refuse_for(self, limit: str, seconds: float, what: str) -> None:
        if seconds > 0:
            self.count(limit)
            raise _too_many(f"too many {what} in a short time: retry after {seconds:.1f} seconds", seconds)


def _too_many(detail: str, seconds: float) -> Problem:
    after = str(math.ceil(seconds)).encode()
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail).with_header(b"retry-after", after)


# Clients.


def who(scope: Mapping[str, Any]) -> str:
    """Return the client of a request: its user if there is one, else its address."""
    user = scope.get(USER)
    return address_in(scope) if user is None else f"user {user}"


def address_in(scope: Mapping[str, Any]) -> str:
    """Return the address of the client of a request."""
    client = scope.get("client")
    return client_name(client[0]) if client else ""


def address_of(transport: asyncio.BaseTransport | None) -> str:
    """Return the client at the other end of a transport; ``""`` for a Unix socket."""
    peer = None if transport is None else transport.get_extra_info("peername")
    return client_name(peer[0]) if isinstance(peer, tuple) else ""


@lru_cache(maxsize=4096)
def client_name(address: str) -> str:
    """Return an address of IPv4, or the network of one of IPv6, which belongs to one client."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
    return str(parsed)


@lru_cache(maxsize=4096)
def is_in(client: str, networks: tuple[str, ...]) -> bool:
    """Return True if a client, as :func:`client_name` returns it, is in one of the networks."""
    if not networks:
        return False
    try:
        address = ipaddress.ip_network(client)
    except ValueError:
        return False
    for text in networks:
        network = ipaddress.ip_network(text, strict=False)
        if network.version == address.version and network.overlaps(address):
            return True
    return False


def _address_of_connection(connection: Any) -> str:
    transport = getattr(connection, "transport", None) or getattr(connection, "_transport", None)
    return address_of(transport)
