"""One open event stream: what it sends, what it waits for, and the ways in which it ends.

The request's own task pulls items and sends them, so that a generator lives and dies in one task.
One more task waits for the client to leave. Whoever finds that the stream has to end (that task, a
timer, the server's shutdown) notes the reason and interrupts the first task by the means that
:func:`asyncio.timeout` uses; the generator is finalised where it stands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Final

from ..timing import Clock, Timer
from ..wire import HEARTBEAT, STREAM_ERROR
from .iteration import close_iterator
from .shutdown import open_streams
from .types import Message, Receive, Scope, Send

__all__ = ["DEFAULT_HEARTBEAT", "DEFAULT_SEND_TIMEOUT", "DisconnectReason", "Stream"]

DEFAULT_HEARTBEAT: Final = 15.0
"""Seconds. The specification advises a comment "every 15 seconds or so"; proxies close idle ones after 30 to 60."""

DEFAULT_SEND_TIMEOUT: Final = 30.0
"""Seconds. A phone that changes networks is back sooner; a client that is not holds memory for nothing."""

_FIRST_ITEM: Final = 15.0
"""Seconds that the first item may take, without heartbeats, before the response starts without it."""

_FAIR_SHARE: Final = 0.005
"""Seconds for which a generator that never waits may hold the loop before others have their turn."""

_PARTING: Final = 0.5
"""Seconds that the last bytes of a stream which is cut short may take."""

_SEPARATOR: Final = 4
"""Bytes of the longest end of a block, CRLF twice."""


class DisconnectReason(StrEnum):
    """Name why a stream ended although its events did not."""

    CLIENT_CLOSED = "client_closed"
    """The client left."""
    SLOW_CONSUMER = "slow_consumer"
    """The client read too slowly: its cursor fell off the log."""
    SEND_TIMEOUT = "send_timeout"
    """The client stayed connected and did not read."""
    EXPIRED = "expired"
    """The time granted to the stream was over."""
    DRAINING = "draining"
    """The server is going down, or its program ended the stream."""
    ERROR = "error"
    """The events failed: an exception, which is in the log."""


class Stream:
    """Run one response: ``items`` gives the bytes to send.

    Arguments:
        items: chunks of an event stream; finalised when the stream ends, however it ends.
        start: the message ``http.response.start``, sent with the first chunk.
        opening: bytes that come first, also when the first chunk is late or never comes.
        heartbeat: seconds without a write after which a comment is sent; ``None`` for none.
        send_timeout: seconds that one write may take; ``None`` for no limit.
        clock: where timers are set; by default the running event loop.
        hand_over: called with the first chunk when it was sent; if it returns true, the connection
            is in other hands, and the stream returns without ending the response.
        on_drain: called when the server is stopping, for items that end by themselves then; returns
            the seconds that this may take.
    """

    # One for each connection: a dictionary of its own would be as large as all the rest.
    __slots__ = (
        "_beat",
        "_cancelling",
        "_clock",
        "_ended",
        "_failure",
        "_finishing",
        "_had_turn",
        "_hand_over",
        "_heartbeat",
        "_interruption",
        "_items",
        "_last_write",
        "_loop",
        "_on_drain",
        "_opening",
        "_pumping",
        "_send",
        "_send_timeout",
        "_sending_since",
        "_start",
        "_started",
        "_tail",
        "_timer",
        "reason",
    )

    def __init__(
        self,
        items: AsyncIterator[bytes],
        start: Message,
        *,
        opening: bytes = b"",
        heartbeat: float | None,
        send_timeout: float | None,
        clock: Clock | None = None,
        hand_over: Callable[[bytes], bool] | None = None,
        on_drain: Callable[[], float] | None = None,
    ) -> None:
        self._items = items
        self._start = start
        self._opening = opening
        self._heartbeat = heartbeat
        self._send_timeout = send_timeout
        self._loop = asyncio.get_running_loop()
        self._clock: Clock = self._loop if clock is None else clock
        self._hand_over = hand_over
        self._on_drain = on_drain

        self.reason: DisconnectReason | None = None
        self._failure: BaseException | None = None
        self._started = False  # http.response.start was sent
        self._pumping = False  # there is something to interrupt
        self._finishing = False  # the items are over: only the end is still to be sent
        self._ended = False
        self._tail = b"\n\n"  # the last bytes sent: between blocks, or within one
        self._last_write = self._clock.time()
        self._sending_since: float | None = None
        self._had_turn = self._loop.time()

        self._interruption = asyncio.timeout(None)
        self._timer: Timer | None = None
        self._beat: asyncio.Task[None] | None = None

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the items until they or the client or the server end.

        Raises:
            Exception: what the items raised; nothing was sent if that was before the first of them.
        """
        self._send = send
        try:
            await self._run(scope, receive)
            await self._part(scope, receive)
        except Exception:
            if self._started and self.reason is not DisconnectReason.CLIENT_CLOSED:
                await open_streams.cut_off(scope)
            raise

    async def _run(self, scope: Scope, receive: Receive) -> None:
        self._cancelling = _times_cancelled()
        watcher = self._loop.create_task(self._watch(receive))
        open_streams.add(self, scope)
        try:
            async with self._interruption:
                self._pumping = True
                self._tick()
                if self.reason is None:
                    await self._pump()
        except TimeoutError:
            if not self._interruption.expired():
                raise
        except _PeerGoneError:
            self.reason = self.reason or DisconnectReason.CLIENT_CLOSED
        except asyncio.CancelledError:
            self.reason = self.reason or DisconnectReason.DRAINING
            raise
        finally:
            self._ended = True
            open_streams.discard(self)
            try:
                await self._leave_no_task(watcher)
            finally:
                await close_iterator(self._items)

    def interrupt(self, reason: DisconnectReason) -> None:
        """End the stream for ``reason``, unless it is ending already."""
        if self.reason is not None or self._ended:
            return
        if self._finishing and reason is not DisconnectReason.SEND_TIMEOUT:
            return
        self.reason = reason
        if self._pumping:
            self._interruption.reschedule(0)

    def drain(self) -> float:
        """End the stream since its server is stopping; return the seconds that this may take."""
        if self._on_drain is not None:
            return self._on_drain()
        self.interrupt(DisconnectReason.DRAINING)
        return 0.0

    async def _pump(self) -> None:
        while True:
            chunk = await self._next_chunk()
            if self.reason is not None:
                return  # the interruption has not come yet, or the items have swallowed it
            if chunk is None:
                self._finishing = True
                await self._write(b"", more=False)
                return
            if chunk or not self._started:
                await self._write(chunk)
            if self._hand_over is not None:
                hand_over, self._hand_over = self._hand_over, None
                if hand_over(chunk):
                    return
            await self._give_turn()

    async def _next_chunk(self) -> bytes | None:
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError as error:
            if _times_cancelled() > self._cancelling:
                raise
            await self._say_that_it_failed()
            raise RuntimeError("expected an item, got the cancellation of what the iterable waited for") from error
        except Exception:
            await self._say_that_it_failed()
            raise

    async def _say_that_it_failed(self) -> None:
        """Send the last event of a failed stream; its server then cuts the connection.

        A clean end would look complete. Within an event that was given in part there is nothing to
        say: whatever came next would finish it.
        """
        if self.reason is None:
            self.reason = DisconnectReason.ERROR
            if self._started and self._between_blocks():
                with contextlib.suppress(TimeoutError, _PeerGoneError):
                    async with asyncio.timeout(_PARTING):
                        await self._write(STREAM_ERROR)

    async def _write(self, chunk: bytes, *, more: bool = True) -> None:
        if self._beat is not None:
            await self._beat
        await self._write_now(chunk, more=more)

    async def _write_now(self, chunk: bytes, *, more: bool = True) -> None:
        self._sending_since = self._clock.time()
        try:
            if not self._started:
                await self._send(self._start)
                self._started = True
                chunk = self._opening + chunk
            await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
        except OSError as error:  # ASGI, "HTTP", "Disconnected client": what `send` may raise
            raise _PeerGoneError from error
        self._sending_since = None
        self._last_write = self._clock.time()
        self._tail = (self._tail + chunk[-_SEPARATOR:])[-_SEPARATOR:]

    async def _give_turn(self) -> None:
        now = self._loop.time()
        if now - self._had_turn > _FAIR_SHARE:
            await asyncio.sleep(0)
            self._had_turn = self._loop.time()

    def _between_blocks(self) -> bool:
        return self._tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n")

    def _tick(self) -> None:
        """Look whether a write takes too long or a heartbeat is due, and when to look again."""
        now = self._clock.time()
        due = self._beat_if_due(now)
        if self._send_timeout is not None:
            since = now if self._sending_since is None else self._sending_since
            if now - since >= self._send_timeout:
                self.interrupt(DisconnectReason.SEND_TIMEOUT)
                return
            due = min(due, since + self._send_timeout)
        if due != float("inf"):
            self._timer = self._clock.call_at(due, self._tick)

    def _beat_if_due(self, now: float) -> float:
        """Send a heartbeat if nothing else was sent for long; return when to look again."""
        pause = _FIRST_ITEM if self._heartbeat is None and not self._started else self._heartbeat
        if pause is None:
            return float("inf")
        if now < self._last_write + pause:
            return self._last_write + pause
        if self._sending_since is None and self._beat is None and self._between_blocks():
            self._beat = self._loop.create_task(self._send_heartbeat())
        return now + pause

    async def _send_heartbeat(self) -> None:
        try:
            await self._write_now(b"" if self._heartbeat is None else HEARTBEAT)
        except _PeerGoneError:
            self.interrupt(DisconnectReason.CLIENT_CLOSED)
        except Exception as error:
            self._note_failure(error)
        finally:
            self._beat = None

    async def _watch(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110
                await asyncio.sleep(0)  # a body that nobody wants must not hold the loop
            self.interrupt(DisconnectReason.CLIENT_CLOSED)
        except Exception as error:
            self._note_failure(error)

    def _note_failure(self, error: BaseException) -> None:
        if not (self.reason or self._finishing or self._ended):
            self._failure = error
            self.interrupt(DisconnectReason.ERROR)

    async def _leave_no_task(self, watcher: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task in (watcher, self._beat) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _part(self, scope: Scope, receive: Receive) -> None:
        """Do for the connection what the reason of the end asks for."""
        if self._failure is not None:
            raise self._failure
        if self.reason is DisconnectReason.DRAINING and await self._end_in_time():
            return
        if self.reason in (DisconnectReason.DRAINING, DisconnectReason.SEND_TIMEOUT):
            open_streams.drop(scope)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PARTING):  # until the server has seen it too
                    await self._watch(receive)

    async def _end_in_time(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PARTING):
                with contextlib.suppress(_PeerGoneError):
                    await self._write_now(b"", more=False)
                return True
        return False


class _PeerGoneError(Exception):
    """The server could not send, for the client has left."""


def _times_cancelled() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
