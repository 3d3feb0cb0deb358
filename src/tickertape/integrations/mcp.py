"""``HubEventStore``: the events of MCP's streamable HTTP transport, kept in a hub's log so that clients resume."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, authorization_context
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse, jsonrpc_message_adapter

from ..asgi import ASGIApp, EventSourceResponse, Message, Receive, Scope, Send
from ..hub import Hub, HubEvent
from ..wire import Cursor, End, Gap, ServerSentEvent, TopicsChange

__all__ = ["HubEventStore"]

logger = logging.getLogger("tickertape.mcp")


class _Session:
    """A session: its id, known at the latest from the answer to ``initialize``, and the user it belongs to."""

    def __init__(self, id: str | None, scope: Scope) -> None:
        self.id = id or secrets.token_hex(16)
        self._scope = scope

    @property
    def key(self) -> str:
        """A text that only the same session of the same user has. The user is known inside the application only."""
        user = self._scope.get("user")
        owner = authorization_context(user) if isinstance(user, AuthenticatedUser) else None
        return _digest(f"{self.id} {owner}")


_current: Final[ContextVar[_Session]] = ContextVar("mcp_session")


class HubEventStore(EventStore):
    """Keep the events of MCP streams in the log of a hub, which several server processes can share.

    Each stream of a session is a topic, and an event's id is its cursor. A client that reconnects with
    ``Last-Event-ID`` gets what it missed of that stream, and then what follows, from any process on the same log. An
    id of another session yields nothing.

    Arguments:
        hub: its retention decides how long a client can resume.
        session: the id of the only session that uses this object, for programs that make one transport for each
            session. By default the session is that of the request: wrap the application in :meth:`wrap`.
        topic: the first segments of all topics.

    The SDK passes no session to a store, and its stream ids are those of requests, the same in every session.

    Source: ``EventStore`` of the package ``mcp`` 2; MCP 2025-11-25, "Resumability and Redelivery".

    Raises:
        InvalidTopicError: ``topic`` breaks the syntax of topics.
    """

    def __init__(self, hub: Hub, *, session: str | None = None, topic: str = "mcp") -> None:
        hub.draft(topic)
        self._hub = hub
        self._session = None if session is None else _Session(session, {})
        self._topic = topic

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return the application with the session of each request known to this store.

        If the application answers 404 to a client that resumes, since another process has the session, the store
        sends the events itself. Checks of the user come before that, as long as they are inside the application.

        Arguments:
            app: the server, as ``server.streamable_http_app(event_store=store)``.
        """

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            session = _Session(_header(scope["headers"], b"mcp-session-id"), scope)
            last_event_id = _header(scope["headers"], b"last-event-id") if scope["method"] == "GET" else None
            refusal: list[Message] = []

            async def look_and_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    session.id = _header(message.get("headers", ()), b"mcp-session-id") or session.id
                    if message["status"] == 404 and last_event_id is not None:
                        refusal.append(message)
                        return
                if refusal:
                    refusal.append(message)
                else:
                    await send(message)

            # The tasks of a session inherit the context of the request that opened it.
            token = _current.set(session)
            try:
                await app(scope, receive, look_and_send)
                if refusal:
                    await self._answer_instead(refusal, last_event_id or "", scope, receive, send)
            finally:
                _current.reset(token)

        return wrapped

    async def _answer_instead(
        self, refusal: list[Message], last_event_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        topic = await self._find_topic(last_event_id)
        if topic is None:
            for message in refusal:
                await send(message)
            return

        async def content() -> AsyncGenerator[ServerSentEvent]:
            async with aclosing(self._follow(topic, last_event_id)) as events:
                async for event, _ in events:
                    yield ServerSentEvent(event.data, event="message", id=event.id)

        await EventSourceResponse(content(), head="now")(scope, receive, send)

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Append an event to the log, and return its id.

        Arguments:
            stream_id: the stream of the session.
            message: the message, or ``None`` for a priming event, which only marks a position.

        Raises:
            RuntimeError: the session is not known.
            EventTooLargeError: the message is larger than the hub's ``max_event_size``.
            BrokerError: the event was not stored, or that is unknown.
        """
        text = "" if message is None else message.model_dump_json(by_alias=True, exclude_unset=True)
        return str(await self._hub.publish(f"{self._session_topic()}/{_digest(stream_id)}", text))

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        """Send what followed an event in its stream, and what follows, until the response of the request.

        It does not end at the newest event: the request may be running in another process.

        Arguments:
            last_event_id: the id of the last event that the client received.
            send_callback: awaited with each message.

        Returns:
            ``None``, since nothing is left to send: the SDK need not continue the stream.

        Raises:
            RuntimeError: the session is not known.
            BrokerError: the log cannot be read.
        """
        topic = await self._find_topic(last_event_id)
        if topic is None:
            logger.warning("an MCP client asked for events after %r, which its session does not have", last_event_id)
            return None
        async with aclosing(self._follow(topic, last_event_id)) as events:
            async for event, message in events:
                await send_callback(EventMessage(message, event.id))
        return None

    async def _follow(self, topic: str, last_event_id: EventId) -> AsyncGenerator[tuple[HubEvent, JSONRPCMessage]]:
        """Yield the messages of a stream after an event, up to the response of the request."""
        async with self._hub.subscribe(topic, last_event_id=last_event_id) as events:
            async for event in events:
                if isinstance(event, Gap):
                    logger.warning("an MCP client missed events that are no longer kept: %s", event.reason)
                    return
                if isinstance(event, (End, TopicsChange)):
                    return
                if not event.data:
                    continue  # a priming event
                message = jsonrpc_message_adapter.validate_json(event.data, by_name=False)
                yield event, message
                if isinstance(message, (JSONRPCResponse, JSONRPCError)) and message.id is not None:
                    return

    async def _find_topic(self, event_id: EventId) -> str | None:
        """Return the topic of a kept event, if it is one of this session."""
        cursor = Cursor.parse(event_id)
        if cursor is None or cursor.offset < 1:
            return None
        page = await self._hub.read(cursor.offset - 1, 1)
        found = [record.topic for record in page.records if record.offset == cursor.offset]
        own = page.state.epoch == cursor.epoch and found and found[0].startswith(f"{self._session_topic()}/")
        return found[0] if own else None

    def _session_topic(self) -> str:
        session = self._session or _current.get(None)
        if session is None:
            raise RuntimeError("the session is not known: run the application as HubEventStore.wrap(app)")
        return f"{self._topic}/{session.key}"


def _digest(text: str) -> str:
    """Return a segment of a topic. A session id grants access, so no log may contain it."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1") for known, value in headers if known.lower() == name), None)
