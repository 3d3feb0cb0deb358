"""One open event stream: its writes, its waits and its end.

The request's own task pulls items and sends them, so that a generator lives and dies in one task. The
messages of the server are awaited beside it, to see when the client leaves. Whatever finds that the
stream has to end (a message, a timer, the server's shutdown) sets the reason and cancels the wait of
the first task, as :func:`asyncio.timeout` does. The generator is then closed where it stands.

A suspended ``yield`` of the generator lasts until its item is sent. If a scope of cancellation around
the ``yield`` ends before that, the cancellation is thrown into the generator, where the scope catches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from enum import Enum, StrEnum, auto
from types import MethodType, coroutine
from typing import Any, Final, Protocol

from ..errors import StreamEndedError
from ..timing import Clock, Timer
from ..wire import HEARTBEAT, STREAM_ERROR
from .iteration import close_iterator
from .shutdown import ABORT_UNKNOWN, PARTING, open_streams
from .sockets import Connection, Unknown, find_connection, grace_period
from .tcp_timeout import tcp_timeout_for
from .types import Message, Receive, Scope, Send

logger = logging.getLogger("tickertape.asgi")

DEFAULT_HEARTBEAT: Final = 15.0
"""Seconds. The specification advises a comment "every 15 seconds or so"; proxies close idle ones after 30 to 60."""

DEFAULT_SEND_TIMEOUT: Final = 30.0
"""Seconds. A phone that changes networks reconnects sooner; the buffers of a client that does not cost memory."""

FIRST_ITEM: Final = 1.0
"""Seconds that the first item may take before the response starts without it: enough to check a request."""

_FAIR_SHARE: Final = 0.005
"""Seconds for which a generator that never waits may occupy the loop before other tasks get a turn."""

_SHARE_OF_GRACE: Final = 0.5
"""Part of a server's grace period in which streams end: the rest is for noticing the stop, and for slow clients."""

_SEPARATOR: Final = 4
"""Bytes of the longest end of a block, CRLF twice."""

_BLOCK_END: Final = b"\n\n"


class DisconnectReason(StrEnum):
    """The reason why a stream ended before its events did."""

    CLIENT_CLOSED = "client_closed"
    """The client left."""
    SLOW_CONSUMER = "slow_consumer"
    """The client read too slowly: its cursor is older than the oldest kept event."""
    SEND_TIMEOUT = "send_timeout"
    """The client stayed connected and did not read."""
    ENDED = "ended"
    """All topics of the stream have ended."""
    EXPIRED = "expired"
    """The credential of the client has expired."""
    REVOKED = "revoked"
    """The right of the client was revoked."""
    MAX_AGE = "max_age"
    """The stream was as old as the hub allows: the client reconnects."""
    DRAINING = "draining"
    """The server is stopping, or its program ended the stream."""
    ERROR = "error"
    """The events failed with an exception, which is logged."""


class _State(Enum):
    NEW = auto()  # not running yet
    RUNNING = auto()  # pulling and sending; an interruption cancels the task
    FINISHING = auto()  # the items are exhausted; only the end of the response is still to be sent
    ENDED = auto()


class Stream:
    """Run one response.

    Arguments:
        items: the parts of an event stream; closed when the stream ends, however it ends.
        start: the message ``http.response.start``, sent with the first part. ``None`` if the caller has
            sent it: the stream only continues then.
        encode: returns the bytes of an item; by default the items are bytes.
        head: seconds that the first item may take before the response starts without it; 0 starts it at once.
        heartbeat: seconds without a write after which a comment is sent; ``None`` for none.
        beat: returns the bytes of a heartbeat; by default an empty comment.
        send_timeout: seconds that one write may take; ``None`` for no limit.
        clock: for timers; by default the running event loop.
        on_error: called with an exception of the items if the response has started. It returns bytes to send before a
            normal end; or ``b""`` to send nothing and cut the connection; or ``None`` to do as without it.
        on_drain: called when the server is stopping, for items that end by themselves then, with the
            seconds that the server grants, or ``None``. Returns within how many seconds they end.
        cut_on_drain: cut the connection when the server is stopping, since a clean end would look complete.

    Attributes:
        reason: why the stream ends before its items do; ``None`` if it does not.
    """

    # One for each connection: a dictionary would be as large as the rest.
    __slots__ = (
        "__weakref__",
        "_beat",
        "_beat_block",
        "_cancelled",
        "_clock",
        "_cut_on_drain",
        "_drain_end",
        "_encode",
        "_failure",
        "_had_turn",
        "_head",
        "_heartbeat",
        "_holds",
        "_items",
        "_last_write",
        "_loop",
        "_on_drain",
        "_on_error",
        "_outer_cancellations",
        "_send",
        "_send_timeout",
        "_sending_since",
        "_start",
        "_state",
        "_tail",
        "_task",
        "_timer",
        "reason",
    )

    def __init__(
        self,
        items: AsyncIterator[Any],
        start: Message | None,
        *,
        encode: Callable[[Any], bytes] | None = None,
        head: float = FIRST_ITEM,
        heartbeat: float | None,
        beat: Callable[[], bytes] = lambda: HEARTBEAT,
        send_timeout: float | None,
        clock: Clock | None = None,
        on_error: Callable[[Exception], Awaitable[bytes | None]] | None = None,
        on_drain: Callable[[float | None], float] | None = None,
        cut_on_drain: bool = False,
    ) -> None:
        self._items = items
        self._start = start  # until it is sent
        self._encode = encode
        self._head = head
        self._heartbeat = heartbeat
        self._beat_block = beat
        self._send_timeout = send_timeout
        self._loop = asyncio.get_running_loop()
        self._clock: Clock = self._loop if clock is None else clock
        self._on_error = on_error
        self._on_drain = on_drain
        self._cut_on_drain = cut_on_drain
        self._holds: dict[Callable[[], Any], float] | None = None
        self._drain_end: float | None = None

        self._state = _State.NEW
        self.reason: DisconnectReason | None = None
        self._failure: BaseException | None = None  # of the server's messages, or of a heartbeat
        self._tail = _BLOCK_END  # the last bytes sent: between blocks, or within one
        self._last_write = self._clock.time()
        self._sending_since: float | None = None
        self._had_turn = self._loop.time()

        self._task: asyncio.Task[Any] | None = None
        self._outer_cancellations = 0  # requested before the stream began
        self._cancelled = False  # by the stream itself
        self._timer: Timer | None = None
        self._beat: asyncio.Task[None] | None = None

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the items until they, the client or the server end.

        Raises:
            Exception: raised by the items. If it was before the first item, nothing has been sent.
        """
        self._send = send
        connection = find_connection(scope, receive, send)
        try:
            await self._run(scope, connection, receive)
            await self._part(connection, scope, receive)
        except Exception:
            if self._start is None and self.reason is not DisconnectReason.CLIENT_CLOSED:
                await open_streams.cut_off(connection, scope)
            raise

    async def _run(self, scope: Scope, connection: Connection, receive: Receive) -> None:
        task = self._task = asyncio.current_task()
        assert task is not None
        self._outer_cancellations = task.cancelling()
        watcher = _watch(receive, self._on_message_end)
        tcp_timeout = None if self._send_timeout is None else tcp_timeout_for(self._send_timeout)
        open_streams.add(self, scope, connection, tcp_timeout=tcp_timeout)
        try:
            self._tick()
            if self.reason is None:
                self._state = _State.RUNNING
                if not self._head and self._start is not None:
                    await self._write_now(b"")
                await self._pump()
        except _PeerGoneError:
            self.reason = self.reason or DisconnectReason.CLIENT_CLOSED
        except asyncio.CancelledError:
            self.reason = self.reason or DisconnectReason.DRAINING
            if not self._cancelled or task.cancelling() > self._outer_cancellations + 1:
                raise
        finally:
            self._state = _State.ENDED
            self._task = None
            if self._cancelled:
                task.uncancel()
            open_streams.discard(self)
            try:
                await self._stop_waiting(watcher)
            finally:
                await close_iterator(self._items)

    def interrupt(self, reason: DisconnectReason) -> None:
        """End the stream for ``reason``, unless it is ending already."""
        if self.reason is not None or self._state is _State.ENDED:
            return
        if self._state is _State.FINISHING and reason is not DisconnectReason.SEND_TIMEOUT:
            return
        self.reason = reason
        # Not now: the caller may be the task itself, from within its generator.
        self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and self._state is not _State.NEW:
            self._cancelled = True
            self._task.cancel()

    def drain(self) -> float:
        """End the stream since its server is stopping; return within how many seconds."""
        if self._on_drain is not None:
            grace = grace_period(self._send)
            return self._on_drain(None if grace is None else _SHARE_OF_GRACE * grace)
        if self._drain_end is None and self._holds:
            self._begin_drain(self._holds)
        now = self._clock.time()
        if self._drain_end is None or now >= self._drain_end:
            self.interrupt(DisconnectReason.DRAINING)
            return 0.0
        return self._drain_end - now

    def hold(self, on_drain: Callable[[], Any], grace: float) -> None:
        """Allow the items to end by themselves when the server is stopping.

        Arguments:
            on_drain: called then, once.
            grace: seconds after which the stream is ended. A server's own limit may be lower.
        """
        if self._holds is None:
            self._holds = {}
        self._holds[on_drain] = grace
        if self._drain_end is not None:
            on_drain()

    def release(self, on_drain: Callable[[], Any]) -> None:
        """Undo a :meth:`hold`."""
        if self._holds is not None:
            self._holds.pop(on_drain, None)

    def _begin_drain(self, holds: dict[Callable[[], Any], float]) -> None:
        limit = grace_period(self._send)
        grace = max(holds.values()) if limit is None else min(max(holds.values()), _SHARE_OF_GRACE * limit)
        self._drain_end = self._clock.time() + grace
        self._clock.call_at(self._drain_end, self.interrupt, DisconnectReason.DRAINING)
        for on_drain in list(holds):
            try:
                on_drain()
            except Exception:
                logger.exception("on_drain failed")

    async def _pump(self) -> None:
        cancellation: asyncio.CancelledError | None = None
        while True:
            chunk = await self._next_chunk(cancellation)
            if self.reason is not None:
                return  # the cancellation has not come yet, or the items have caught it
            if chunk is None:
                self._state = _State.FINISHING
                await self._write(b"", more=False)
                return
            if chunk or self._start is not None:
                try:
                    await (self._write_now(chunk) if self._beat is None else self._write(chunk))
                except asyncio.CancelledError as error:
                    await self._leave_write(error)
                    return
            del chunk  # a stream that waits needs no memory for the past
            overdue = self._loop.time() - self._had_turn > _FAIR_SHARE
            cancellation = await self._give_turn() if overdue else None

    async def _next_chunk(self, cancellation: asyncio.CancelledError | None) -> bytes | None:
        """Return the next item encoded, or ``None`` if there is none; throw a cancellation into the items first."""
        try:
            if cancellation is None:
                item = await _step(anext(self._items), self._note_turn)
            else:
                item = await self._items.athrow(cancellation)  # type: ignore[attr-defined]
            return item if self._encode is None else self._encode(item)
        except StopAsyncIteration:
            return None
        except StreamEndedError:  # of a source that stops before this stream is drained
            if self._start is not None:
                raise
            self.reason = self.reason or DisconnectReason.DRAINING
            return None
        except asyncio.CancelledError as error:
            if self._cancelled or self._is_cancelled_from_outside():
                raise
            failure = RuntimeError("the items were cancelled from within")
            if await self._report_failure(failure):
                return None
            raise failure from error
        except Exception as error:
            if await self._report_failure(error):
                return None
            raise

    async def _leave_write(self, cancellation: asyncio.CancelledError) -> None:
        """Handle the cancellation of a write, which the server may have completed or not.

        If it came from a scope of the items, they may end or fail, but cannot continue: an event may be lost.
        """
        if self._cancelled or not hasattr(self._items, "athrow"):
            raise cancellation
        if await self._next_chunk(cancellation) is not None:
            failure = RuntimeError("a scope of cancellation around `yield` ended while the item was being sent")
            if await self._report_failure(failure):
                return
            raise failure
        if self._state is _State.RUNNING:
            self._state = _State.FINISHING
            await self._write(b"", more=False)

    def _is_cancelled_from_outside(self) -> bool:
        return self._task is not None and self._task.cancelling() > self._outer_cancellations

    async def _report_failure(self, error: Exception) -> bool:
        """Send the last bytes of a failed stream; return whether the response has ended with them.

        If not, its server cuts the connection afterwards: a clean end would look complete. Within an event
        that was sent in part nothing can be reported, since the next bytes would complete it.
        """
        if self.reason is not None:
            return False
        self.reason = DisconnectReason.ERROR
        if self._start is not None or not self._is_between_blocks():
            return False
        chunk = None if self._on_error is None else await self._on_error(error)
        with contextlib.suppress(TimeoutError, _PeerGoneError):
            async with asyncio.timeout(PARTING):
                if not chunk:
                    await self._write(STREAM_ERROR if chunk is None else b"")
                    return False
                await self._write(chunk)
                self._state = _State.FINISHING
                await self._write(b"", more=False)
                logger.error("the items failed; on_error ended the stream", exc_info=error)
                return True
        return False

    async def _write(self, chunk: bytes, *, more: bool = True) -> None:
        if self._beat is not None:
            await self._beat
        await self._write_now(chunk, more=more)

    async def _write_now(self, chunk: bytes, *, more: bool = True) -> None:
        self._sending_since = self._clock.time()
        try:
            if self._start is not None:
                await self._send(self._start)
                self._start = None
            await self._send({"type": "http.response.body", "body": chunk, "more_body": more})
        except OSError as error:  # ASGI, "HTTP", "Disconnected client": what `send` may raise
            raise _PeerGoneError from error
        self._sending_since = None
        self._last_write = self._clock.time()
        self._tail = _BLOCK_END if chunk.endswith(_BLOCK_END) else (self._tail + chunk[-_SEPARATOR:])[-_SEPARATOR:]

    async def _give_turn(self) -> asyncio.CancelledError | None:
        """Yield to other tasks; return a cancellation that arrives while they run."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            if self._cancelled or not hasattr(self._items, "athrow"):
                raise
            return error
        finally:
            self._note_turn()
        return None

    def _note_turn(self) -> None:
        self._had_turn = self._loop.time()

    def _is_between_blocks(self) -> bool:
        return self._tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(_BLOCK_END)

    def _tick(self) -> None:
        """Check whether a write takes too long or a heartbeat is due, and schedule the next check."""
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
        """Send a heartbeat if nothing else was sent for long; return the time of the next check."""
        pause = self._head if self._head and self._start is not None else self._heartbeat
        if pause is None:
            return float("inf")
        if now < self._last_write + pause:
            return self._last_write + pause
        if self._sending_since is None and self._beat is None and self._is_between_blocks():
            self._beat = self._loop.create_task(self._send_heartbeat())
        return now + (pause if self._heartbeat is None else min(pause, self._heartbeat))

    async def _send_heartbeat(self) -> None:
        try:
            await self._write_now(self._beat_block() if self._start is None else b"")
        except _PeerGoneError:
            self.interrupt(DisconnectReason.CLIENT_CLOSED)
        except Exception as error:
            self._fail(error)
        finally:
            self._beat = None

    def _on_message_end(self, error: Exception | None) -> None:
        """Handle the end of the server's messages."""
        if error is None:
            self.interrupt(DisconnectReason.CLIENT_CLOSED)
        else:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not (self.reason or self._state in (_State.FINISHING, _State.ENDED)):
            self._failure = error
            self.interrupt(DisconnectReason.ERROR)

    async def _stop_waiting(self, watcher: _Watcher) -> None:
        if self._timer is not None:
            self._timer.cancel()
        watcher.cancel()
        tasks = [task for task in (watcher, self._beat) if isinstance(task, asyncio.Task)]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _part(self, connection: Connection, scope: Scope, receive: Receive) -> None:
        """End the response, or drop the connection, as the reason requires."""
        if self._failure is not None:
            raise self._failure
        if self.reason is DisconnectReason.DRAINING and self._cut_on_drain:
            await self._cut(connection, scope, receive)
            return
        if self.reason is DisconnectReason.DRAINING and await self._end_in_time():
            return
        if self.reason in (DisconnectReason.DRAINING, DisconnectReason.SEND_TIMEOUT):
            open_streams.drop(connection)
            draining_unknown = self.reason is DisconnectReason.DRAINING and isinstance(connection, Unknown)
            with contextlib.suppress(TimeoutError):
                # Until the server has noticed it too: it complains about a response that is not complete.
                async with asyncio.timeout(ABORT_UNKNOWN if draining_unknown else PARTING):
                    await wait_for_disconnect(receive)

    async def _cut(self, connection: Connection, scope: Scope, receive: Receive) -> None:
        """Cut the connection. Wait until the server has noticed it, which logs an error of a response otherwise.

        Raises:
            StreamEndedError: the connection is unknown, so the server must cut it.
        """
        if not await open_streams.cut_off(connection, scope):
            raise StreamEndedError("the server is stopping, and the stream has not ended")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING):
                await wait_for_disconnect(receive)

    async def _end_in_time(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING):
                with contextlib.suppress(_PeerGoneError):
                    await self._write_now(b"", more=False)
                return True
        return False


@coroutine
def _step(awaitable: Awaitable[Any], waited: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Return the result of an awaitable, and call ``waited`` if other tasks could run before it."""
    steps: Any = awaitable.__await__()
    try:
        found = steps.send(None)
        while True:
            try:
                value = yield found
            except BaseException as error:
                waited()
                found = steps.throw(error)
            else:
                waited()
                found = steps.send(value)
    except StopIteration as end:
        return end.value


class _PeerGoneError(Exception):
    """The server could not send because the client has left."""


class _Watcher(Protocol):
    """A task or coroutine that awaits the messages of a server until it is cancelled."""

    def cancel(self) -> Any: ...


def _watch(receive: Receive, on_end: Callable[[Exception | None], None]) -> _Watcher:
    """Await the messages of a request, and call ``on_end`` when the client has left or ``receive`` has failed."""
    owner = getattr(receive, "__self__", None)
    # The methods of uvicorn's cycles and of hypercorn's queue wait for one future and do not ask for their task.
    if isinstance(receive, MethodType) and (hasattr(owner, "message_event") or isinstance(owner, asyncio.Queue)):
        return _Steps(receive, on_end)
    return asyncio.get_running_loop().create_task(_wait(receive, on_end))


async def _wait(receive: Receive, on_end: Callable[[Exception | None], None]) -> None:
    try:
        await wait_for_disconnect(receive)
    except Exception as error:
        on_end(error)
    else:
        on_end(None)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":  # noqa: ASYNC110
        await asyncio.sleep(0)  # a request body must not occupy the loop


class _Steps:
    """Await the messages of a request without a task, which would be a third of a stream's memory.

    A coroutine is resumed when the future is done that it waits for. That is all that a task does for one
    that does not ask which task it runs in.
    """

    __slots__ = ("_coroutine", "_future", "_on_end", "_receive")

    def __init__(self, receive: Receive, on_end: Callable[[Exception | None], None]) -> None:
        self._receive = receive
        self._on_end = on_end
        self._coroutine: Any = None
        self._future: Any = None
        self._resume()

    def cancel(self) -> None:
        if self._future is not None:
            self._future.remove_done_callback(self._resume)
        if self._coroutine is not None:
            self._coroutine.close()
            self._coroutine = None

    def _resume(self, done: Any = None) -> None:
        try:
            if self._coroutine is None:
                self._coroutine = self._receive()
            self._future = self._coroutine.send(None)
        except StopIteration as end:
            self._coroutine = self._future = None
            if end.value["type"] == "http.disconnect":
                self._on_end(None)
            else:
                self._future = asyncio.get_running_loop().create_future()
                self._future.add_done_callback(self._resume)
                self._future.set_result(None)
        except (Exception, asyncio.CancelledError) as error:
            self._coroutine = self._future = None
            self._on_end(error if isinstance(error, Exception) else None)
        else:
            self._future._asyncio_future_blocking = False  # as a task does when it begins to wait
            self._future.add_done_callback(self._resume)
