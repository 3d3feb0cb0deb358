"""The endpoints of the hub's HTTP interface, and the parameters in their queries."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Literal, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..access import CredentialAccess
from ..asgi import ASGIApp, Receive, Scope, Send
from ..errors import (
    AccessError,
    EventTooLargeError,
    ForbiddenError,
    HubClosedError,
    InvalidEventError,
    InvalidTopicError,
    SubscriptionBusyError,
    UnauthorizedError,
)
from ..hub import MAX_LAST, Grant, Hub, HubResponse, Overflow, OverflowPolicy
from ..runs import Runs
from ..wire import Cursor, Draft, check_patterns, check_topic, is_internal
from .body import BODY_FACTOR, Publication, Turns, parse_object, parse_publication, parse_text, receive_body
from .broker_health import BrokerHealth
from .checks import check_origin
from .limits import GUARD, USER, Guard, address_in, who
from .openapi import DEFAULT_LIMIT, MAX_LIMIT, describe
from .problems import Problem

SMALL_BODY: Final = 64 * 1024
"""Bytes of a body that has options and no events."""

_BUSY: Final = b"1"
"""Seconds after which to retry a change of a stream whose client has not read the last ones: most have in a moment."""

_CHANGE: Final = {"add": "list of strings", "remove": "list of strings", "last": "whole number"}
"""The fields of a change of topics, with their types."""

READY_WITHIN: Final = 2.0
"""Seconds in which the broker must answer: readiness probes usually time out after five seconds."""


_MAX_USER: Final = 1_000
"""Characters of the name of a user: issuers keep to fewer than 255."""


class Endpoints:
    """Handle requests for a hub.

    Arguments:
        hub: an open hub.
        health: records and reports failed writes.
        origins: the origins whose pages may publish, besides the server's own.
        ready_within: seconds in which the broker must answer.
        runs: the runs on the log of the hub.
        guard: the limits for clients.
    """

    def __init__(
        self,
        hub: Hub,
        health: BrokerHealth,
        origins: Sequence[str],
        ready_within: float,
        runs: Runs,
        guard: Guard,
    ) -> None:
        self._hub = hub
        self._runs = runs
        self._health = health
        self._guard = guard
        self._origins = origins
        self._ready_within = ready_within
        self._description = json.dumps(describe()).encode()

    async def events(self, request: Request) -> ASGIApp:
        """``GET /events``: an event stream. ``POST /events``: publish one event or several."""
        if request.method == "POST":
            return await self._publish(request)
        topics = check_patterns(topics_of(request), limit=self._hub.max_topics)
        last, policy, envelope = last_of(request), policy_of(request), envelope_of(request)
        changeable = flag_of(request, "subscription")
        grant = await self._hub.authorize(request)
        grant.check_subscribe(topics)
        request.scope[USER] = grant.user
        close = self._guard.open_stream(who(request.scope), self._hub.subscribers())
        on_disconnect = None if close is None else lambda reason: close()
        response = self._hub.response(
            request,
            topics,
            grant=grant,
            last=last,
            on_overflow=policy,
            envelope=envelope,
            changeable=changeable,
            on_disconnect=on_disconnect,
        )
        return response if close is None else _closing(response, close)

    async def _publish(self, request: Request) -> Response:
        grant = await self._publisher(request)
        body = await self.receive(request, BODY_FACTOR * self._hub.max_event_size)
        turns = Turns()
        content_type = request.headers.get("content-type", "")
        publication = await parse_publication(content_type, body, turns, self._guard.limits)
        drafts = await self._drafts(publication, turns, grant)
        self._guard.published(who(request.scope), len(drafts) - 1, 0)
        cursors = await self._append(drafts)
        return published(cursors, many=publication.many)

    async def publish_text(self, request: Request) -> Response:
        """``POST /events/{topic}``: publish the body, whatever its content type; curl sends that of a form."""
        grant = await self._publisher(request)
        body = await self.receive(request, self._hub.max_event_size)
        fields = {"topic": request.path_params["topic"], "data": parse_text(body)}
        fields |= {name: value for name in ("event", "key") if (value := request.query_params.get(name))}
        drafts = await self._drafts(Publication([fields], many=False), Turns(), grant)
        return published(await self._append(drafts), many=False)

    async def end_topic(self, request: Request) -> Response:
        """``POST /topics/{topic}/end``: end a topic; the body may have a reason."""
        grant = await self._publisher(request)
        fields = await self._options(request, reason="string")
        topic = check_topic(request.path_params["topic"])
        _check_publish(grant, topic)
        try:
            with self._health.writing():
                cursor = await self._hub.end(topic, **fields)
        except InvalidEventError as error:
            raise Problem.of(error) from None
        return json_response({"cursor": str(cursor)})

    async def change(self, request: Request) -> Response:
        """``PATCH /subscriptions/{id}``: change the topics of an open stream."""
        grant = await self._hub.authorize(request)
        request.scope[USER] = grant.user
        fields = await self._options(request, **_CHANGE)
        try:
            with self._health.writing():
                cursor = await self._hub.change(request.path_params["id"], **fields, grant=grant)
        except SubscriptionBusyError as error:
            raise Problem.of(error).with_header(b"retry-after", _BUSY) from None
        except InvalidTopicError:
            raise
        except ValueError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        return json_response({"cursor": str(cursor)})

    async def history(self, request: Request) -> Response:
        """``GET /history``: a page of the kept events."""
        topics = check_patterns(topics_of(request), limit=self._hub.max_topics)
        (await self._hub.authorize(request)).check_subscribe(topics)
        found, gap = await self._hub.history(
            topics, after=after_of(request), limit=limit_of(request), max_bytes=self._guard.limits.max_history_bytes
        )
        events = [
            {"cursor": str(cursor), "topic": record.topic, "event": record.event, "data": record.data}
            for cursor, record in found
        ]
        return json_response({"events": events, "gap": gap})

    async def tickets(self, request: Request) -> Response:
        """``POST /tickets``: a ticket for one stream, for a client that cannot send its credential with it."""
        access = self._credential_access()
        grant = await self._hub.authorize(request)
        if grant.anonymous or request.query_params.get("ticket"):
            raise UnauthorizedError("a ticket needs a credential that is no ticket")
        if access.tickets is None:
            raise Problem(HTTPStatus.NOT_FOUND, "tickets are not configured here")
        topics = (await self._options(request, topics="value")).get("topics")
        if not (isinstance(topics, list) and topics and all(isinstance(topic, str) for topic in topics)):
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "expected 'topics' to be a list of topic patterns")
        ticket = access.tickets.issue(grant, check_patterns(topics, limit=self._hub.max_topics))
        return json_response({"ticket": ticket, "valid": access.tickets.valid}, HTTPStatus.CREATED)

    async def revocations(self, request: Request) -> Response:
        """``POST /revocations``: end the streams of a user, and refuse the credentials that it has now."""
        access = self._credential_access()
        (await self._hub.authorize(request)).check_admin("revoke credentials")
        user = (await self._options(request, user="string")).get("user", "")
        if not 0 < len(user) <= _MAX_USER:
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"expected 'user' to be a text of 1 to {_MAX_USER} characters"
            )
        if access.revocations is None:
            raise Problem(HTTPStatus.NOT_FOUND, "revocations are not configured here")
        await access.revocations.revoke(user)
        return json_response({"user": user}, HTTPStatus.CREATED)

    def _credential_access(self) -> CredentialAccess:
        access = self._hub.access
        if not isinstance(access, CredentialAccess):
            raise Problem(HTTPStatus.NOT_FOUND, "this hub has no access control")
        return access

    async def _options(self, request: Request, **fields: str) -> dict[str, Any]:
        body = await self.receive(request, SMALL_BODY)
        return await parse_object(request.headers.get("content-type", ""), body, Turns(), self._guard.limits, fields)

    async def _publisher(self, request: Request) -> Grant:
        """Return a grant that allows to publish to something, before the body is received."""
        grant = await self._hub.authorize(request)
        if not (grant.admin or grant.publish):
            raise grant.refusal("publish")
        request.scope[USER] = grant.user
        return grant

    async def live(self, request: Request) -> Response:
        """``GET /health/live``: the process answers."""
        return json_response({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """``GET /health/ready``: the broker answers and stores, and the hub accepts events and subscriptions."""
        try:
            async with asyncio.timeout(self._ready_within):
                state = await self._hub.check()
        except TimeoutError:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the broker did not answer within {self._ready_within:g} seconds"
            ) from None
        if refusal := self._health.refusal:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"the broker did not store the last events: {refusal}")
        return json_response({"status": "ready", "epoch": state.epoch, "oldest": state.oldest, "newest": state.newest})

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``: the description of this interface."""
        return Response(self._description, media_type="application/json")

    async def receive(self, request: Request, limit: int) -> bytes:
        """Return the body of a request that writes, if its page and the state of the hub allow it."""
        client = who(request.scope)
        self._guard.check_publisher(client)
        check_origin(request, self._origins)
        if self._hub.draining:
            raise Problem.of(HubClosedError("the hub is draining"))
        try:
            body = await receive_body(request, limit, partial(self._guard.receive, request.scope))
        except ClientDisconnect:
            raise Problem(HTTPStatus.BAD_REQUEST, "the connection ended before the end of the body") from None
        except asyncio.CancelledError:
            # Only a stopping server cancels a request; it has waited long enough for the body. An answer tells
            # the client, and the log gets no traceback.
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops before the end of the body") from None
        self._guard.published(client, 1, len(body))
        return body

    async def _drafts(self, publication: Publication, turns: Turns, grant: Grant) -> list[Draft]:
        """Check every event before the first is appended."""
        drafts = []
        for index, fields in enumerate(publication.events):
            place = {"index": index} if publication.many else {}
            try:
                draft = self._hub.draft(**fields)
                _check_publish(grant, draft.topic)
                drafts.append(draft)
            except (AccessError, InvalidTopicError, InvalidEventError, EventTooLargeError) as error:
                raise Problem.of(error, **place) from None
            except RecursionError:
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the data is nested too deeply", **place) from None
            await turns.take()
        return drafts

    async def _append(self, drafts: list[Draft]) -> list[Cursor]:
        await wait_for_readers(self._hub, self._guard)
        try:
            with self._health.writing():
                cursors = await self._hub.publish_many(drafts)
        except EventTooLargeError as error:  # too large for the broker
            raise Problem.of(error) from None
        await self._keep_runs({draft.topic for draft in drafts})
        return cursors

    async def _keep_runs(self, topics: set[str]) -> None:
        """Count events that were published to the topic of a run as signs of life of its producer."""
        for topic in topics:
            if topic.startswith("run/") and topic.count("/") > 1:
                _, _, place = topic.partition("/")
                name, _, run = place.rpartition("/")
                with suppress(InvalidTopicError):
                    found = await self._runs.get(name, run)
                    if found is not None and found.info.active:
                        await found.keep()


def _closing(response: HubResponse, close: Callable[[], None]) -> ASGIApp:
    """Call ``close`` if the response opens no stream; else it is called when the stream ends."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await response(scope, receive, send)
        finally:
            if not response.opened:
                close()

    return app


def _check_publish(grant: Grant, topic: str) -> None:
    """Refuse a topic that the grant does not cover, and those of the hub itself, but for the events of runs."""
    if is_internal(topic) and not topic.startswith("run/"):
        raise ForbiddenError(f"{topic!r} is a topic of the hub itself: requests cannot publish to it")
    grant.check_publish(topic)


def topics_of(request: Request) -> list[str]:
    """Return the topic patterns."""
    return request.query_params.getlist("topic")


def last_of(request: Request) -> int | None:
    """Return the number of past events to start with."""
    return integer_of(request, "last", 0, MAX_LAST)


def limit_of(request: Request) -> int:
    """Return the greatest number of items in the answer."""
    limit = integer_of(request, "limit", 1, MAX_LIMIT)
    return DEFAULT_LIMIT if limit is None else limit


def policy_of(request: Request) -> Overflow:
    """Return the policy for a subscriber that reads too slowly."""
    policy = request.query_params.get("on_overflow", OverflowPolicy.DISCONNECT)
    if policy not in list(OverflowPolicy):
        known = ", ".join(OverflowPolicy)
        raise Problem(HTTPStatus.BAD_REQUEST, f"expected on_overflow to be one of {known}, got {policy[:40]!r}")
    return cast("Overflow", policy)


def envelope_of(request: Request) -> Literal["topic"] | None:
    """Return the name of the envelope of the data."""
    envelope = request.query_params.get("envelope")
    if envelope not in (None, "topic"):
        raise Problem(HTTPStatus.BAD_REQUEST, f"expected envelope to be 'topic', got {envelope[:40]!r}")
    return None if envelope is None else "topic"


def flag_of(request: Request, name: str) -> bool:
    """Return a parameter of the query that is true or false, and false if it is not there."""
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise Problem(HTTPStatus.BAD_REQUEST, f"expected {name} to be true or false, got {value[:40]!r}")
    return value == "true"


def after_of(request: Request) -> str | None:
    """Return the cursor after which to start."""
    after = request.query_params.get("after")
    if after is not None and Cursor.parse(after) is None:
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"expected after to be a cursor, as '0a1b2c3d4e5f-42', got {after[:80]!r}"
        )
    return after


def integer_of(request: Request, name: str, least: int, most: int) -> int | None:
    """Return a parameter of the query that is an integer, or ``None`` if it is not there."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    raise Problem(HTTPStatus.BAD_REQUEST, f"expected {name} to be an integer from {least} to {most}, got {text[:40]!r}")


async def wait_for_readers(hub: Hub, guard: Guard) -> None:
    """Wait before events are stored if streams are about to lose others; refuse the request if that takes too long."""
    limit = guard.limits.publish_wait
    if limit is not None and not await hub.wait_for_readers(limit):
        raise (
            Problem(HTTPStatus.TOO_MANY_REQUESTS, "a stream is about to lose events: publish more slowly")
            .with_header(b"retry-after", str(math.ceil(limit)).encode())
            .counted_as("publish_wait")
        )


def published(cursors: list[Cursor], *, many: bool) -> Response:
    """Return the answer to a request that has stored events."""
    texts = [str(cursor) for cursor in cursors]
    return json_response({"cursors": texts} if many else {"cursor": texts[0]}, HTTPStatus.CREATED)


def json_response(value: Any, status: int = HTTPStatus.OK) -> Response:
    """Return a value as a response."""
    # ASCII only: published data may contain half of a surrogate pair, which has no UTF-8 form.
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return _Answer(body, status, {"cache-control": "no-store"}, "application/json")


class _Answer(Response):
    """A response that is refused if it is large and the guard of the server finds that others are not read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        guard: Guard | None = scope.get("state", {}).get(GUARD)
        if guard is not None:
            guard.check_answer(address_in(scope), len(self.body))
        await super().__call__(scope, receive, send)
