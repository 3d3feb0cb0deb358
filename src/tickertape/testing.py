"""Help for tests of applications that send events: a client in the same process, a clock turned by hand.

HTTP clients for tests wait for the whole body of a response, which an event stream never has. This
one calls the ASGI application itself and gives each event as it is sent, without sockets::

    async with EventStreamClient(app) as client:
        async with client.open("/events") as stream:
            event = await stream.next_event()
            assert event.data == "hello"
        async with client.open("/events", last_event_id=event.id) as stream: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

from .asgi import Headers
from .asgi.types import ASGIApp, Message
from .broker import Cursor, Draft, LogState, Record, TopicFilter, new_epoch
from .errors import BrokerError, LogResetError, LogTrimmedError, StreamEndedError
from .wire import Decoder, ServerSentEvent

__all__ = ["DEFAULT_TIMEOUT", "EventStream", "EventStreamClient", "FakeClock", "ScriptedBroker"]

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds to wait for what should come at once: enough for a busy machine, short for a failing test."""

_UNREAD_LIMIT: Final = 64 * 1024
"""Bytes sent and not read after which ``send`` waits, as it does in servers."""


class EventStreamClient:
    """Open event streams of an ASGI application in the same process.

    Arguments:
        app: the application. ``async with`` runs its lifespan.
        headers: sent with every request.
        spec_version: the version of the ASGI HTTP specification to announce.
    """

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str] | None = None, spec_version: str = "2.5") -> None:
        self._app = app
        self._headers = dict(headers or {})
        self._spec_version = spec_version
        self._state: dict[str, Any] = {}
        self._lifespan: _Lifespan | None = None

    def __repr__(self) -> str:
        return f"<EventStreamClient {self._app!r}>"

    async def __aenter__(self) -> Self:
        self._lifespan = _Lifespan(self._app, self._state)
        await self._lifespan.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lifespan is not None:
            await self._lifespan.stop()

    def open(
        self,
        url: str,
        *,
        method: str = "GET",
        query: Mapping[str, str | Sequence[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        body: bytes = b"",
        wait: bool = True,
    ) -> EventStream:
        """Return a stream to be entered with ``async with``, which sends the request.

        Arguments:
            url: path, with a query if you like.
            method: the HTTP method.
            query: more parameters of the query; a list repeats one.
            headers: more headers.
            last_event_id: the place to go on from, sent as ``Last-Event-ID``.
            body: the body of the request.
            wait: whether to wait for the response to start. A stream whose first event is late
                starts with it: ``False`` lets the test go on, and make it happen.
        """
        parts = urlsplit(url)
        fields = Headers({"host": "testserver", "accept": "text/event-stream"})
        fields.update(self._headers)
        fields.update(headers or {})
        if last_event_id is not None:
            # Headers are Latin-1 to ASGI, and this one is UTF-8 to browsers.
            fields["last-event-id"] = last_event_id.encode().decode("latin-1")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": self._spec_version},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(parts.path),
            "raw_path": quote(parts.path, safe="/%").encode(),
            "query_string": "&".join(filter(None, (parts.query, urlencode(query or {}, doseq=True)))).encode(),
            "root_path": "",
            "headers": fields.raw,
            "client": ("testclient", 50000),
            "server": ("testserver", 80),
            "state": self._state.copy(),
        }
        return EventStream(self._app, scope, body, wait)


class EventStream:
    """One response of the application, read as an event stream while it is being sent.

    Attributes:
        status: the HTTP status; 0 until the response has started.
        headers: the headers of the response.
        body: every byte that was read so far.
        complete: whether the response has ended as HTTP asks for; a stream that failed has not.
        error: what the application raised.
    """

    def __init__(self, app: ASGIApp, scope: dict[str, Any], body: bytes, wait: bool) -> None:
        self._app = app
        self._scope = scope
        self._wait = wait
        self._requests: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._left = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._decoder = Decoder(comments=True)
        self._events: deque[ServerSentEvent] = deque()
        self.status = 0
        self.headers = Headers()
        self.body = b""
        self.complete = False
        self.error: Exception | None = None

    def __repr__(self) -> str:
        state = "complete" if self.complete else "ended" if self._ended else "open"
        return f"<EventStream {self._scope['path']} status={self.status} {state} last_event_id={self.last_event_id!r}>"

    @property
    def last_event_id(self) -> str | None:
        """The id in force, to go on from: that of the last event whose bytes were read."""
        return self._decoder.last_event_id

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._changed.set())
        if self._wait:
            try:
                await self.started()
            except BaseException:
                await self.disconnect()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    def __aiter__(self) -> AsyncIterator[ServerSentEvent]:
        return self

    async def __anext__(self) -> ServerSentEvent:
        try:
            return await self.next_event()
        except StreamEndedError:
            raise StopAsyncIteration from None

    async def started(self, timeout: float | None = DEFAULT_TIMEOUT) -> int:
        """Return the status when the response has started.

        Raises:
            TimeoutError: it did not start in time.
            StreamEndedError: the application returned without a response.
            Exception: what the application raised instead.
        """
        async with _within(timeout, "the response to start (`wait=False` goes on without)"):
            await self._until(lambda: self.status > 0 or self._ended)
        if not self.status:
            raise self.error or StreamEndedError("expected a response, got none: the application returned without one")
        return self.status

    async def next_event(self, timeout: float | None = DEFAULT_TIMEOUT) -> ServerSentEvent:
        """Return the next event, comments left out.

        Arguments:
            timeout: seconds to wait for it; ``None`` for ever.

        Raises:
            TimeoutError: none came in time.
            StreamEndedError: the stream has ended.
        """
        return await self._next(lambda event: event.comment is None, timeout)

    async def next_comment(self, timeout: float | None = DEFAULT_TIMEOUT) -> str:
        """Return the text of the next comment, a heartbeat say; events before it stay for :meth:`next_event`.

        Raises:
            TimeoutError: none came in time.
            StreamEndedError: the stream has ended.
        """
        event = await self._next(lambda event: event.comment is not None, timeout)
        return event.comment or ""

    async def read(self, timeout: float | None = DEFAULT_TIMEOUT) -> bytes:
        """Return :attr:`body` when the response has ended: for errors, and for streams that end.

        Raises:
            TimeoutError: it did not end in time.
        """
        await self.started(timeout)
        async with _within(timeout, "the response to end"):
            while await self._take_chunk():
                pass
        return self.body

    async def disconnect(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Leave, as a client that closes its connection; return when the application is done with it.

        Raises:
            TimeoutError: the application went on as if nobody had left; it was cancelled.
        """
        self._left = True
        self._changed.set()
        if self._task is None or self._task.done():
            return
        await asyncio.wait([self._task], timeout=timeout)
        if not self._task.done():
            self._task.cancel()
            raise TimeoutError(f"expected the application to end in {timeout} s, got one that goes on")

    async def _next(self, wanted: Callable[[ServerSentEvent], bool], timeout: float | None) -> ServerSentEvent:
        await self.started(timeout)
        async with _within(timeout, "another event"):
            while True:
                for event in self._events:
                    if wanted(event):
                        self._events.remove(event)
                        return event
                if not await self._take_chunk():
                    raise StreamEndedError("expected another event, got the end of the stream") from self.error

    async def _take_chunk(self) -> bool:
        """Wait for a chunk and decode it; return whether there was one before the end."""
        await self._until(lambda: bool(self._chunks) or self._ended)
        if not self._chunks:
            return False
        chunk = self._chunks.popleft()
        self._unread -= len(chunk)
        self._changed.set()
        self.body += chunk
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            self._events.extend(self._decoder.feed(chunk))
        return True

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @property
    def _ended(self) -> bool:
        return self.complete or (self._task is not None and self._task.done())

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            self.error = error

    async def _receive(self) -> Message:
        if self._requests:
            return self._requests.popleft()
        await self._until(lambda: self._left or self.complete)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        wanted = "http.response.body" if self.status else "http.response.start"
        if message["type"] != wanted or self.complete:
            state = "the response is complete" if self.complete else f"expected {wanted}"
            raise RuntimeError(f"{state}, got {message['type']}")
        await self._until(lambda: self._left or self._unread < _UNREAD_LIMIT)
        if not self.status:
            self.status = message["status"]
            self.headers.raw.extend(message.get("headers", ()))
        elif not self._left:
            chunk = message.get("body", b"")
            self._chunks.append(chunk)
            self._unread += len(chunk)
            self.complete = not message.get("more_body", False)
        self._changed.set()


@contextlib.asynccontextmanager
async def _within(seconds: float | None, expected: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"expected {expected} within {seconds} s, got nothing") from None


class _Lifespan:
    """Run the lifespan of an application (ASGI, "Lifespan Protocol"), if it has one."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        self._requests: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())
        try:
            await self._ask("startup")
        except BaseException:
            self._task.cancel()
            raise

    async def stop(self) -> None:
        assert self._task is not None
        try:
            await self._ask("shutdown")
            await asyncio.wait([self._task], timeout=DEFAULT_TIMEOUT)
        finally:
            self._task.cancel()

    async def _ask(self, what: str) -> None:
        assert self._task is not None
        if self._task.done() and self._answers.empty():
            return
        self._requests.put_nowait({"type": f"lifespan.{what}"})
        async with _within(DEFAULT_TIMEOUT, f"the application's {what} to complete"):
            answer = await self._answers.get()
        if answer["type"].endswith(".failed"):
            raise RuntimeError(f"expected the application's {what} to complete, got: {answer.get('message', '')}")

    async def _run(self) -> None:
        with contextlib.suppress(Exception):  # an application that raises, or returns, has no lifespan
            await self._app(self._scope, self._requests.get, self._answers.put)
        self._answers.put_nowait({"type": "lifespan.over"})


class FakeClock:
    """A clock that stands still until :meth:`advance` turns it; give it as ``clock=``.

    Arguments:
        now: the moment at which it starts, in seconds.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._count = itertools.count()
        self._timers: list[_FakeTimer] = []

    def __repr__(self) -> str:
        return f"<FakeClock now={self._now} timers={sum(not timer.cancelled for timer in self._timers)}>"

    def time(self) -> float:
        """Return the present moment, in seconds."""
        return self._now

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> _FakeTimer:
        """Call ``callback`` when the clock is turned past ``when``."""
        timer = _FakeTimer(when, next(self._count), callback, args)
        heapq.heappush(self._timers, timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Turn the clock, and call what falls due on the way at its own moment, in order."""
        if not seconds >= 0:
            raise ValueError(f"expected seconds of at least 0, got {seconds!r}")
        end = self._now + seconds
        while self._timers and self._timers[0].when <= end:
            timer = heapq.heappop(self._timers)
            self._now = max(self._now, timer.when)
            timer.run()
        self._now = end


class ScriptedBroker:
    """A log in memory whose troubles the test makes: delays, failures, lost records, another epoch.

    ::

        broker = ScriptedBroker()
        async with Hub(broker) as hub:
            broker.fail("append", "tail")  # until broker.recover()
            broker.hold("read")  # until broker.release()
            broker.trim(keep=10)
            broker.reset()

    What it is told to do happens to calls under way as well: a tail that waits fails at once.

    Arguments:
        keep: the number of records after which the oldest are dropped; ``None`` for no limit.

    Attributes:
        calls: how many calls of each operation have begun: ``open``, ``append``, ``read``, ``tail``.
    """

    def __init__(self, *, keep: int | None = None) -> None:
        self.calls: Counter[str] = Counter()
        self._keep = keep
        self._epoch = self._opened = new_epoch()
        self._records: list[Record] = []
        self._newest = 0
        self._keys: dict[str, int] = {}
        self._failing: dict[str, Exception] = {}
        self._held: set[str] = set()
        self._closed = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<ScriptedBroker epoch={self._epoch} oldest={self._oldest} newest={self._newest}>"

    def fail(self, *operations: str, error: Exception | None = None) -> None:
        """Let operations raise ``error``, by default a ``BrokerError``, until :meth:`recover`."""
        self._failing.update(dict.fromkeys(operations, error or BrokerError("expected a log, got a scripted failure")))
        self._notify()

    def recover(self) -> None:
        """Let no operation fail any more."""
        self._failing.clear()

    def hold(self, *operations: str) -> None:
        """Let operations wait until :meth:`release`; an append that waits is not stored yet."""
        self._held.update(operations)

    def release(self, *operations: str) -> None:
        """Let operations go on; all of them if none is named."""
        self._held.difference_update(operations or tuple(self._held))
        self._notify()

    def trim(self, *, keep: int) -> None:
        """Drop all but the newest ``keep`` records."""
        del self._records[: max(0, len(self._records) - keep)]
        self._keys = {key: offset for key, offset in self._keys.items() if offset >= self._oldest}
        self._notify()

    def lose(self, count: int) -> None:
        """Lose the newest ``count`` records under the same epoch, as a replica that was behind does."""
        del self._records[len(self._records) - count :]
        self._newest -= count
        self._notify()

    def reset(self) -> None:
        """Begin another life of the log, empty: its epoch is another, and offsets start over."""
        self._epoch, self._newest = new_epoch(), 0
        self._records.clear()
        self._keys.clear()
        self._notify()

    @property
    def _oldest(self) -> int:
        return self._newest - len(self._records) + 1

    async def open(self) -> LogState:
        """Return the state of the log."""
        await self._pass("open")
        self._opened = self._epoch
        return LogState(self._epoch, self._oldest, self._newest)

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Append drafts, all or none."""
        await self._pass("append")
        cursors = [Cursor(self._epoch, self._append(draft)) for draft in drafts]
        if self._keep is not None:
            self.trim(keep=self._keep)
        self._notify()
        return cursors

    def _append(self, draft: Draft) -> int:
        if draft.key is not None and draft.key in self._keys:
            return self._keys[draft.key]
        self._newest += 1
        self._records.append(Record(self._newest, draft.topic, draft.event, draft.data))
        if draft.key is not None:
            self._keys[draft.key] = self._newest
        return self._newest

    async def read(self, after: int, limit: int, topics: TopicFilter | None = None) -> list[Record]:
        """Return the oldest records behind an offset; held, it waits with its answer."""
        kept = self._records[max(0, after + 1 - self._oldest) :]
        found = [record for record in kept if topics is None or topics(record.topic)][:limit]
        await self._pass("read")
        return found

    async def tail(self, after: int) -> AsyncIterator[list[Record]]:
        """Give what is appended behind an offset, until it is told to fail."""
        epoch, given = self._opened, after
        await self._pass("tail")
        while True:
            if self._epoch != epoch or self._newest < given:
                raise LogResetError(f"expected the log {epoch} with {given} records, got {self!r}")
            if given + 1 < self._oldest:
                raise LogTrimmedError(given, self._oldest)
            if given == self._newest:
                await self._changed.wait()
            else:
                records = self._records[given + 1 - self._oldest :]
                given = self._newest
                yield records
            await self._wait("tail")

    async def close(self) -> None:
        """End all calls under way."""
        self._closed = True
        self._notify()

    async def _pass(self, operation: str) -> None:
        self.calls[operation] += 1
        await self._wait(operation)

    async def _wait(self, operation: str) -> None:
        while operation in self._held and not self._closed and operation not in self._failing:
            await self._changed.wait()
        if self._closed:
            raise BrokerError("expected an open broker, got one that was closed")
        if operation in self._failing:
            raise self._failing[operation]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _FakeTimer:
    def __init__(self, when: float, order: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.when = when
        self._order = order
        self._callback: Callable[..., Any] | None = callback
        self._args = args

    def __lt__(self, other: _FakeTimer) -> bool:
        return (self.when, self._order) < (other.when, other._order)

    @property
    def cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        self._callback = None

    def run(self) -> None:
        if self._callback is not None:
            self._callback(*self._args)
