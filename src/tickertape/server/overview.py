"""Topics, subscribers and live statistics of all workers of this server, for operators."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from ..asgi import ASGIApp, EventSourceResponse, Receive, Scope, Send
from ..hub import Grant, Hub
from ..wire import ServerSentEvent, is_internal
from .endpoints import json_response, limit_of
from .limits import USER, Guard, who
from .metrics import Metrics
from .openapi import MAX_SEARCH
from .peers import Peers
from .problems import Problem
from .samples import INTERVAL, Sampler

_MOST: Final = 10_000
"""Audiences and users of one worker in an answer: more are of no use to a reader."""

_TOPIC: Final = "hub-statistics"
"""The topic of streams of statistics, among subscribers. It has no events."""


class Overview:
    """Handle requests about the state of the server.

    Arguments:
        hub: an open hub.
        peers: all workers of this server.
        metrics: their metrics.
        guard: the limits for clients.
    """

    def __init__(self, hub: Hub, peers: Peers, metrics: Metrics, guard: Guard) -> None:
        self._hub = hub
        self._peers = peers
        self._guard = guard
        self._sampler = Sampler(metrics.collect, lambda: hub.clock)
        peers.answer("topics", hub.topics)
        peers.answer("subscribers", self._count_subscribers)

    async def topics(self, request: Request) -> Response:
        """``GET /topics``: topics with events in memory, and the number of subscribers that match each."""
        grant = await self._hub.authorize(request)
        if not (grant.admin or grant.subscribe):
            raise grant.refusal("list topics")
        limit = limit_of(request)
        answers = await self._peers.ask(
            "topics",
            after=request.query_params.get("after", ""),
            limit=limit,
            within=None if grant.admin else grant.subscribe,
            search=_search_of(request),
        )
        counts: Counter[str] = Counter()
        for page in answers.values():
            counts.update(page)
        topics = [{"topic": topic, "subscribers": counts[topic]} for topic in sorted(counts)[:limit]]
        return json_response({"node": self._peers.node, "topics": topics})

    async def subscribers(self, request: Request) -> Response:
        """``GET /subscribers``: the number of subscribers, the largest audiences, and the users with most streams."""
        (await self._hub.authorize(request)).check_admin("list subscribers")
        limit = limit_of(request)
        answers = await self._peers.ask("subscribers", search=_search_of(request))
        audiences: Counter[tuple[str, ...]] = Counter()
        users: Counter[str] = Counter()
        for answer in answers.values():
            for topics, count in answer["audiences"]:
                audiences[tuple(topics)] += count
            users.update(dict(answer["users"]))
        return json_response(
            {
                "node": self._peers.node,
                "subscribers": sum(answer["subscribers"] for answer in answers.values()),
                "audience_count": len(audiences),
                "audiences": [{"topics": topics, "subscribers": count} for topics, count in _largest(audiences, limit)],
                "user_count": len(users),
                "users": [{"user": user, "subscribers": count} for user, count in _largest(users, limit)],
            }
        )

    def _count_subscribers(self, search: str) -> dict[str, Any]:
        """Return the subscribers of this process, whose topics or user contain a text."""
        audiences: Counter[tuple[str, ...]] = Counter()
        users: Counter[str] = Counter()
        for info in self._hub.presence:
            if all(is_internal(topic) and not topic.startswith("run/") for topic in info.topics):
                continue  # of the hub itself, or a reader of statistics
            user = info.user if isinstance(info.user, str) else None
            if search in (user or "") or any(search in topic for topic in info.topics):
                audiences[info.topics] += 1
                if user is not None:
                    users[user] += 1
        return {
            "subscribers": audiences.total(),
            "audiences": audiences.most_common(_MOST),
            "users": users.most_common(_MOST),
        }

    async def statistics(self, request: Request) -> ASGIApp:
        """``GET /statistics``: an event stream with a sample of the state of all workers each second."""
        grant = await self._hub.authorize(request)
        grant.check_admin("read statistics")
        request.scope[USER] = grant.user
        close = self._guard.open_stream(who(request.scope), self._hub.subscribers())
        response = EventSourceResponse(
            self._samples(grant, _time_of(request.headers.get("last-event-id", ""))),
            head="now",
            heartbeat=self._hub.heartbeat,
            send_timeout=self._hub.send_timeout,
            clock=self._hub.clock,
        )
        return response if close is None else _then(response, close)

    async def _samples(self, grant: Grant, after: float) -> AsyncGenerator[ServerSentEvent | bytes]:
        # The subscription ends with the rights of its reader, and when the server stops.
        async with self._hub.subscribe(_TOPIC, grant=grant) as output:
            due = self._hub.clock.time()
            while True:
                samples = await self._sampler.after(after)
                if samples:
                    after = samples[-1]["time"]
                    yield ServerSentEvent(samples, event="samples", id=f"{after:.3f}")
                due = max(due, self._hub.clock.time() - INTERVAL) + INTERVAL
                if await output.next_slice(until=due) is None:
                    yield self._hub.last_block(output.reason)
                    return


def _largest(counts: Counter[Any], limit: int) -> list[tuple[Any, int]]:
    """Return the items with the greatest counts. Those with the same count are in order, whichever worker answers."""
    return heapq.nsmallest(limit, counts.items(), key=lambda item: (-item[1], item[0]))


def _search_of(request: Request) -> str:
    text = request.query_params.get("search", "")
    if len(text) > MAX_SEARCH:
        raise Problem(400, f"expected search to be a text of at most {MAX_SEARCH} characters, got {len(text)}")
    return text


def _time_of(id: str) -> float:
    """Return the time of the last sample that a client has; 0 if it has none."""
    whole, _, rest = id.partition(".")
    return float(id) if id.isascii() and whole.isdecimal() and rest.isdecimal() and len(id) < 20 else 0.0


def _then(response: ASGIApp, close: Callable[[], None]) -> ASGIApp:
    """Call ``close`` after the response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await response(scope, receive, send)
        finally:
            close()

    return app
