"""``SyncEventSource``, the synchronous source: a loop around the state machine, over ``httpx2.Client``.

A thread that is blocked in the network is woken by shutting its socket down. ``close`` does so from another
thread, and so does a timer if the server has been silent for too long. A connection of HTTP/2 is shared
with other requests and is not shut down. There the read timeout ends a silence, and ``close`` takes effect with the
next bytes.
"""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from random import random as system_random
from typing import Any, Final, Self, TypeAlias, TypeVar, Unpack, cast

import httpx2

from ..timing import Clock
from ..wire import Gap, ReceivedEvent, TopicsChange
from .clock import Sleeper, ThreadClock
from .http import (
    DETAIL_SECONDS,
    MAX_DETAIL,
    Answer,
    Auth,
    HeaderList,
    RenewingAuth,
    credential_headers,
    redirect_request,
)
from .policy import PolicyOptions
from .reconnect import (
    Action,
    Closed,
    Connect,
    Emit,
    Follow,
    Notice,
    Notify,
    Opened,
    Read,
    Reconnecting,
    Save,
    Sleep,
    State,
    Stop,
    Warn,
)
from .source import FAILURES, LIMITS, TIMEOUT, Source
from .stores import CursorStore
from .topics import Change

T = TypeVar("T")

Hook: TypeAlias = Callable[[T], None]

_STREAM_CREATED: Final = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")
"""Ends of the names of ``trace`` events that come with a new network stream."""


class SyncEventSource(Source):
    """Read an event stream and resume it after every interruption, without asyncio.

    Iterate it with ``for``. A ``with`` block around the loop closes it in any case. It works as
    :class:`EventSource` does, and takes the same arguments, with these differences:

    Arguments:
        auth: a function.
        last_event_id: the id to resume from, or a store with plain methods.
        client: an ``httpx2.Client``. The source does not close it.
        on_open: a function, as are the other hooks.
        clock: replaces the system's clock in tests, for example by a :class:`~tickertape.testing.FakeClock`.

    One thread iterates. Any thread may call :meth:`close`, :meth:`restart`, :meth:`subscribe` and :meth:`unsubscribe`.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        auth: Auth | RenewingAuth | None = None,
        last_event_id: str | CursorStore | None = None,
        until: Callable[[ReceivedEvent], bool] | str | None = None,
        client: httpx2.Client | None = None,
        on_open: Hook[Opened] | None = None,
        on_gap: Hook[Gap] | None = None,
        on_topics: Hook[TopicsChange] | None = None,
        on_comment: Hook[str] | None = None,
        on_reconnecting: Hook[Reconnecting] | None = None,
        on_closed: Hook[Closed] | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = system_random,
        **policy: Unpack[PolicyOptions],
    ) -> None:
        super().__init__(
            url,
            method=method,
            headers=headers,
            content=content,
            json=json,
            auth=auth,
            last_event_id=last_event_id,
            until=until,
            on_comment=on_comment,
            hooks={
                Opened: on_open,
                Gap: on_gap,
                TopicsChange: on_topics,
                Reconnecting: on_reconnecting,
                Closed: on_closed,
            },
            random=random,
            policy=policy,
        )
        for function in (auth, on_open, on_gap, on_topics, on_comment, on_reconnecting, on_closed):
            if inspect.iscoroutinefunction(function):
                raise TypeError(f"a SyncEventSource cannot call the coroutine function {function!r}: use EventSource")
        self._auth: Callable[..., Any] | None = auth
        self._store = None if isinstance(last_event_id, str) else last_event_id
        self._client = client
        self._own_client: httpx2.Client | None = None
        self._own_clock = ThreadClock()
        self._clock: Clock = clock or self._own_clock

        self._turn = threading.Lock()  # held while the machine is driven
        self._changing = threading.Lock()  # held during a change of topics
        self._sleeper = Sleeper(self._clock)
        self._is_expired = False  # the deadline of the current step has passed
        self._socket: socket.socket | None = None
        self._response: httpx2.Response | None = None
        self._chunks: Generator[bytes, None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReceivedEvent:
        if not self._turn.acquire(blocking=self._closing):
            raise RuntimeError("another thread is already iterating this source")
        try:
            return self._next()
        finally:
            self._turn.release()

    def commit(self) -> None:
        """Count the current event as handled now, for example before a ``break``."""
        if (save := self._machine.commit()) is not None:
            self._save(save.id)

    def subscribe(self, *topics: str, last: int = 0) -> str | None:
        """Add topics to the stream, from any thread, as :meth:`EventSource.subscribe`."""
        return self._change(Change.create(topics, (), last))

    def unsubscribe(self, *topics: str) -> str | None:
        """Remove topics from the stream, from any thread, as :meth:`EventSource.unsubscribe`."""
        return self._change(Change.create((), topics, 0))

    def close(self) -> None:
        """End the iteration, from any thread, and close the connection. May be called again."""
        self._closing = True
        self._sleeper.wake()
        self._shut_down_socket()
        # A thread that iterates releases everything when its loop ends. Without one, that is done here.
        if self._turn.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._release()
                self._turn.release()

    def _next(self) -> ReceivedEvent:
        self.commit()
        self._load()
        while True:
            if self._restarting:
                reason, self._restarting = self._restarting, ""
                self._sleeper.reset()
                self._machine.restart(self._clock.time(), reason)
            if self._closing:
                self._machine.close()
            action = self._machine.next(self._clock.time())
            match action:
                case Emit(event):
                    return event
                case Stop(error):
                    self._release()
                    raise error or StopIteration
            self._do(action)

    def _end(self) -> None:
        """Do what remains: save, notify."""
        self._machine.close()
        while not isinstance(action := self._machine.next(self._clock.time()), Stop):
            if isinstance(action, (Save, Notify)):
                self._do(action)

    def _do(self, action: Action) -> None:
        if self._machine.state is not State.OPEN and not isinstance(action, Follow):
            self._close_response()
        match action:
            case Connect():
                self._reported(lambda: self._connect(action))
            case Follow(seconds):
                self._reported(lambda: self._follow(seconds))
            case Read(seconds):
                self._reported(lambda: self._read(seconds))
            case Sleep(until):
                self._sleeper.sleep_until(until)
            case Save(id):
                self._save(id)
            case Notify(notice):
                self._notify(notice)
            case Warn(text):
                self._warn(text)

    # Steps that block.

    def _reported(self, step: Callable[[], None]) -> None:
        """Do a step, and report its failure to the machine."""
        self._is_expired = False
        try:
            step()
        except httpx2.UnsupportedProtocol:
            self._machine.interrupted()
            raise
        except FAILURES as error:
            if self._closing or self._restarting:
                self._machine.interrupted()  # the failure comes from `close` or `restart`
            elif self._is_expired or isinstance(error, httpx2.ReadTimeout):
                self._machine.silent(self._clock.time())
            else:
                self._machine.failed(error, self._clock.time())
        except BaseException:
            self._machine.interrupted()
            raise

    def _connect(self, connect: Connect) -> None:
        credentials = self._credentials(connect.refused)
        client = self._http_client()
        trace = {"trace": self._trace}
        self._send(self._request(client, connect, credentials, connect.seconds, trace), connect.seconds)

    def _follow(self, seconds: float | None) -> None:
        assert self._response is not None, "there is a response that redirects"
        request, same_origin = redirect_request(self._response, self._secret)
        self._same_origin = self._same_origin and same_origin
        self._close_response()
        self._send(request, seconds)

    def _send(self, request: httpx2.Request, seconds: float | None) -> None:
        auth = httpx2.USE_CLIENT_DEFAULT if self._same_origin else None
        with self._deadline(seconds):
            response = self._http_client().send(request, stream=True, auth=auth, follow_redirects=False)
        self._response = response
        self._socket = _socket_of(response)
        detail = self._detail(response) if response.status_code >= 400 else b""
        self._responded(response, detail, self._clock.time())

    def _read(self, seconds: float | None) -> None:
        assert self._response is not None, "there is a response that streams"
        if self._chunks is None:
            self._chunks = _chunks(self._response)
        # HTTP/2 applies it to each read.
        self._response.request.extensions.setdefault("timeout", {})["read"] = seconds
        with self._deadline(seconds):
            data = next(self._chunks, None)
        if data is not None:
            self._machine.received(data, self._clock.time())
        elif self._closing or self._restarting:
            self._machine.interrupted()
        elif self._is_expired:
            self._machine.silent(self._clock.time())
        else:
            self._machine.ended(self._clock.time())

    def _detail(self, response: httpx2.Response) -> bytes:
        body = b""
        with suppress(*FAILURES), self._deadline(DETAIL_SECONDS), closing(_chunks(response)) as chunks:
            for chunk in chunks:
                body += chunk
                if len(body) >= MAX_DETAIL:
                    break
        return body[:MAX_DETAIL]

    def _credentials(self, refused: bool) -> HeaderList:
        arguments = {"refused": refused} if self._tells_refusals else {}
        return credential_headers(self._auth(**arguments) if self._auth is not None else None)

    # Changes of topics.

    def _change(self, change: Change) -> str | None:
        with self._changing:
            patterns, subscription = self._plan_change(change)
            answer: Answer | Exception = LookupError("no id")
            if subscription is not None:
                answer = self._send_change(change, subscription)
            return self._changed(patterns, subscription, answer)

    def _send_change(self, change: Change, subscription: str) -> Answer | Exception:
        client = self._http_client()
        try:
            for refused in (False, True) if self._tells_refusals else (False,):
                request = self._change_request(client, change, subscription, self._credentials(refused))
                response = client.send(request, follow_redirects=False)
                if response.status_code != HTTPStatus.UNAUTHORIZED:
                    break
        except httpx2.UnsupportedProtocol:
            raise
        except FAILURES as error:
            return error
        return Answer(response.status_code, dict(response.headers), response.content)

    # Ending a step from another thread.

    def _restart(self, reason: str) -> None:
        self._restarting = reason
        self._sleeper.wake()
        self._shut_down_socket()

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Keep the socket of a request that has no response yet."""
        if name.endswith(_STREAM_CREATED):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._closing or self._restarting or self._is_expired:
                self._shut_down_socket()

    @contextmanager
    def _deadline(self, seconds: float | None) -> Iterator[None]:
        """End the block from another thread if it takes longer than this."""
        if seconds is None:
            yield
            return
        timer = self._clock.call_at(self._clock.time() + seconds, self._expire)
        try:
            yield
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._is_expired = True
        self._shut_down_socket()

    def _shut_down_socket(self) -> None:
        if (stream := self._socket) is not None:
            # Not the method of an `ssl.SSLSocket`: it would remove the TLS state that the reader uses.
            with suppress(OSError):
                socket.socket.shutdown(stream, socket.SHUT_RDWR)

    # The user's callables.

    def _load(self) -> None:
        if self._store is not None and not self._is_loaded:
            self._loaded(self._store.load())

    def _save(self, id: str) -> None:
        if self._store is not None:
            self._store.save(id)

    def _notify(self, notice: Notice) -> None:
        self._log(notice)
        hook = self._hooks.get(type(notice))
        if hook is not None:
            hook(notice)

    # Resources.

    def _http_client(self) -> httpx2.Client:
        if self._client is not None:
            return self._client
        if self._own_client is None:
            self._own_client = httpx2.Client(timeout=TIMEOUT, limits=LIMITS)
        return self._own_client

    def _close_response(self) -> None:
        """Close the response, and with it the connection of an unfinished stream."""
        self._socket = None
        chunks, self._chunks = self._chunks, None
        response, self._response = self._response, None
        with suppress(*FAILURES):
            if chunks is not None:
                chunks.close()
            if response is not None:
                response.close()

    def _release(self) -> None:
        self._close_response()
        self._own_clock.close()
        client, self._own_client = self._own_client, None
        if client is not None:
            client.close()


def _chunks(response: httpx2.Response) -> Generator[bytes, None, None]:
    # Annotated as an iterator. It is a generator, and its `close` is needed.
    return cast("Generator[bytes, None, None]", response.iter_bytes())


def _socket_of(response: httpx2.Response) -> socket.socket | None:
    """Return the socket of a response, unless the response shares it with others."""
    stream = response.extensions.get("network_stream")
    if stream is None or response.http_version == "HTTP/2":
        return None
    found = stream.get_extra_info("socket")
    return found if isinstance(found, socket.socket) else None
