"""A client in the same process, which yields each event of a response as it is sent, without sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json as jsonlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookies import CookieError, Morsel, SimpleCookie
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlencode, urlsplit

from ..asgi import ASGIApp, Headers, Message
from ..errors import StreamEndedError
from ..wire import Decoder, ReceivedEvent, ServerSentEvent

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds to wait for what should come at once: enough for a busy machine, short for a failing test."""

_UNREAD_LIMIT: Final = 64 * 1024
"""Bytes sent and not read after which ``send`` waits, as it does in servers."""


@dataclass(frozen=True, slots=True, repr=False)
class Response:
    """A response that was read to its end."""

    status: int
    """The HTTP status."""
    headers: Headers
    body: bytes
    error: Exception | None
    """The exception that the application raised after the start of the response, for example beside a status 500."""

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Parse the body as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        return jsonlib.loads(self.body)

    def __repr__(self) -> str:
        return f"<Response status={self.status} body={self.body[:100]!r} error={self.error!r}>"


class EventStreamClient:
    """Open event streams of an ASGI application in the same process, and send ordinary requests to it.

    Arguments:
        app: the application. ``async with`` runs its lifespan.
        headers: sent with every request.
        cookies: sent with every request that has no ``cookie`` header. Responses add to them and remove from
            them, as in a browser; paths and domains do not matter.
        spec_version: the version of the ASGI HTTP specification to announce.

    Attributes:
        cookies: the current cookies by name. You can change them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        spec_version: str = "2.5",
    ) -> None:
        self._app = app
        self._headers = dict(headers or {})
        self.cookies: dict[str, str] = dict(cookies or {})
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
        cookies: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        body: bytes = b"",
        json: Any = None,
        wait: bool = True,
    ) -> EventStream:
        """Return a stream to be entered with ``async with``, which sends the request.

        Arguments:
            url: path, with a query if you like.
            method: the HTTP method.
            query: more parameters of the query; a list repeats one.
            headers: more headers.
            cookies: more cookies, for this request only.
            last_event_id: the id to resume from, sent as ``Last-Event-ID``.
            body: the body of the request.
            json: the body as a value that :mod:`json` can write; sets the content type.
            wait: whether to wait for the response to start. A stream whose first event is late
                starts with it: with ``False`` the test continues at once, and can cause the event.

        Raises:
            ValueError: both ``body`` and ``json`` are given.
        """
        if json is not None and body:
            raise ValueError("pass body or json, not both")
        parts = urlsplit(url)
        fields = Headers({"host": "testserver", "accept": "text/event-stream"})
        if json is not None:
            fields["content-type"] = "application/json"
            body = jsonlib.dumps(json).encode()
        fields.update(self._headers)
        fields.update(headers or {})
        if last_event_id is not None:
            # Headers are Latin-1 to ASGI, and this one is UTF-8 to browsers.
            fields["last-event-id"] = last_event_id.encode().decode("latin-1")
        kept = {} if "cookie" in fields else self.cookies  # several users may share this client
        if pairs := kept | dict(cookies or {}):
            sent = [f"{name}={value}" for name, value in pairs.items()]
            fields["cookie"] = "; ".join([fields["cookie"], *sent] if "cookie" in fields else sent)
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
        return EventStream(self._app, scope, body, wait, self._start)

    async def request(
        self, method: str, url: str, *, timeout: float | None = DEFAULT_TIMEOUT, **options: Any
    ) -> Response:
        """Send a request, and return the response when it has ended. Redirects are not followed.

        Arguments:
            method: the HTTP method.
            url: path, with a query if you like.
            timeout: seconds to wait for the end; ``None`` for no limit.
            options: ``query``, ``headers``, ``cookies``, ``body`` and ``json`` of :meth:`open`.

        Raises:
            TimeoutError: the response did not end in time; :meth:`open` reads streams without an end.
            Exception: the application raised it before or within the response, which is incomplete.
        """
        headers = {"accept": "*/*", **self._headers, **(options.pop("headers", None) or {})}
        async with self.open(url, method=method, headers=headers, wait=False, **options) as stream:
            try:
                body = await stream.read(timeout)
            except TimeoutError:
                step = "end" if stream.status else "start"
                text = f"the response did not {step} within {timeout} s; open() reads a stream while it is sent"
                raise TimeoutError(text) from None
            await stream.finished(timeout)
            if not stream.complete:
                raise stream.error or StreamEndedError("the application returned before the end of the response")
            return Response(stream.status, stream.headers, body, stream.error)

    async def get(self, url: str, **options: Any) -> Response:
        """Send a GET request; see :meth:`request`."""
        return await self.request("GET", url, **options)

    async def head(self, url: str, **options: Any) -> Response:
        """Send a HEAD request; see :meth:`request`."""
        return await self.request("HEAD", url, **options)

    async def options(self, url: str, **options: Any) -> Response:
        """Send an OPTIONS request; see :meth:`request`."""
        return await self.request("OPTIONS", url, **options)

    async def post(self, url: str, **options: Any) -> Response:
        """Send a POST request; see :meth:`request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> Response:
        """Send a PUT request; see :meth:`request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> Response:
        """Send a PATCH request; see :meth:`request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> Response:
        """Send a DELETE request; see :meth:`request`."""
        return await self.request("DELETE", url, **options)

    def _start(self, headers: Headers) -> None:
        """Keep the cookies of a response."""
        for name, value in headers.raw:
            if name.lower() == b"set-cookie":
                with contextlib.suppress(CookieError):
                    for cookie in SimpleCookie(value.decode("latin-1")).values():
                        if _is_expired(cookie):
                            self.cookies.pop(cookie.key, None)
                        else:
                            self.cookies[cookie.key] = cookie.coded_value


def _is_expired(cookie: Morsel[str]) -> bool:
    """Return True if a cookie asks to be deleted (RFC 6265, 5.3: ``Max-Age`` wins over ``Expires``)."""
    if cookie["max-age"]:
        return str(cookie["max-age"]).startswith(("0", "-"))
    try:
        expires = parsedate_to_datetime(cookie["expires"])
    except (ValueError, TypeError):
        return False
    return (expires if expires.tzinfo else expires.replace(tzinfo=UTC)) <= datetime.now(UTC)


class EventStream:
    """One response of the application, read as an event stream while it is being sent.

    Attributes:
        status: the HTTP status; 0 until the response has started.
        headers: the headers of the response.
        body: every byte that was read so far.
        complete: whether the response has ended as HTTP asks for; a stream that failed has not.
        error: the exception that the application raised.
    """

    def __init__(
        self, app: ASGIApp, scope: dict[str, Any], body: bytes, wait: bool, on_start: Callable[[Headers], None]
    ) -> None:
        self._app = app
        self._on_start = on_start
        self._scope = scope
        self._wait = wait
        self._requests: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])
        self._chunks: deque[bytes] = deque()
        self._unread = 0
        self._left = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._decoder = Decoder(comments=True)
        self._events: deque[ServerSentEvent] = deque()  # and comments
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

    def __aiter__(self) -> AsyncIterator[ReceivedEvent]:
        return self

    async def __anext__(self) -> ReceivedEvent:
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

    async def next_event(self, timeout: float | None = DEFAULT_TIMEOUT) -> ReceivedEvent:
        """Return the next event, comments left out.

        Arguments:
            timeout: seconds to wait for it; ``None`` for no limit.

        Raises:
            TimeoutError: none arrived in time.
            StreamEndedError: the stream has ended.
        """
        event = await self._next(lambda event: isinstance(event, ReceivedEvent), timeout)
        assert isinstance(event, ReceivedEvent)
        return event

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

    async def finished(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Return when the application has returned; background tasks of the response have run then.

        Raises:
            TimeoutError: it did not return in time.
        """
        assert self._task is not None, "the stream was entered"
        async with _within(timeout, "the application did not return"):
            await asyncio.wait([self._task])

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
            self.headers.raw.extend((name.lower(), value) for name, value in message.get("headers", ()))
            self._on_start(self.headers)
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
