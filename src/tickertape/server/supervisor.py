"""Several processes that serve one application, and the parent that keeps them going.

Each worker holds two pipes. By the one it says that it serves, and then each second that its loop turns.
On the other nothing is ever said: its end is the end of the worker, whether the parent has closed it or
was killed, so no worker outlives its parent. A worker that ends by itself is replaced: at once if it
has served for a while, otherwise after a pause that doubles. SIGHUP replaces all of them, one after the
other, each when its successor serves.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, Final

from uvicorn.config import STARTUP_FAILURE

from ..asgi import ASGIApp
from .run import DEFAULT_GRACE, NotStartedError
from .worker import READY, Job, work

__all__ = ["HUNG", "LONGEST_PAUSE", "pause_before", "run_workers"]

logger = logging.getLogger("tickertape.server")

FIRST_PAUSE: Final = 0.25
"""Seconds before a worker is started anew that has just begun, for the first time."""

LONGEST_PAUSE: Final = 30.0
"""What the pause grows to: some processor time for what fails, and not much to wait when the cause is gone."""

PROVEN: Final = 5.0
"""Seconds of service after which a worker's end is not held against its successor."""

HUNG: Final = 30.0
"""Seconds in which the loop of a worker has not turned once: its clients are better off elsewhere."""

LAST_WORDS: Final = 5.0
"""Seconds on top of the grace after which a worker that does not end is killed."""

_TURN: Final = 0.5
"""Seconds between two looks at the workers when none has anything to say."""

_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and locks


def pause_before(failures: int) -> float:
    """Return the seconds to wait before a worker is started that has failed so many times in a row."""
    return 0.0 if failures == 0 else min(FIRST_PAUSE * 2 ** min(failures - 1, 30), LONGEST_PAUSE)


def run_workers(
    factory: Callable[[], ASGIApp],
    listener: socket.socket,
    *,
    workers: int,
    grace: int = DEFAULT_GRACE,
    access_log: bool = False,
    hung_after: float = HUNG,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Serve the application in several processes; as :func:`~tickertape.server.run`, but for four arguments.

    Arguments:
        factory: called in each process, to which it is brought by pickling; it sets up logging there.
        listener: from :func:`~tickertape.server.listen`, told of the workers or not.
        workers: the number of processes; one that ends by itself is started anew.
        hung_after: seconds after which one whose loop does not turn is killed, and started anew.

    Raises:
        NotStartedError: none of the workers can start.
    """
    job = Job(factory, listener, grace, access_log)
    with listener, contextlib.closing(_Supervisor(job, workers, hung_after, on_start)) as supervisor:
        supervisor.run()


class _Worker:
    """A process with its pipes."""

    def __init__(self, job: Job, name: str) -> None:
        lifeline, self.lifeline = _SPAWN.Pipe(duplex=False)
        self.pulse, pulse = _SPAWN.Pipe(duplex=False)
        self.process = _SPAWN.Process(target=work, args=(job, lifeline, pulse), name=name)
        with lifeline, pulse, _signals_held():
            self.process.start()
        self.served_since: float | None = None
        self.silence = 0.0

    def __str__(self) -> str:
        return f"{self.process.name} (pid {self.process.pid})"

    def hear(self, elapsed: float) -> None:
        """Take in what it has said, ``elapsed`` seconds after the last time."""
        self.silence += elapsed
        try:
            while not self.pulse.closed and self.pulse.poll():
                self.silence = 0.0
                if self.pulse.recv_bytes() == READY:
                    self.served_since = time.monotonic()
        except (EOFError, OSError):
            self.pulse.close()

    def end(self) -> None:
        """Let it drain, and end; what it says does not matter any more."""
        self.lifeline.close()
        self.pulse.close()

    def reap(self) -> int:
        """Wait for it, and return its exit code."""
        self.process.join()
        self.lifeline.close()
        self.pulse.close()
        assert self.process.exitcode is not None
        return self.process.exitcode


class _Slot:
    """The place of one worker: who holds it, who is to, and when the next is started."""

    def __init__(self, number: int) -> None:
        self.name = f"worker {number}"
        self.worker: _Worker | None = None
        self.successor: _Worker | None = None
        self.failures = 0
        self.due = 0.0


class _Supervisor:
    def __init__(self, job: Job, workers: int, hung_after: float, on_start: Callable[[], None]) -> None:
        self._job = job
        self._slots = [_Slot(number) for number in range(1, workers + 1)]
        self._leaving: list[_Worker] = []
        self._to_replace: list[_Slot] = []
        self._hung_after = hung_after
        self._on_start = on_start
        self._started = False
        self._signals: list[int] = []
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def run(self) -> None:
        """Keep workers until a signal says that it is enough."""
        with self._taking_signals():
            before = time.monotonic()
            while not self._told_to_end():
                self._fill(time.monotonic())
                self._wait()
                now = time.monotonic()
                # One turn at most: a machine that slept, or a parent that was stopped, has heard nobody.
                self._look(now, min(now - before, _TURN))
                before = now
            self._drain()

    def close(self) -> None:
        """End what is left, without patience if there was an error."""
        for worker in self._workers():
            worker.process.kill()
            worker.reap()
        self._woken.close()
        self._waker.close()

    def _workers(self) -> list[_Worker]:
        held = [worker for slot in self._slots for worker in (slot.worker, slot.successor) if worker]
        return held + self._leaving

    def _fill(self, now: float) -> None:
        """Start what is due."""
        for slot in self._slots:
            if slot.worker is None and slot.due <= now:
                slot.worker = _Worker(self._job, slot.name)
        if self._to_replace and self._to_replace[0].successor is None:
            slot = self._to_replace[0]
            slot.successor = _Worker(self._job, slot.name)

    def _wait(self) -> None:
        sources: list[Any] = [self._woken]
        for worker in self._workers():
            sources.append(worker.process.sentinel)
            if not worker.pulse.closed:
                sources.append(worker.pulse)
        wait(sources, self._pause())

    def _pause(self) -> float:
        due = [slot.due for slot in self._slots if slot.worker is None]
        return max(0.0, min([_TURN, *(moment - time.monotonic() for moment in due)]))

    def _look(self, now: float, elapsed: float) -> None:
        """Hear all workers, and see who has ended."""
        for slot in self._slots:
            if slot.worker is not None:
                self._look_at(slot, slot.worker, now, elapsed)
            if slot.successor is not None:
                self._look_at_successor(slot, slot.successor, elapsed)
        self._reap_leaving()
        if not self._started:
            self._see_start()

    def _look_at(self, slot: _Slot, worker: _Worker, now: float, elapsed: float) -> None:
        worker.hear(elapsed)
        if worker.served_since is not None and worker.silence > self._hung_after:
            logger.error("%s has done nothing for %.0f s, and is killed", worker, worker.silence)
            worker.process.kill()
            worker.process.join()
        if worker.process.is_alive():
            return
        slot.worker = None
        proven = worker.served_since is not None and now - worker.served_since >= PROVEN
        slot.failures = 0 if proven else slot.failures + 1
        pause = pause_before(slot.failures)
        slot.due = now + pause
        logger.warning("%s %s; another one starts %s", worker, _end_of(worker), f"in {pause:g} s" if pause else "now")

    def _look_at_successor(self, slot: _Slot, successor: _Worker, elapsed: float) -> None:
        successor.hear(elapsed)
        if successor.served_since is not None:
            if slot.worker is not None:
                slot.worker.end()
                self._leaving.append(slot.worker)
            slot.worker, slot.successor = successor, None
            self._to_replace.remove(slot)
            logger.info("%s has taken over", successor)
        elif not successor.process.is_alive():
            slot.successor = None
            self._to_replace.clear()
            logger.error("%s %s; the others stay as they are", successor, _end_of(successor))

    def _reap_leaving(self) -> None:
        for worker in [worker for worker in self._leaving if not worker.process.is_alive()]:
            self._leaving.remove(worker)
            worker.reap()

    def _see_start(self) -> None:
        serving = [slot for slot in self._slots if slot.worker is not None and slot.worker.served_since is not None]
        if not serving and all(slot.failures for slot in self._slots):
            raise NotStartedError
        if serving and all(slot in serving or slot.failures for slot in self._slots):
            self._started = True
            self._on_start()

    def _drain(self) -> None:
        """Let all workers end at the same time, for as long as they may take or until Ctrl-C says again to end."""
        # While it is open, connections go on to come, and nobody takes them.
        self._job.listener.close()
        for worker in self._workers():
            worker.end()
        deadline = time.monotonic() + self._job.grace + LAST_WORDS
        while living := [worker for worker in self._workers() if worker.process.is_alive()]:
            left = deadline - time.monotonic()
            if left < 0 or signal.SIGINT in self._heard():
                logger.error("killing what has not ended: %s", ", ".join(map(str, living)))
                break
            wait([self._woken, *(worker.process.sentinel for worker in living)], min(left, _TURN))

    @contextlib.contextmanager
    def _taking_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)
            with contextlib.suppress(OSError):
                self._waker.send(b"\0")

        numbers = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            numbers.append(signal.SIGHUP)
        former: dict[int, Any] = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _heard(self) -> list[int]:
        """Return the signals that came since the last time."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        heard, self._signals = self._signals, []
        return heard

    def _told_to_end(self) -> bool:
        for number in self._heard():
            # A terminal that is closed sends SIGHUP to those whom it started.
            if number in (signal.SIGINT, signal.SIGTERM) or os.isatty(0):
                return True
            if not self._to_replace:
                self._to_replace = list(self._slots)
        return False


def _end_of(worker: _Worker) -> str:
    """Say how a worker has ended."""
    code = worker.reap()
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "could not start" if code == STARTUP_FAILURE else f"has ended with status {code}"


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back, from a new process too until it is ready for them: Ctrl-C is for parent and children."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # it is started with the first process otherwise, and lets signals through
    former = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
