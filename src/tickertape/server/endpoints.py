"""What the hub's program answers, route by route."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..asgi import ASGIApp
from ..errors import EventTooLargeError, HubClosedError, InvalidEventError, InvalidTopicError
from ..hub import Hub
from ..wire import Cursor, Draft
from .body import BODY_FACTOR, Publication, parse_publication, parse_text, receive_body
from .openapi import describe
from .origins import check_origin
from .queries import after_of, last_of, limit_of, policy_of, topics_of
from .refusal import Refusal

__all__ = ["READY_WITHIN", "Endpoints"]

READY_WITHIN: Final = 2.0
"""Seconds in which the broker has to answer: who asks for readiness gives up after some five."""


class Endpoints:
    """Answer requests for a hub.

    Arguments:
        hub: opened and closed by others.
        origins: of pages that may publish, besides our own.
        ready_within: seconds in which the broker has to answer.
        node: names this process among those that a load balancer or the kernel chooses from.
    """

    def __init__(self, hub: Hub, origins: Sequence[str], ready_within: float, node: str) -> None:
        self._hub = hub
        self._node = node
        self._origins = origins
        self._ready_within = ready_within
        self._description = json.dumps(describe()).encode()

    async def events(self, request: Request) -> ASGIApp:
        """``GET /events``: a stream. ``POST /events``: publish one event or several."""
        if request.method == "POST":
            return await self._publish(request)
        return self._hub.response(request, topics_of(request), last=last_of(request), on_overflow=policy_of(request))

    async def _publish(self, request: Request) -> Response:
        body = await self._receive(request, BODY_FACTOR * self._hub.max_event_size)
        publication = parse_publication(request.headers.get("content-type", ""), body)
        cursors = await self._hub.publish_many(self._drafts(publication))
        return _published(cursors, many=publication.many)

    async def publish_text(self, request: Request) -> Response:
        """``POST /events/{topic}``: publish the body as it is, whatever its type says; curl says that it is a form."""
        body = await self._receive(request, self._hub.max_event_size)
        fields = {"topic": request.path_params["topic"], "data": parse_text(body)}
        fields |= {name: value for name in ("event", "key") if (value := request.query_params.get(name))}
        publication = Publication([fields], many=False)
        return _published(await self._hub.publish_many(self._drafts(publication)), many=False)

    async def history(self, request: Request) -> Response:
        """``GET /history``: events that are kept, a page at a time."""
        found, gap = await self._hub.history(*topics_of(request), after=after_of(request), limit=limit_of(request))
        events = [
            {"cursor": str(cursor), "topic": record.topic, "event": record.event, "data": record.data}
            for cursor, record in found
        ]
        return _json({"events": events, "gap": gap})

    async def topics(self, request: Request) -> Response:
        """``GET /topics``: topics that have events in memory, and who would get the next one."""
        page = self._hub.topics(after=request.query_params.get("after", ""), limit=limit_of(request))
        topics = [{"topic": topic, "subscribers": count} for topic, count in page.items()]
        return _json({"node": self._node, "topics": topics})

    async def subscribers(self, request: Request) -> Response:
        """``GET /subscribers``: how many there are, and to which patterns most of them."""
        counts = Counter(info.topics for info in self._hub.presence)
        largest = counts.most_common(limit_of(request))
        return _json(
            {
                "node": self._node,
                "subscribers": counts.total(),
                "audience_count": len(counts),
                "audiences": [{"topics": topics, "subscribers": count} for topics, count in largest],
            }
        )

    async def live(self, request: Request) -> Response:
        """``GET /health/live``: the process answers."""
        return _json({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """``GET /health/ready``: the log answers, from end to end, and the hub takes events and subscriptions."""
        try:
            async with asyncio.timeout(self._ready_within):
                state = await self._hub.check()
        except TimeoutError:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"expected an answer of the broker within {self._ready_within:g} seconds, got none",
            ) from None
        return _json({"status": "ready", "epoch": state.epoch, "oldest": state.oldest, "newest": state.newest})

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``: what all this is."""
        return Response(self._description, media_type="application/json")

    async def _receive(self, request: Request, limit: int) -> bytes:
        check_origin(request, self._origins)
        if self._hub.draining:
            raise Refusal.of(HubClosedError("expected a hub that takes events, got one that is draining"))
        try:
            return await receive_body(request, limit)
        except ClientDisconnect:
            raise Refusal(HTTPStatus.BAD_REQUEST, "expected the whole body, got the end of the connection") from None
        except asyncio.CancelledError:
            # Only a server that stops cancels a request. It has waited for the body long enough, and the
            # client is to be told so by an answer: a cancelled request would be a traceback in the log.
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "expected the body before the server stops") from None

    def _drafts(self, publication: Publication) -> list[Draft]:
        """Check every event before the first is appended."""
        drafts = []
        for index, fields in enumerate(publication.events):
            place = {"index": index} if publication.many else {}
            try:
                drafts.append(self._hub.draft(**fields))
            except (InvalidTopicError, InvalidEventError, EventTooLargeError) as error:
                raise Refusal.of(error, **place) from None
            except RecursionError:
                sentence = "expected data of a sane depth, got JSON nested too deeply"
                raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, sentence, **place) from None
        return drafts


def _published(cursors: list[Cursor], *, many: bool) -> Response:
    texts = [str(cursor) for cursor in cursors]
    return _json({"cursors": texts} if many else {"cursor": texts[0]}, HTTPStatus.CREATED)


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    # In ASCII: what was published may hold half of a surrogate pair, which has no UTF-8 form.
    body = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    return Response(body, status, {"cache-control": "no-store"}, "application/json")
