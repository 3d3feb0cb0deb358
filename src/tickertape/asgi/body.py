"""A response as an iterator of bytes, for frameworks that send only their own responses.

The response runs in a task. Its body is read by the framework, which takes a chunk after it has sent the one before.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final, Self

from .response import StreamResponse
from .types import Message, Scope

_tasks: Final[set[asyncio.Task[None]]] = set()
"""Responses that run: an event loop does not keep its tasks."""


class ResponseBody:
    """Run a response beside the framework's own one.

    After :meth:`start`, iterate it for the chunks of the body. Call :meth:`close` when the framework's response is
    over; if the wait for a chunk was cancelled, that is not necessary.

    Arguments:
        response: the response.
        scope: of the request; names its server, so that the stream ends when that stops.
    """

    def __init__(self, response: StreamResponse, scope: Scope) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = asyncio.Event()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._unsent = False  # the framework has a message that it may not have sent yet
        self._task = self._loop.create_task(response(scope, self._receive, self._send), name="tickertape response")
        self._task.add_done_callback(self._ended)
        _tasks.add(self._task)

    async def start(self) -> Message:
        """Return the message ``http.response.start``. An error before it is raised here."""
        start = await self._next()
        assert start is not None, "the response ended without a head"
        return start

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while (message := await self._next()) is not None:
            if message.get("body"):
                return bytes(message["body"])
        raise StopAsyncIteration

    def close(self) -> None:
        """End the response if it still runs: the client has left. May be called from any thread, and twice."""
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._left.set)

    async def _next(self) -> Message | None:
        """Return the next message, or ``None`` after the last. The one before it has been sent."""
        if self._unsent:
            self._messages.task_done()
        try:
            message = await self._messages.get()
        except asyncio.CancelledError:  # the client has left
            self._left.set()
            await asyncio.wait([self._task])
            raise
        self._unsent = message is not None
        if message is None:
            await self._task  # raises its error
        return message

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._messages.put_nowait(message)
        await self._messages.join()

    def _ended(self, task: asyncio.Task[None]) -> None:
        _tasks.discard(task)
        self._messages.put_nowait(None)
