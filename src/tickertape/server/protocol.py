"""The connections of the hub's server: event streams without a detour, everything else through uvicorn.

A storm of clients that reconnect asks one thing a thousand times: ``GET /events?topic=…``, as the first
request of a new connection. :class:`HubProtocol` answers it in the call that receives it: it parses the
head, subscribes, writes head and first block at once, and hands the transport to the hub's output. Any
other request, and any that is not plain, creates uvicorn's protocol, which gets the bytes and the
connection. So every refusal and every error comes from the application.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote

import httptools
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from uvicorn.config import Config
from uvicorn.server import ServerState

from ..access import TICKET
from ..asgi import Message, Receive, Scope, Send, frame, get_last_event_id, request_id
from ..errors import AccessError, InvalidTopicError, TickertapeError
from ..hub import EVERYTHING, Grant, Hub, OverflowPolicy
from ..wire import check_patterns
from .checks import find_mistake
from .connections import HTTPProtocol, guard_of
from .descriptors import ACCEPTOR, Acceptor, is_full
from .endpoints import envelope_of, flag_of, last_of, policy_of, topics_of
from .hosts import AllowedHosts
from .limits import USER, Guard, address_of, who
from .problems import Problem
from .request_ids import HEADER, choose_id

STREAMS: Final = "tickertape.streams"
"""The key in the state of the application's lifespan; the value is a :class:`DirectStreams`."""

_PATH: Final = b"/events"
_END: Final = b"\r\n\r\n"
_MAX_CACHED: Final = 1_000
"""Queries and heads that are remembered. Beyond that the cache is emptied: clients may invent any number."""

_MAX_QUERY: Final = 2_048
"""Bytes of a query that is remembered."""

_NOT_PLAIN: Final = frozenset((b"content-length", b"transfer-encoding", b"expect", b"upgrade"))
"""Headers of requests with a body or that uvicorn itself handles."""

_OF_CREDENTIALS: Final = frozenset((b"authorization", b"cookie", b"host", b"origin", b"sec-fetch-site"))
"""Headers by which access is decided."""

_FORWARDED: Final = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))
"""Headers with which uvicorn replaces the client's address in its access log, if it trusts the proxy."""


class _Query(NamedTuple):
    """The parameters of a stream."""

    patterns: tuple[str, ...]
    last_event_id: str | None
    last: int | None
    policy: OverflowPolicy
    envelope: bool
    changeable: bool


class _HeadReader:
    """Read complete heads of requests, one after another, with one parser.

    Attributes:
        url: the target of the request.
        last_event_id: the value of the header, or ``None``.
        origin: the value of the header, or ``None``.
        credentials: the headers with a credential, or about the page that sends it.
        cookie: whether there is such a header.
        forwarded: whether a proxy names another client.
        host: the value of the header.
        ids: the values of the headers with an id of the request.
        count: the number of headers.
    """

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)

    def read(self, data: bytes) -> bool:
        """Return whether ``data`` is exactly one plain request of HTTP/1.1 without a body."""
        self.url = b""
        self.last_event_id: bytes | None = None
        self.origin: bytes | None = None
        self.credentials: list[tuple[bytes, bytes]] = []
        self.cookie = False
        self.forwarded = False
        self.host = b""
        self.ids: list[bytes] = []
        self.count = 0
        self._hosts = 0
        self._requests = 0
        self._keep_alive = False
        self._plain = True
        parser = self._parser
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._renew()
            return False
        if self._requests != 1 or not self._keep_alive:
            self._renew()
            return False
        return self._plain and self._hosts == 1 and parser.get_http_version() == "1.1"

    # Called by the parser.

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.count += 1
        if name in _OF_CREDENTIALS:
            self.credentials.append((name, value))
        if name == b"host":
            self._hosts += 1
            self.host = value
        elif name == b"last-event-id":
            self._plain = self._plain and self.last_event_id is None
            self.last_event_id = value
        elif name == b"origin":
            self._plain = self._plain and self.origin is None
            self.origin = value
        elif name == b"cookie":
            self.cookie = True
        elif name in _FORWARDED:
            self.forwarded = True
        elif name == HEADER:
            self.ids.append(value)
        elif name in _NOT_PLAIN:
            self._plain = False

    def on_message_complete(self) -> None:
        self._requests += 1
        self._keep_alive = self._parser.should_keep_alive()


class DirectStreams:
    """Answer plain requests for event streams over transports; shared by the connections of a server.

    Arguments:
        hub: an open hub.
        cors_options: arguments of Starlette's ``CORSMiddleware``; ``None`` for no CORS.
        guard: the limits.
        hosts: the hosts of requests that are served.
        root_path: a path below which a proxy publishes the hub; the proxy may keep it or remove it.
    """

    def __init__(
        self,
        hub: Hub,
        cors_options: Mapping[str, Any] | None,
        guard: Guard,
        hosts: AllowedHosts,
        root_path: str = "",
    ) -> None:
        self._hub = hub
        self._paths = (_PATH, root_path.encode() + _PATH)
        self._lines = tuple(b"GET " + path for path in self._paths)
        self._cors = cors_options
        self._guard = guard
        self._hosts = hosts
        self._headers = hub.response({"headers": [], "query_string": b""}, "**").headers.raw
        self._reader = _HeadReader()
        self._queries: dict[bytes, _Query | None] = {}
        self._heads: dict[tuple[bytes | None, bool], bytes] = {}
        self._default_headers: Sequence[tuple[bytes, bytes]] = ()
        self._access_logger = logging.getLogger("uvicorn.access")
        self._logs_access = self._access_logger.hasHandlers()

    def serve(self, data: bytes, transport: asyncio.Transport, state: ServerState) -> bool:
        """Answer a request and hand its connection to the hub. Return False if nothing was done."""
        if not (
            data.startswith(self._lines)
            and data.endswith(_END)
            and len(data) <= self._guard.limits.max_head_size
            and self._reader.read(data)
        ):
            return False
        token = request_id.set(choose_id(self._reader.ids))
        try:
            return self._answer(transport, state)
        finally:
            request_id.reset(token)

    def _answer(self, transport: asyncio.Transport, state: ServerState) -> bool:
        """Answer the request that was read last, if that can be done here; return whether it was."""
        limits, reader = self._guard.limits, self._reader
        if reader.count > limits.max_headers or not self._hosts.allow(reader.host):
            return False
        if reader.forwarded and limits.trusted_proxies:
            return False
        path, _, raw_query = reader.url.partition(b"?")
        query = self._query(raw_query) if path in self._paths else None
        if query is None:
            return False
        try:
            grant = self._authorize(query)
        except AccessError:
            return False  # the application answers with the problem
        if grant is None:
            return False
        guard = self._guard
        client = ""
        if guard.limits_streams:
            client = address_of(transport) if grant.user is None else who({USER: grant.user})
        if guard.limits_streams and not guard.may_stream(client, self._hub.subscribers()):
            return False
        last_event_id = query.last_event_id
        if reader.last_event_id:  # an empty id is none
            last_event_id = reader.last_event_id.decode("utf-8", "replace")
        try:
            stream = self._hub.open_direct(
                query.patterns,
                last_event_id,
                query.last,
                query.policy,
                query.envelope,
                grant,
                changeable=query.changeable,
            )
        except TickertapeError:
            return False  # the application answers with the problem
        if stream is None:
            return False
        opening, output = stream
        if guard.limits_streams and (close := guard.open_stream(client, self._hub.subscribers() - 1)):
            self._hub.delivery.on_end(output.subscription, lambda reason: close())
        state.total_requests += 1
        state.connections.add(cast("Any", output))
        transport.set_protocol(output)
        # With the mark at zero the bytes are written at once, and `resume_writing` is called when all are.
        transport.set_write_buffer_limits(high=0)
        transport.write(self._head(state) + frame(opening))
        output.start(transport, cast("Any", state.connections))
        if self._logs_access:
            self._log_access(transport)
        return True

    def _authorize(self, query: _Query) -> Grant | None:
        """Return the grant of the request that was read last; ``None`` if the application must find it.

        Raises:
            AccessError: the credential is invalid, or does not cover the patterns.
        """
        if self._hub.access is None:
            return EVERYTHING
        grant = self._hub.authorize_now({"type": "http", "headers": self._reader.credentials, "query_string": b""})
        if grant is not None:
            grant.check_subscribe(query.patterns)
        return grant

    def _query(self, raw: bytes) -> _Query | None:
        """Return the parameters in a raw query, or ``None`` if the application must answer."""
        try:
            return self._queries[raw]
        except KeyError:
            pass
        query = self._parse(raw)
        if len(raw) <= _MAX_QUERY:
            if len(self._queries) >= _MAX_CACHED:
                self._queries.clear()
            self._queries[raw] = query
        return query

    def _parse(self, raw: bytes) -> _Query | None:
        scope: dict[str, Any] = {"type": "http", "headers": [], "query_string": raw}
        if find_mistake(scope) is not None:
            return None
        request = Request(scope)
        if TICKET in request.query_params:
            return None  # it is used up in the log
        try:
            patterns = check_patterns(topics_of(request), limit=self._hub.max_topics)
            policy = OverflowPolicy(policy_of(request))
            envelope, changeable = envelope_of(request) is not None, flag_of(request, "subscription")
            return _Query(patterns, get_last_event_id(scope), last_of(request), policy, envelope, changeable)
        except (Problem, InvalidTopicError):
            return None

    def _head(self, state: ServerState) -> bytes:
        """Return the head of the answer to the request that is being served."""
        if state.default_headers is not self._default_headers:  # uvicorn replaces the list each second
            self._default_headers = state.default_headers
            self._heads.clear()
        reader = self._reader
        key = (None, False) if self._cors is None else (reader.origin, reader.cookie)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _MAX_CACHED:
                self._heads.clear()
            head = self._heads[key] = self._make_head(*key)
        return head + b"%b: %b\r\n\r\n" % (HEADER, str(request_id.get()).encode())

    def _make_head(self, origin: bytes | None, cookie: bool) -> bytes:
        """Return a head without the id of the request and the end."""
        headers = self._headers
        if self._cors is not None:
            request = [] if origin is None else [(b"origin", origin)]
            headers = _apply_cors(self._cors, headers, [*request, (b"cookie", b"")] if cookie else request)
        lines = [b"%b: %b\r\n" % header for header in (*self._default_headers, *headers)]
        return b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n" % b"".join(lines)

    def _log_access(self, transport: asyncio.Transport) -> None:
        client = transport.get_extra_info("peername")
        address = f"{client[0]}:{client[1]}" if isinstance(client, tuple) else ""
        path, _, query = self._reader.url.partition(b"?")
        target = f"{quote(path.decode())}?{query.decode()}" if query else quote(path.decode())
        self._access_logger.info('%s - "%s %s HTTP/%s" %d', address, "GET", target, "1.1", 200)


def _apply_cors(
    options: Mapping[str, Any], headers: list[tuple[bytes, bytes]], request: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response with those that the middleware adds for the headers of a request."""
    sent: list[Message] = []

    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        sent.append(message)

    _run(CORSMiddleware(begin, **options)({"type": "http", "method": "GET", "headers": request}, receive, send))
    changed: list[tuple[bytes, bytes]] = sent[0]["headers"]
    return changed


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("the middleware waited for something")


class HubProtocol(asyncio.Protocol):
    """Read the first request of a connection, and answer it or pass the connection on to uvicorn's protocol.

    Connections beyond ``limit_concurrency``, and too many of one address, are closed at once; so are those that request
    nothing for long.
    """

    __slots__ = ("_app_state", "_config", "_guard", "_state", "_transport", "received")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._guard = guard_of(app_state)
        self._transport: asyncio.Transport | None = None
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection, or close it."""
        self._transport = cast("asyncio.Transport", transport)
        limit = self._config.limit_concurrency
        if limit is not None and is_full(self._state, len(self._state.connections), limit):
            self._guard.count("descriptors")
            self._transport.abort()
        elif not self._guard.accepts(transport, self._state.connections):
            self._transport.abort()
        self._state.connections.add(cast("Any", self))
        self._guard.watch_head(self)
        acceptor: Acceptor | None = self._app_state.get(ACCEPTOR)
        if acceptor is not None and not acceptor.check():
            self._guard.count("accepting")

    def data_received(self, data: bytes) -> None:
        """Serve the first request."""
        assert self._transport is not None
        self._state.connections.discard(cast("Any", self))
        self._guard.forget_head(self)
        streams: DirectStreams | None = self._app_state.get(STREAMS)
        if streams is not None and not self._config.is_ssl and streams.serve(data, self._transport, self._state):
            return
        protocol = HTTPProtocol(self._config, self._state, self._app_state)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection: it ended before its first request."""
        self._state.connections.discard(cast("Any", self))
        self._guard.forget_head(self)

    def overdue(self, limit: str) -> None:
        """Close the connection: nothing was requested in time."""
        self.shutdown()

    def shutdown(self) -> None:
        """Close the connection: the server is stopping, and nothing was requested."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()
