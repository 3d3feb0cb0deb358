"""Helpers for tests of responses: one response under the in-process client, and requests driven by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

from tickertape import EventSourceResponse
from tickertape.asgi.types import Message, Scope
from tickertape.testing import EventStream, EventStreamClient

__all__ = ["Wire", "open_response", "scope_of", "settle"]


def open_response(
    items: AsyncIterable[Any] | Iterable[Any],
    *,
    method: str = "GET",
    spec_version: str = "2.5",
    wait: bool = True,
    scope: Scope | None = None,
    **options: Any,
) -> EventStream:
    """Open the response of ``items``; ``scope`` replaces the client's description of the connection."""
    response = EventSourceResponse(items, **options)

    async def app(given: Scope, receive: Any, send: Any) -> None:
        await response({**given, **(scope or {})}, receive, send)

    return EventStreamClient(app, spec_version=spec_version).open("/", method=method, wait=wait)


async def settle(condition: Callable[[], bool] = lambda: False, turns: int = 50) -> None:
    """Run the callbacks that are ready, and those that they make ready. No time passes."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)


def scope_of(method: str = "GET", **more: Any) -> Scope:
    """Return the smallest scope of a request that the specification allows."""
    return {"type": "http", "method": method, "path": "/", "headers": [], **more}


class Wire:
    """``receive`` and ``send`` of a server that a test controls.

    Attributes:
        messages: the messages that the application sent.
        left: set to let the client leave.
        on_send: called, and awaited, before each message is taken.
    """

    def __init__(self, on_send: Callable[[Message], Any] | None = None) -> None:
        self.messages: list[Message] = []
        self.left = asyncio.Event()
        self.sending = 0
        self._on_send = on_send

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def complete(self) -> bool:
        return any(message.get("more_body") is False for message in self.messages)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        assert not self.sending, "expected one message at a time"
        self.sending += 1
        try:
            if self._on_send is not None:
                result = self._on_send(message)
                if result is not None:
                    await result
            self.messages.append(message)
        finally:
            self.sending -= 1
