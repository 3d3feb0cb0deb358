"""A client in the same process, which yields each event of a response as it is sent, without sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

from ..asgi import ASGIApp, Headers, Message
from ..errors import StreamEndedError
from ..wire import Decoder, ServerSentEvent

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
            last_event_id: the id to resume from, sent as ``Last-Event-ID``.
            body: the body of the request.
            wait: whether to wait for the response to start. A stream whose first event is late
                starts with it: with ``False`` the test continues at once, and can cause the event.
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
        error: the exception that the application raised.
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
        """The current id, to resume from: that of the last event whose bytes were read."""
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
            Exception: the error that the application raised instead.
        """
        async with _within(
            timeout, "the response did not start", hint="; open it with wait=False to continue without it"
        ):
            await self._until(lambda: self.status > 0 or self._ended)
        if not self.status:
            raise self.error or StreamEndedError("the application returned without a response")
        return self.status

    async def next_event(self, timeout: float | None = DEFAULT_TIMEOUT) -> ServerSentEvent:
        """Return the next event, comments left out.

        Arguments:
            timeout: seconds to wait for it; ``None`` for no limit.

        Raises:
            TimeoutError: none arrived in time.
            StreamEndedError: the stream has ended.
        """
        return await self._next(lambda event: event.comment is None, timeout)

    async def next_comment(self, timeout: float | None = DEFAULT_TIMEOUT) -> str:
        """Return the text of the next comment, for example a heartbeat. Events before it remain for :meth:`next_event`.

        Raises:
            TimeoutError: none arrived in time.
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
        async with _within(timeout, "the response did not end"):
            while await self._take_chunk():
                pass
        return self.body

    async def disconnect(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Disconnect as a client that closes its connection; return when the application has ended.

        Raises:
            TimeoutError: the application ignored that the client has left; it was cancelled.
        """
        self._left = True
        self._changed.set()
        if self._task is None or self._task.done():
            return
        await asyncio.wait([self._task], timeout=timeout)
        if not self._task.done():
            self._task.cancel()
            raise TimeoutError(f"the application did not end within {timeout} s after the client left")

    async def _next(self, wanted: Callable[[ServerSentEvent], bool], timeout: float | None) -> ServerSentEvent:
        await self.started(timeout)
        async with _within(timeout, "no event"):
            while True:
                for event in self._events:
                    if wanted(event):
                        self._events.remove(event)
                        return event
                if not await self._take_chunk():
                    raise StreamEndedError("the stream has ended") from self.error

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
async def _within(seconds: float | None, problem: str, *, hint: str = "") -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimeoutError(f"{problem} within {seconds} s{hint}") from None


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
        async with _within(DEFAULT_TIMEOUT, f"the application's {what} did not complete"):
            answer = await self._answers.get()
        if answer["type"].endswith(".failed"):
            raise RuntimeError(f"the application's {what} failed: {answer.get('message', '')}")

    async def _run(self) -> None:
        with contextlib.suppress(Exception):  # an application that raises, or returns, has no lifespan
            await self._app(self._scope, self._requests.get, self._answers.put)
        self._answers.put_nowait({"type": "lifespan.over"})
