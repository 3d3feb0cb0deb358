"""``EventSource``, the asynchronous source: a loop around the state machine, over ``httpx2.AsyncClient``.

Each attempt runs in a separate task. This task sends the request, reads the response and closes it, because a
transport may bind a cancel scope, a context variable or a span to the task that reads. It does one step at a time,
when the iteration asks for it. So a cancelled ``anext``, as :func:`asyncio.wait_for` makes, costs neither the
connection nor an event: the next call waits for the same step.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from random import random as system_random
from typing import Any, Final, Self, TypeAlias, TypeVar, Unpack

import httpx2

from ..timing import Clock, sleep
from ..wire import Gap, ReceivedEvent, TopicsChange
from .http import (
    DETAIL_SECONDS,
    MAX_DETAIL,
    Answer,
    AsyncAuth,
    AsyncRenewingAuth,
    HeaderList,
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
from .stores import AsyncCursorStore, CursorStore, in_threads
from .topics import Change

SLICE: Final = 16 * 1024
"""Bytes that are decoded in one turn of the event loop: some 10 ms for the worst bytes, which are all line breaks.
A compressed response can give a mebibyte at once."""

T = TypeVar("T")

AsyncHook: TypeAlias = Callable[[T], Awaitable[None] | None]


class EventSource(Source):
    """Read an event stream and resume it after every interruption.

    Iterate it with ``async for``. An ``async with`` block around the loop closes it in any case. The first iteration
    connects, and a lost connection is made again. An event counts as handled when the next one is
    asked for: only then is its id stored, and sent as ``Last-Event-ID`` on a reconnect.

    Arguments:
        url: of the stream.
        method: of the request.
        headers: of each request, besides ``Accept``, ``Cache-Control`` and ``Last-Event-ID``. A redirect to another
            origin loses those whose names suggest a secret, such as ``Authorization`` and ``X-API-Key``.
        content: the body, sent with each request.
        json: the same, as JSON.
        auth: a function or a coroutine function that is called before each attempt, and again if a reconnect gets
            status 401 or the hub reports that the credentials have expired. It returns a bearer token or a mapping of
            headers. They are not sent to other origins. If it has a parameter ``refused``, that is True then: return
            other credentials than the last time. A second 401 ends the source with a :class:`StatusError`.
        last_event_id: the id to resume from, or a store that keeps it between runs, such as :class:`FileCursor`.
        until: a function that returns True for the last event, or the data of a mark such as ``"[DONE]"``. The event
            that the function chooses is yielded; the mark is not. The iteration then ends, and does not reconnect.
        client: the ``httpx2.AsyncClient`` to use, with its TLS, proxies, HTTP/2, cookies and timeouts.
            The source does not close it.
        on_open: called with an :class:`Opened` when a stream begins. Hooks may be coroutine functions.
            The iteration raises what they raise.
        on_gap: called with a :class:`Gap` when events are missing.
        on_topics: called with a :class:`TopicsChange` when the topics have changed, in its place among the events.
        on_comment: called with the text of each comment, for example of a heartbeat, in its place among the events.
        on_reconnecting: called with a :class:`Reconnecting` before the wait for another attempt.
        on_closed: called with a :class:`Closed` at the end.
        clock: replaces the clock of the event loop in tests, for example by a :class:`~tickertape.testing.FakeClock`.
        random: returns a float from 0 to 1; spreads the delays.
        policy: the arguments of :class:`Policy`: ``reconnect``, ``retry``, ``max_delay``, ``silence``,
            ``max_attempts``, ``give_up_after``, ``max_redirects``, ``max_event_size``, ``deduplicate``, ``yield_gaps``.

    The iteration ends at ``stream:end`` (see :attr:`end`), on status 204 and after :meth:`close`. It raises
    :class:`StatusError`, :class:`ContentTypeError`, :class:`RedirectError` or :class:`EventTooLargeError` if another
    attempt would fail in the same way, and :class:`GaveUpError` at the limits of attempts and of time. Lost
    connections, status 429 and 5xx lead to a reconnect.

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
        auth: AsyncAuth | AsyncRenewingAuth | None = None,
        last_event_id: str | CursorStore | AsyncCursorStore | None = None,
        until: Callable[[ReceivedEvent], bool] | str | None = None,
        client: httpx2.AsyncClient | None = None,
        on_open: AsyncHook[Opened] | None = None,
        on_gap: AsyncHook[Gap] | None = None,
        on_topics: AsyncHook[TopicsChange] | None = None,
        on_comment: AsyncHook[str] | None = None,
        on_reconnecting: AsyncHook[Reconnecting] | None = None,
        on_closed: AsyncHook[Closed] | None = None,
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
        self._auth: Callable[..., Any] | None = auth
        self._store = None if last_event_id is None or isinstance(last_event_id, str) else in_threads(last_event_id)
        self._client = client
        self._own_client: httpx2.AsyncClient | None = None
        self._given_clock = clock

        self._turn = asyncio.Lock()  # held while the machine is driven
        self._changing = asyncio.Lock()  # held during a change of topics
        self._task: asyncio.Task[Any] | None = None  # the task that iterates
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()  # ends the sleep in progress
        self._attempt: _Attempt | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedEvent:
        if self._task is not None:
            raise RuntimeError("another task is already iterating this source")
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        try:
            async with self._turn:
                return await self._next()
        finally:
            self._task = None

    async def commit(self) -> None:
        """Count the current event as handled now, for example before a ``break``."""
        if (save := self._machine.commit()) is not None:
            await self._save(save.id)

    def close(self) -> None:
        """End the iteration, from any task or thread. May be called again.

        The iteration closes the connection when it ends. Without an iteration, :meth:`aclose` does.
        """
        self._closing = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so nothing runs in it
                self._loop.call_soon_threadsafe(self._interrupt)

    async def subscribe(self, *topics: str, last: int = 0) -> str | None:
        """Add topics to the stream, without a new connection if the hub allows it. Nothing is lost or repeated.

        A hub sends the id that this needs if the URL has ``subscription=true``. Otherwise, and if the stream has no
        connection or the server cannot change it, the source opens the stream again after the last event that was
        handled. So do the first change and a server that is no hub. Any task may call it, also the one that
        iterates.

        Arguments:
            topics: topics or patterns. Those that the stream has are ignored.
            last: past events of the added topics to send before the next event, 0 to 1,000. They have no id, and
                do not come if the stream is opened again.

        Returns:
            The cursor after which the stream has the events of the topics; ``None`` if the stream is opened again.
            The next attempts have the new topics in any case.

        Raises:
            UnauthorizedError: the credentials are not accepted. No topic has changed, as after all of these.
            ForbiddenError: they do not cover the topics. If the stream is opened again, the iteration raises
                :class:`StatusError` instead.
            InvalidTopicError: a pattern breaks the syntax, or there are too many.
            SubscriptionBusyError: the hub has too many changes to do. Try again.
            StatusError: the server refused the change for another reason.
            RuntimeError: the source is closed.
        """
        return await self._change(Change.create(topics, (), last))

    async def unsubscribe(self, *topics: str) -> str | None:
        """Remove topics from the stream, as they were added. Works, returns and raises as :meth:`subscribe`.

        The last topic cannot be removed: close the source instead.
        """
        return await self._change(Change.create((), topics, 0))

    async def aclose(self) -> None:
        """Close, and wait until everything is released. May be called again."""
        self.close()
        if self._task is not None and self._task is asyncio.current_task():
            return  # called by a hook: the iteration ends by itself
        async with self._turn:
            try:
                await self._end()
            finally:
                await self._release()

    @property
    def _clock(self) -> Clock:
        return self._given_clock or asyncio.get_running_loop()

    async def _next(self) -> ReceivedEvent:
        await self.commit()
        await self._load()
        await self._finish_step()
        while True:
            if self._restarting:
                reason, self._restarting = self._restarting, ""
                self._machine.restart(self._clock.time(), reason)
            if self._closing:
                self._machine.close()
            action = self._machine.next(self._clock.time())
            match action:
                case Emit(event):
                    return event
                case Stop(error):
                    await self._release()
                    raise error or StopAsyncIteration
            await self._do(action)

    async def _end(self) -> None:
        """Stop the attempt in progress, and do what remains: save, notify."""
        await self._end_attempt()
        self._machine.close()
        while not isinstance(action := self._machine.next(self._clock.time()), Stop):
            if isinstance(action, (Save, Notify)):
                await self._do(action)

    async def _do(self, action: Action) -> None:
        if self._machine.state is not State.OPEN and not isinstance(action, Follow):
            await self._end_attempt()
        match action:
            case Connect():
                self._attempt = _Attempt(self)
                await self._step(self._connect(self._attempt, action))
            case Follow(seconds) if self._attempt is not None:
                await self._step(self._follow(self._attempt, seconds))
            case Read(seconds) if self._attempt is not None:
                await self._step(self._read(self._attempt, seconds))
            case Sleep(until):
                await self._sleep(until)
            case Save(id):
                await self._save(id)
            case Notify(notice):
                await self._notify(notice)
            case Warn(text):
                self._warn(text)

    async def _sleep(self, until: float) -> None:
        self._awake.clear()
        if not self._closing and not self._restarting:
            await sleep(self._clock, until - self._clock.time(), self._awake)

    def _restart(self, reason: str) -> None:
        self._restarting = reason
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, so nothing runs in it
                self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        self._awake.set()
        if self._attempt is not None:
            self._attempt.interrupt()

    # Steps of an attempt, in its task.

    async def _step(self, step: Coroutine[Any, Any, None]) -> None:
        assert self._attempt is not None, "a step belongs to an attempt"
        self._attempt.start(self._reported(step))
        if self._closing or self._restarting:
            self._attempt.interrupt()  # called while the last attempt was closed
        await self._finish_step()

    async def _finish_step(self) -> None:
        if self._attempt is not None:
            await self._attempt.finish()

    async def _end_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            await attempt.end()

    async def _reported(self, step: Coroutine[Any, Any, None]) -> None:
        """Do a step, and report its failure to the machine."""
        try:
            await step
        except httpx2.UnsupportedProtocol:
            self._machine.interrupted()
            raise
        except FAILURES as error:
            self._machine.failed(error, self._clock.time())
        except BaseException:
            self._machine.interrupted()
            raise

    async def _connect(self, attempt: _Attempt, connect: Connect) -> None:
        credentials = await self._credentials(connect.refused)
        request = self._request(self._http_client(), connect, credentials, None, {})
        await self._send(attempt, request, connect.seconds)

    async def _follow(self, attempt: _Attempt, seconds: float | None) -> None:
        assert attempt.response is not None, "there is a response that redirects"
        request, same_origin = redirect_request(attempt.response, self._secret)
        self._same_origin = self._same_origin and same_origin
        await attempt.close_response()
        await self._send(attempt, request, seconds)

    async def _send(self, attempt: _Attempt, request: httpx2.Request, seconds: float | None) -> None:
        auth = httpx2.USE_CLIENT_DEFAULT if self._same_origin else None
        client = self._http_client()
        try:
            async with _deadline(self._clock, seconds):
                attempt.response = await client.send(request, stream=True, auth=auth, follow_redirects=False)
        except TimeoutError:
            self._machine.silent(self._clock.time())
            return
        detail = await self._detail(attempt) if attempt.response.status_code >= 400 else b""
        self._responded(attempt.response, detail, self._clock.time())

    async def _read(self, attempt: _Attempt, seconds: float | None) -> None:
        try:
            async with _deadline(self._clock, seconds):
                data = await attempt.read()
        except TimeoutError:
            self._machine.silent(self._clock.time())
            return
        if data is None:
            self._machine.ended(self._clock.time())
        else:
            self._machine.received(data, self._clock.time())

    # Changes of topics.

    async def _change(self, change: Change) -> str | None:
        async with self._changing:
            patterns, subscription = self._plan_change(change)
            answer: Answer | Exception = LookupError("no id")
            if subscription is not None:
                answer = await self._send_change(change, subscription)
            return self._changed(patterns, subscription, answer)

    async def _send_change(self, change: Change, subscription: str) -> Answer | Exception:
        client = self._http_client()
        try:
            for refused in (False, True) if self._tells_refusals else (False,):
                request = self._change_request(client, change, subscription, await self._credentials(refused))
                response = await client.send(request, follow_redirects=False)
                if response.status_code != HTTPStatus.UNAUTHORIZED:
                    break
        except httpx2.UnsupportedProtocol:
            raise
        except FAILURES as error:
            return error
        return Answer(response.status_code, dict(response.headers), response.content)

    async def _detail(self, attempt: _Attempt) -> bytes:
        body = b""
        with suppress(TimeoutError, *FAILURES):
            async with _deadline(self._clock, DETAIL_SECONDS):
                while len(body) < MAX_DETAIL and (data := await attempt.read()) is not None:
                    body += data
        return body[:MAX_DETAIL]

    async def _credentials(self, refused: bool) -> HeaderList:
        arguments = {"refused": refused} if self._tells_refusals else {}
        credentials = self._auth(**arguments) if self._auth is not None else None
        return credential_headers(await credentials if inspect.isawaitable(credentials) else credentials)

    # The user's callables.

    async def _load(self) -> None:
        if self._store is not None and not self._is_loaded:
            self._loaded(await self._store.load())

    async def _save(self, id: str) -> None:
        if self._store is not None:
            await self._store.save(id)

    async def _notify(self, notice: Notice) -> None:
        self._log(notice)
        hook = self._hooks.get(type(notice))
        result = hook(notice) if hook is not None else None
        if inspect.isawaitable(result):
            await result

    # Resources.

    def _http_client(self) -> httpx2.AsyncClient:
        if self._client is not None:
            return self._client
        if self._own_client is None:
            self._own_client = httpx2.AsyncClient(timeout=TIMEOUT, limits=LIMITS)
        return self._own_client

    async def _release(self) -> None:
        await self._end_attempt()
        client, self._own_client = self._own_client, None
        if client is not None:
            await client.aclose()


class _Attempt:
    """A task that does the steps of one attempt, one after the other, and closes the response at the end.

    Arguments:
        owner: when it is garbage, the attempt ends.
    """

    def __init__(self, owner: EventSource) -> None:
        self.response: httpx2.Response | None = None
        self._slices: AsyncGenerator[bytes, None] | None = None
        self._steps: asyncio.Queue[tuple[Coroutine[Any, Any, None], asyncio.Future[None]] | None] = asyncio.Queue()
        self._done: asyncio.Future[None] | None = None  # of a step that was not waited for to its end
        self._interrupted = False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())
        # A task that waits in a reference cycle with its source would be destroyed while it is pending.
        self._finalizer = weakref.finalize(owner, self._abandon)
        self._finalizer.atexit = False

    def start(self, step: Coroutine[Any, Any, None]) -> None:
        """Begin a step."""
        self._done = self._loop.create_future()
        self._steps.put_nowait((step, self._done))

    async def finish(self) -> None:
        """Wait for the current step, if there is one, and raise its error. A cancelled wait does not stop the step."""
        if self._done is None:
            return
        await asyncio.wait((self._done,))
        done, self._done = self._done, None
        if not (done.cancelled() and self._interrupted):
            done.result()

    def interrupt(self) -> None:
        """Cancel the current step, if there is one."""
        if self._done is not None:
            self._interrupted = True
            self._task.cancel()

    async def end(self) -> None:
        """Cancel the current step, close the response and end the task."""
        self._finalizer.detach()
        self.interrupt()
        self._steps.put_nowait(None)
        await asyncio.wait((self._task,))
        if self._done is not None and not self._done.cancelled():
            self._done.exception()  # retrieved, because no caller will wait for this step
        if not self._task.cancelled():
            self._task.result()

    async def read(self) -> bytes | None:
        """Return the next bytes of the response, ``None`` at its end."""
        assert self.response is not None, "there is a response to read"
        if self._slices is None:
            self._slices = _in_slices(self.response)
        return await anext(self._slices, None)

    async def close_response(self) -> None:
        """Close the response, and with it the connection of an unfinished stream."""
        slices, self._slices = self._slices, None
        response, self.response = self.response, None
        with suppress(*FAILURES):
            if slices is not None:
                await slices.aclose()
            if response is not None:
                await response.aclose()

    async def _run(self) -> None:
        try:
            while (entry := await self._steps.get()) is not None:
                await self._run_step(*entry)
                del entry  # the step refers to the source
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
        finally:
            await self.close_response()

    async def _run_step(self, step: Coroutine[Any, Any, None], done: asyncio.Future[None]) -> None:
        try:
            await step
        except Exception as error:
            done.set_exception(error)
        except BaseException:
            done.cancel()
            raise
        else:
            done.set_result(None)

    def _abandon(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._steps.put_nowait, None)


async def _in_slices(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    async with aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            for start in range(0, len(chunk), SLICE):
                yield chunk[start : start + SLICE]


@asynccontextmanager
async def _deadline(clock: Clock, seconds: float | None) -> AsyncIterator[None]:
    """Cancel the block after some seconds and raise :exc:`TimeoutError`: :func:`asyncio.timeout` by any clock."""
    if seconds is None:
        yield
        return
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    cancelling = task.cancelling()
    is_expired = False

    def expire() -> None:
        nonlocal is_expired
        is_expired = True
        task.cancel()

    timer = clock.call_at(clock.time() + seconds, expire)
    try:
        yield
    except asyncio.CancelledError:
        if is_expired and task.uncancel() <= cancelling:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
