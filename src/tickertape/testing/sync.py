"""The client for tests without asyncio: the application runs in an event loop on another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from ..asgi import ASGIApp, Headers
from ..errors import StreamEndedError
from ..wire import ReceivedEvent
from .client import DEFAULT_TIMEOUT, EventStream, EventStreamClient, Response

T = TypeVar("T")


class SyncEventStreamClient:
    """Open event streams of an ASGI application, and send ordinary requests to it, without asyncio.

    Enter it with ``with``: that starts the event loop of the application on another thread and runs the lifespan.
    It takes the same arguments as :class:`EventStreamClient`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        spec_version: str = "2.5",
    ) -> None:
        self._client = EventStreamClient(app, headers=headers, cookies=cookies, spec_version=spec_version)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    def __repr__(self) -> str:
        return repr(self._client).replace("<EventStreamClient", "<SyncEventStreamClient", 1)

    @property
    def cookies(self) -> dict[str, str]:
        """The current cookies by name. You can change them."""
        return self._client.cookies

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise RuntimeError("the client is already entered")
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(started)), name="tickertape-test-client", daemon=True
        )
        self._thread.start()
        started.result()
        try:
            self.call(self._client.__aenter__)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call(self._client.__aexit__, kind, error, trace)
        finally:
            self._end()

    def call(self, function: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        """Call a coroutine function in the event loop of the application, and return its result.

        For example, ``client.call(hub.publish, "orders/42", "paid")``.

        Raises:
            RuntimeError: the client is not entered.
            Exception: whatever the function raises.
        """
        if self._loop is None:
            raise RuntimeError("the client is not entered: use it in a with block")

        async def run() -> T:
            return await function(*args, **options)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def open(self, url: str, **options: Any) -> SyncEventStream:
        """Return a stream to be entered with ``with``, which sends the request.

        Arguments:
            url: path, with a query if you like.
            options: those of :meth:`EventStreamClient.open`.

        Raises:
            ValueError: both ``body`` and ``json`` are given.
        """
        return SyncEventStream(self, self._client.open(url, **options))

    def request(self, method: str, url: str, **options: Any) -> Response:
        """Send a request, and return the response when it has ended; see :meth:`EventStreamClient.request`."""
        return self.call(self._client.request, method, url, **options)

    def get(self, url: str, **options: Any) -> Response:
        """Send a GET request; see :meth:`request`."""
        return self.request("GET", url, **options)

    def head(self, url: str, **options: Any) -> Response:
        """Send a HEAD request; see :meth:`request`."""
        return self.request("HEAD", url, **options)

    def options(self, url: str, **options: Any) -> Response:
        """Send an OPTIONS request; see :meth:`request`."""
        return self.request("OPTIONS", url, **options)

    def post(self, url: str, **options: Any) -> Response:
        """Send a POST request; see :meth:`request`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> Response:
        """Send a PUT request; see :meth:`request`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Any) -> Response:
        """Send a PATCH request; see :meth:`request`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Any) -> Response:
        """Send a DELETE request; see :meth:`request`."""
        return self.request("DELETE", url, **options)

    async def _run(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        started.set_result(None)
        await self._stop.wait()

    def _end(self) -> None:
        loop, thread, stop = self._loop, self._thread, self._stop
        assert loop is not None
        assert thread is not None
        assert stop is not None
        self._loop = self._thread = self._stop = None
        loop.call_soon_threadsafe(stop.set)
        thread.join()


class SyncEventStream:
    """One response of the application, read as an event stream while it is being sent.

    Its attributes ``status``, ``headers``, ``body``, ``complete``, ``error`` and ``last_event_id`` are those of
    :class:`EventStream`.
    """

    def __init__(self, client: SyncEventStreamClient, stream: EventStream) -> None:
        self._client = client
        self._stream = stream

    def __repr__(self) -> str:
        return repr(self._stream).replace("<EventStream", "<SyncEventStream", 1)

    @property
    def status(self) -> int:
        """The HTTP status; 0 until the response has started."""
        return self._stream.status

    @property
    def headers(self) -> Headers:
        """The headers of the response."""
        return self._stream.headers

    @property
    def body(self) -> bytes:
        """Every byte that was read so far."""
        return self._stream.body

    @property
    def complete(self) -> bool:
        """True if the response has ended as HTTP asks for."""
        return self._stream.complete

    @property
    def error(self) -> Exception | None:
        """The exception that the application raised."""
        return self._stream.error

    @property
    def last_event_id(self) -> str | None:
        """The current id, to resume from."""
        return self._stream.last_event_id

    def __enter__(self) -> Self:
        self._client.call(self._stream.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.call(self._stream.__aexit__, kind, error, trace)

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return self

    def __next__(self) -> ReceivedEvent:
        try:
            return self.next_event()
        except StreamEndedError:
            raise StopIteration from None

    def started(self, timeout: float | None = DEFAULT_TIMEOUT) -> int:
        """Return the status when the response has started; see :meth:`EventStream.started`."""
        return self._client.call(self._stream.started, timeout)

    def next_event(self, timeout: float | None = DEFAULT_TIMEOUT) -> ReceivedEvent:
        """Return the next event, comments left out; see :meth:`EventStream.next_event`."""
        return self._client.call(self._stream.next_event, timeout)

    def next_comment(self, timeout: float | None = DEFAULT_TIMEOUT) -> str:
        """Return the text of the next comment; see :meth:`EventStream.next_comment`."""
        return self._client.call(self._stream.next_comment, timeout)

    def read(self, timeout: float | None = DEFAULT_TIMEOUT) -> bytes:
        """Return the body when the response has ended; see :meth:`EventStream.read`."""
        return self._client.call(self._stream.read, timeout)

    def finished(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Return when the application has returned; see :meth:`EventStream.finished`."""
        self._client.call(self._stream.finished, timeout)

    def disconnect(self, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Disconnect as a client that closes its connection; see :meth:`EventStream.disconnect`."""
        self._client.call(self._stream.disconnect, timeout)
