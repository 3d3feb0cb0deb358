"""``SyncEventSource``, the synchronous source: a loop around the state machine, over ``httpx2.Client``.

A thread that is blocked in the network is woken by shutting its socket down: by ``close`` from
another thread, and by the watchdog when a server has been silent for too long. A connection of
HTTP/2 is shared with other requests and is not shut down; there the read timeout ends a silence,
and ``close`` takes effect with the next bytes.
"""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from random import random as system_random
from typing import Any, Final, Self, TypeAlias, TypeVar, Unpack, cast

import httpx2

from ..wire import ServerSentEvent
from .actions import (
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
)
from .clock import SyncClock, SystemSyncClock
from .cursor import CursorStore
from .headers import Auth, credential_headers, redirected
from .inbox import Gap
from .policy import PolicyOptions
from .problem import DETAIL_SECONDS, MAX_DETAIL
from .source import FAILURES, LIMITS, TIMEOUT, Source

__all__ = ["Hook", "SyncEventSource"]

T = TypeVar("T")

Hook: TypeAlias = Callable[[T], None]

_STREAM_MADE: Final = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")
"""Ends of the names of ``trace`` events that come with a new network stream."""


class SyncEventSource(Source):
    """Read an event stream, for as long as it takes, without losing the place in it; without asyncio.

    Iterate it with ``for``; ``with`` around that closes it whatever happens. The same machine as in
    :class:`EventSource` is underneath, and the arguments are the same, with these differences:

    Arguments:
        auth: a function.
        last_event_id: the id after which to begin, or a store with plain methods.
        client: an ``httpx2.Client``; it is not closed with the source.
        on_open: a function, as are the other hooks.

    One thread iterates; any thread may call :meth:`close`.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        auth: Auth | None = None,
        last_event_id: str | CursorStore | None = None,
        client: httpx2.Client | None = None,
        on_open: Hook[Opened] | None = None,
        on_gap: Hook[Gap] | None = None,
        on_reconnecting: Hook[Reconnecting] | None = None,
        on_closed: Hook[Closed] | None = None,
        clock: SyncClock | None = None,
        random: Callable[[], float] = system_random,
        **policy: Unpack[PolicyOptions],
    ) -> None:
        super().__init__(
            url,
            method=method,
            headers=headers,
            content=content,
            json=json,
            last_event_id=last_event_id,
            hooks={Opened: on_open, Gap: on_gap, Reconnecting: on_reconnecting, Closed: on_closed},
            random=random,
            policy=policy,
        )
        for function in (auth, on_open, on_gap, on_reconnecting, on_closed):
            if inspect.iscoroutinefunction(function):
                raise TypeError(
                    f"expected plain functions in a SyncEventSource, got the coroutine function {function!r}"
                )
        self._auth = auth
        self._store = None if isinstance(last_event_id, str) else last_event_id
        self._client = client
        self._own_client: httpx2.Client | None = None
        self._clock: SyncClock = clock or SystemSyncClock()

        self._turn = threading.Lock()  # of the one who makes the machine go
        self._wake = threading.Event()  # ends a sleep
        self._expired = False  # the watchdog has ended the wait in progress
        self._socket: socket.socket | None = None
        self._response: httpx2.Response | None = None
        self._chunks: Generator[bytes, None, None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ServerSentEvent:
        if not self._turn.acquire(blocking=self._closing):
            raise RuntimeError("expected one thread at a time to iterate a source, got another one")
        try:
            return self._next()
        finally:
            self._turn.release()

    def commit(self) -> None:
        """Take the event in hand as done with, before the next one is asked for: before a ``break``, say."""
        if (save := self._machine.commit()) is not None:
            self._save(save.id)

    def close(self) -> None:
        """End the iteration, from any thread, and let go of the connection. Again is no error."""
        self._closing = True
        self._wake.set()
        self._break_off()
        # Whoever iterates lets go of everything on its way out; if no one does, it is done here.
        if self._turn.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._release()
                self._turn.release()

    def _next(self) -> ServerSentEvent:
        self.commit()
        self._load()
        while True:
            if self._closing:
                self._machine.close()
            action = self._machine.next(self._clock.now())
            match action:
                case Emit(event):
                    return event
                case Stop(error):
                    self._release()
                    raise error or StopIteration
            self._do(action)

    def _end(self) -> None:
        """Do what remains after the end: to save, to tell."""
        self._machine.close()
        while not isinstance(action := self._machine.next(self._clock.now()), Stop):
            if isinstance(action, (Save, Notify)):
                self._do(action)

    def _do(self, action: Action) -> None:
        if self._machine.state is not State.OPEN and not isinstance(action, Follow):
            self._let_go()
        match action:
            case Connect():
                self._reported(lambda: self._connect(action))
            case Follow(seconds):
                self._reported(lambda: self._follow(seconds))
            case Read(seconds):
                self._reported(lambda: self._read(seconds))
            case Sleep(seconds):
                self._clock.sleep(seconds, self._wake)
            case Save(id):
                self._save(id)
            case Notify(notice):
                self._notify(notice)

    # Work that blocks.

    def _reported(self, work: Callable[[], None]) -> None:
        """Do the work and report to the machine when it fails."""
        self._expired = False
        try:
            work()
        except httpx2.UnsupportedProtocol:
            self._machine.interrupted()
            raise
        except FAILURES as error:
            if self._closing:
                self._machine.interrupted()  # our own doing
            elif self._expired or isinstance(error, httpx2.ReadTimeout):
                self._machine.silent(self._clock.now())
            else:
                self._machine.failed(error, self._clock.now())
        except BaseException:
            self._machine.interrupted()
            raise

    def _connect(self, connect: Connect) -> None:
        credentials = credential_headers(self._auth() if self._auth is not None else None)
        client = self._http_client()
        trace = {"trace": self._trace}
        self._send(self._request(client, connect, credentials, connect.seconds, trace), connect.seconds)

    def _follow(self, seconds: float | None) -> None:
        assert self._response is not None, "there is a response that redirects"
        request, stays = redirected(self._response, self._secret)
        self._at_home = self._at_home and stays
        self._let_go()
        self._send(request, seconds)

    def _send(self, request: httpx2.Request, seconds: float | None) -> None:
        auth = httpx2.USE_CLIENT_DEFAULT if self._at_home else None
        with self._clock.watch(seconds, self._expire):
            response = self._http_client().send(request, stream=True, auth=auth, follow_redirects=False)
        self._response = response
        self._socket = _socket_of(response)
        self._responded(response, self._detail(response), self._clock)

    def _read(self, seconds: float | None) -> None:
        assert self._response is not None, "there is a response that streams"
        if self._chunks is None:
            self._chunks = _chunks(self._response)
        self._response.request.extensions.setdefault("timeout", {})["read"] = (
            seconds  # looked at with each read of HTTP/2
        )
        with self._clock.watch(seconds, self._expire):
            data = next(self._chunks, None)
        if data is not None:
            self._machine.received(data, self._clock.now())
        elif self._closing:
            self._machine.interrupted()
        elif self._expired:
            self._machine.silent(self._clock.now())
        else:
            self._machine.ended(self._clock.now())

    def _detail(self, response: httpx2.Response) -> bytes:
        body = b""
        if response.status_code < 400:
            return body
        with suppress(*FAILURES), self._clock.watch(DETAIL_SECONDS, self._expire), closing(_chunks(response)) as chunks:
            for chunk in chunks:
                body += chunk
                if len(body) >= MAX_DETAIL:
                    break
        return body[:MAX_DETAIL]

    # Ending it from outside.

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Take hold of the socket while the request is still on its way."""
        if name.endswith(_STREAM_MADE):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._closing or self._expired:
                self._break_off()

    def _expire(self) -> None:
        self._expired = True
        self._break_off()

    def _break_off(self) -> None:
        if (stream := self._socket) is not None:
            # Not the method of an `ssl.SSLSocket`: that one takes the TLS state away from under the reader.
            with suppress(OSError):
                socket.socket.shutdown(stream, socket.SHUT_RDWR)

    # What belongs to the user.

    def _load(self) -> None:
        if self._store is not None and not self._is_loaded:
            self._machine.last_event_id = self._store.load()
            self._is_loaded = True

    def _save(self, id: str) -> None:
        if self._store is not None:
            self._store.save(id)

    def _notify(self, notice: Notice) -> None:
        self._log(notice)
        hook = self._hooks.get(type(notice))
        if hook is not None:
            hook(notice)

    # What is held.

    def _http_client(self) -> httpx2.Client:
        if self._client is not None:
            return self._client
        if self._own_client is None:
            self._own_client = httpx2.Client(timeout=TIMEOUT, limits=LIMITS)
        return self._own_client

    def _let_go(self) -> None:
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
        self._let_go()
        self._clock.rest()
        client, self._own_client = self._own_client, None
        if client is not None:
            client.close()


def _chunks(response: httpx2.Response) -> Generator[bytes, None, None]:
    # Annotated as an iterator, but a generator; its `close` is needed.
    return cast("Generator[bytes, None, None]", response.iter_bytes())


def _socket_of(response: httpx2.Response) -> socket.socket | None:
    """Return the socket of a response if it has one to itself."""
    stream = response.extensions.get("network_stream")
    if stream is None or response.http_version == "HTTP/2":
        return None
    made = stream.get_extra_info("socket")
    return made if isinstance(made, socket.socket) else None
