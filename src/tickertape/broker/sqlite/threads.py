"""The two threads on which an SQLite log is written and read, and how they tell the event loop."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from ...errors import BrokerError
from ...wire import Cursor, Draft
from .log import LogFile

__all__ = ["Reader", "Signal", "Writer"]

T = TypeVar("T")

_LOOK: Final = 0.008
"""Seconds between two looks for the appends of other processes, while there are tails: they are to be seen
within 10 ms. It takes 1 to 2 % of a core of a small virtual machine, most of it for the timer."""

_MOVED: Final = 20
"""Looks between two checks that the file is still in its place."""

_GROUP: Final = 1000
"""Drafts that are committed together at most: some milliseconds, for which other processes' writers wait."""

_PAUSE: Final = 0.02
"""Seconds between two steps of trimming while nothing is appended."""

_IDLE: Final = (0.05, 10.0)
"""Seconds between two looks for what became too old: not to be busy with it, and to be punctual enough."""


class Signal:
    """Wake those who wait for something to change; belongs to the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something changed."""
        self.count += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, seen: int) -> None:
        """Wait until something has changed since the count was ``seen``."""
        while self.count == seen:
            await self._event.wait()


class _Job:
    """Something to be done on a thread, and the future that waits for it."""

    __slots__ = ("arguments", "done", "function")

    def __init__(self, done: asyncio.Future[Any], function: Callable[..., Any] | None, arguments: tuple[Any, ...]):
        self.done = done
        self.function = function
        self.arguments = arguments


class _Thread:
    """Do one job after the other; what they raise is raised by who waits for them."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, file: LogFile, signal: Signal) -> None:
        self._loop = loop
        self._file = file
        self._signal = signal
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopped: asyncio.Future[None] | None = None
        # A program that does not close its broker ends all the same.
        self._thread = threading.Thread(target=self._run, name=f"tickertape-sqlite-{name}", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function on the thread."""
        result: T = await self._submit(function, *arguments)
        return result

    async def stop(self) -> None:
        """Let the thread finish what it was asked to do, and end."""
        if self._stopped is None:
            self._stopped = self._loop.create_future()
            self._jobs.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    def _submit(self, function: Callable[..., Any] | None, *arguments: Any) -> asyncio.Future[Any]:
        if self._stopped is not None:
            raise BrokerError("expected an open broker, got one that was closed")
        done = self._loop.create_future()
        self._jobs.put(_Job(done, function, arguments))
        return done

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._file.close()
            self._tell(self._end)

    def _work(self) -> None:
        raise NotImplementedError

    def _do(self, job: _Job) -> None:
        if job.function is None or job.done.cancelled():
            return
        result, error = None, None
        try:
            result = job.function(*job.arguments)
        except Exception as raised:
            error = raised
        self._tell(_settle, [(job.done, result, error)])

    def _tell(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Call a function in the event loop; tell whether it is still there."""
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    def _end(self) -> None:
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)


class Writer(_Thread):
    """Append: what came while the last transaction was committed is written together in the next.

    Arguments:
        loop: the event loop that is told.
        file: what is written to.
        signal: set after each commit.
        idle: seconds after which to look for what became too old, about; ``None`` for never.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, file: LogFile, signal: Signal, idle: float | None) -> None:
        self._idle = None if idle is None else min(max(idle, _IDLE[0]), _IDLE[1])
        super().__init__("writer", loop, file, signal)

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[list[Cursor]]:
        """Append a batch; done when it is stored."""
        return self._submit(None, drafts)

    def _work(self) -> None:
        more = False
        while True:
            try:
                job = self._jobs.get(timeout=_PAUSE if more else self._idle)
            except queue.Empty:
                more = self._trim()
                continue
            if job is None:
                return
            if job.function is not None:
                self._do(job)
                continue
            group, following = self._gather(job)
            self._commit([each for each in group if not each.done.cancelled()])
            if following is _STOP:
                return
            if following is not None:
                self._do(following)

    def _gather(self, job: _Job) -> tuple[list[_Job], _Job | None]:
        """Return the appends that are waiting, and what came behind them and is none."""
        group, count = [job], len(job.arguments[0])
        while count < _GROUP:
            try:
                following = self._jobs.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return group, _STOP
            if following.function is not None:
                return group, following
            group.append(following)
            count += len(following.arguments[0])
        return group, None

    def _commit(self, group: list[_Job]) -> None:
        try:
            stored = self._file.append([job.arguments[0] for job in group])
            results = [(job.done, cursors, None) for job, cursors in zip(group, stored, strict=True)]
        except Exception as error:
            self._tell(_settle, [(job.done, None, error) for job in group])
            return
        self._tell(self._committed, results)

    def _committed(self, results: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
        self._signal.set()
        _settle(results)

    def _trim(self) -> bool:
        try:
            return self._file.trim()
        except BrokerError:
            return False  # the next append says why


class Reader(_Thread):
    """Read, and look for the appends of other processes while there are tails."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file: LogFile, signal: Signal) -> None:
        self._tails = 0
        self._looks = 0
        super().__init__("reader", loop, file, signal)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look for appends."""
        self._tails += 1
        try:
            yield
        finally:
            self._tails -= 1

    def _work(self) -> None:
        looked = 0.0
        while True:
            try:
                job = self._jobs.get(timeout=_LOOK if self._tails else None)
                if job is None:
                    return
                self._do(job)
            except queue.Empty:
                pass
            if self._tails and time.monotonic() >= looked + _LOOK:
                looked = time.monotonic()
                if self._look() and not self._tell(self._signal.set):
                    return

    def _look(self) -> bool:
        self._looks += 1
        try:
            return self._file.changed() or (self._looks % _MOVED == 0 and self._file.moved())
        except (sqlite3.Error, BrokerError):
            return True  # the tails read, and say why they cannot


_STOP: Final = _Job.__new__(_Job)
"""Stands for the end of the thread, behind the last appends."""


def _settle(results: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
    for done, result, error in results:
        if done.done():
            continue
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(_copy(error) if len(results) > 1 else error)


def _copy(error: Exception) -> Exception:
    """Return an error of its own for each caller: a traceback that is shared grows with every one that raises it."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
