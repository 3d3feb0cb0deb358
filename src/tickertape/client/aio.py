"""``EventSource``, the asynchronous source: a loop around the state machine, over ``httpx2.AsyncClient``.

Whatever waits for the network runs in a small task of its own, one at a time, which reports to the
machine itself. So a cancelled ``anext``, as :func:`asyncio.wait_for` makes, costs neither the
connection nor an event: the next one finds the task, or what it has brought.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from random import random as system_random
from typing import Any, Self, TypeAlias, TypeVar, Unpack

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
from .clock import AsyncClock, SystemAsyncClock
from .cursor import AsyncCursorStore, CursorStore, in_threads
from .headers import AsyncAuth, HeaderList, credential_headers, redirected
from .inbox import Gap
from .policy import PolicyOptions
from .problem import DETAIL_SECONDS, MAX_DETAIL
from .source import FAILURES, LIMITS, TIMEOUT, Source

__all__ = ["AsyncHook", "EventSource"]

T = TypeVar("T")

AsyncHook: TypeAlias = Callable[[T], Awaitable[None] | None]


class EventSource(Source):
    """Read an event stream, for as long as it takes, without losing the place in it.

    Iterate it with ``async for``; ``async with`` around that closes it whatever happens. The
    connection is made by the first iteration and made again whenever it is lost. An event counts as
    done with when the next one is asked for: only then is its id sent as ``Last-Event-ID`` and stored.

    Arguments:
        url: of the stream.
        method: of the request.
        headers: of each request, besides ``Accept``, ``Cache-Control`` and ``Last-Event-ID``.
        content: the body, sent again with each request.
        json: the same, as JSON.
        auth: called before each attempt, a function or a coroutine function; gives a bearer token or
            a mapping of headers. They are not sent beyond the origin of ``url``.
        last_event_id: the id after which to begin, or a store that keeps it between runs, such as
            :class:`FileCursor`.
        client: the ``httpx2.AsyncClient`` to use, with its TLS, proxies, HTTP/2, cookies and timeouts;
            it is not closed with the source.
        on_open: called with an :class:`Opened` when a stream begins. Hooks may be coroutine functions;
            what they raise, the iteration raises.
        on_gap: called with a :class:`Gap` when events are missing.
        on_reconnecting: called with a :class:`Reconnecting` before the wait for another attempt.
        on_closed: called with a :class:`Closed` at the end.
        clock: takes the place of the system's clocks in tests.
        random: gives a float from 0 to 1; spreads the delays.
        policy: the arguments of :class:`Policy`: ``retry``, ``max_delay``, ``silence``, ``max_attempts``,
            ``give_up_after``, ``max_redirects``, ``max_event_size``, ``deduplicate``, ``yield_gaps``.

    The iteration ends on status 204 and after :meth:`close`. It raises :class:`StatusError`,
    :class:`ContentTypeError`, :class:`RedirectError` or :class:`EventTooLargeError` for what another
    attempt would meet again, and :class:`GaveUpError` at the limits of attempts and of time. Lost
    connections, status 429 and 5xx are not errors but reasons to try again.

    Follows WHATWG HTML, "Server-sent events".
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        auth: AsyncAuth | None = None,
        last_event_id: str | CursorStore | AsyncCursorStore | None = None,
        client: httpx2.AsyncClient | None = None,
        on_open: AsyncHook[Opened] | None = None,
        on_gap: AsyncHook[Gap] | None = None,
        on_reconnecting: AsyncHook[Reconnecting] | None = None,
        on_closed: AsyncHook[Closed] | None = None,
        clock: AsyncClock | None = None,
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
        self._auth = auth
        self._store = None if last_event_id is None or isinstance(last_event_id, str) else in_threads(last_event_id)
        self._client = client
        self._own_client: httpx2.AsyncClient | None = None
        self._clock: AsyncClock = clock or SystemAsyncClock()

        self._turn = asyncio.Lock()  # of the one who makes the machine go
        self._task: asyncio.Task[Any] | None = None  # the one that iterates
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        self._response: httpx2.Response | None = None
        self._chunks: AsyncGenerator[bytes, None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        if self._task is not None:
            raise RuntimeError("expected one task at a time to iterate a source, got another one")
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        try:
            async with self._turn:
                return await self._next()
        finally:
            self._task = None

    async def commit(self) -> None:
        """Take the event in hand as done with, before the next one is asked for: before a ``break``, say."""
        if (save := self._machine.commit()) is not None:
            await self._save(save.id)

    def close(self) -> None:
        """End the iteration, from any task or thread. Again is no error.

        The iteration lets go of the connection on its way out; without one, :meth:`aclose` does.
        """
        self._closing = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so nothing runs in it
                self._loop.call_soon_threadsafe(self._break_off)

    async def aclose(self) -> None:
        """Close, and wait until everything is let go of. Again is no error."""
        self.close()
        if self._task is not None and self._task is asyncio.current_task():
            return  # called by a hook: the iteration goes on to its end
        async with self._turn:
            try:
                await self._end()
            finally:
                await self._release()

    async def _next(self) -> ServerSentEvent:
        await self.commit()
        await self._load()
        if self._work is not None:
            await self._finish(self._work)
        while True:
            if self._closing:
                self._machine.close()
            action = self._machine.next(self._clock.now())
            match action:
                case Emit(event):
                    return event
                case Stop(error):
                    await self._release()
                    raise error or StopAsyncIteration
            await self._do(action)

    async def _end(self) -> None:
        """Break off what is going on, and do what remains after the end: to save, to tell."""
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await asyncio.wait((work,))
            if not work.cancelled():
                work.exception()  # taken note of, since nobody asks for its result any more
        self._machine.close()
        while not isinstance(action := self._machine.next(self._clock.now()), Stop):
            if isinstance(action, (Save, Notify)):
                await self._do(action)

    async def _do(self, action: Action) -> None:
        if self._machine.state is not State.OPEN and not isinstance(action, Follow):
            await self._let_go()
        match action:
            case Connect():
                await self._start(self._connect(action))
            case Follow(seconds):
                await self._start(self._follow(seconds))
            case Read(seconds):
                await self._start(self._read(seconds))
            case Sleep(seconds):
                await self._start(self._clock.sleep(seconds))
            case Save(id):
                await self._save(id)
            case Notify(notice):
                await self._notify(notice)

    # The work of one task.

    async def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = asyncio.create_task(self._reported(work))
        await self._finish(self._work)

    async def _finish(self, work: asyncio.Task[None]) -> None:
        await asyncio.wait((work,))  # leaves the task alone when this is cancelled
        self._work = None
        if not (work.cancelled() and self._closing):
            work.result()

    def _break_off(self) -> None:
        if self._work is not None:
            self._work.cancel()

    async def _reported(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work and report to the machine when it fails."""
        try:
            await work
        except httpx2.UnsupportedProtocol:
            self._machine.interrupted()
            raise
        except FAILURES as error:
            self._machine.failed(error, self._clock.now())
        except BaseException:
            self._machine.interrupted()
            raise

    async def _connect(self, connect: Connect) -> None:
        credentials = await self._credentials()
        client = self._http_client()
        await self._send(self._request(client, connect, credentials, None, {}), connect.seconds)

    async def _follow(self, seconds: float | None) -> None:
        assert self._response is not None, "there is a response that redirects"
        request, stays = redirected(self._response, self._secret)
        self._at_home = self._at_home and stays
        await self._let_go()
        await self._send(request, seconds)

    async def _send(self, request: httpx2.Request, seconds: float | None) -> None:
        auth = httpx2.USE_CLIENT_DEFAULT if self._at_home else None
        try:
            async with self._clock.timeout(seconds):
                response = await self._http_client().send(request, stream=True, auth=auth, follow_redirects=False)
        except TimeoutError:
            self._machine.silent(self._clock.now())
            return
        self._response = response
        self._responded(response, await self._detail(response), self._clock)

    async def _read(self, seconds: float | None) -> None:
        assert self._response is not None, "there is a response that streams"
        if self._chunks is None:
            self._chunks = self._response.aiter_bytes()
        try:
            async with self._clock.timeout(seconds):
                data = await anext(self._chunks, None)
        except TimeoutError:
            self._machine.silent(self._clock.now())
            return
        if data is None:
            self._machine.ended(self._clock.now())
        else:
            self._machine.received(data, self._clock.now())

    async def _detail(self, response: httpx2.Response) -> bytes:
        body = b""
        if response.status_code < 400:
            return body
        with suppress(TimeoutError, *FAILURES):
            async with self._clock.timeout(DETAIL_SECONDS), aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) >= MAX_DETAIL:
                        break
        return body[:MAX_DETAIL]

    async def _credentials(self) -> HeaderList:
        credentials = self._auth() if self._auth is not None else None
        return credential_headers(await credentials if inspect.isawaitable(credentials) else credentials)

    # What belongs to the user.

    async def _load(self) -> None:
        if self._store is not None and not self._is_loaded:
            self._machine.last_event_id = await self._store.load()
            self._is_loaded = True

    async def _save(self, id: str) -> None:
        if self._store is not None:
            await self._store.save(id)

    async def _notify(self, notice: Notice) -> None:
        self._log(notice)
        hook = self._hooks.get(type(notice))
        result = hook(notice) if hook is not None else None
        if inspect.isawaitable(result):
            await result

    # What is held.

    def _http_client(self) -> httpx2.AsyncClient:
        if self._client is not None:
            return self._client
        if self._own_client is None:
            self._own_client = httpx2.AsyncClient(timeout=TIMEOUT, limits=LIMITS)
        return self._own_client

    async def _let_go(self) -> None:
        """Close the response, and with it the connection of an unfinished stream."""
        chunks, self._chunks = self._chunks, None
        response, self._response = self._response, None
        with suppress(*FAILURES):
            if chunks is not None:
                await chunks.aclose()
            if response is not None:
                await response.aclose()

    async def _release(self) -> None:
        await self._let_go()
        client, self._own_client = self._own_client, None
        if client is not None:
            await client.aclose()
