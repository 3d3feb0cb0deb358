"""Several processes that serve one application, and the parent process that supervises them.

Each worker has two pipes. On the *pulse* it reports that it serves, and then once per second that its event loop runs.
The *lifeline* carries new settings. It ends when the parent closes it or dies, and then the worker stops. So no worker
outlives its parent.

A worker that ends by itself is replaced: at once if it has served for a while, else after a pause that doubles with
each failure. SIGHUP passes new settings to all workers, over their lifelines. SIGUSR1 replaces them one after the
other, each as soon as its successor serves. A failure to start a process never affects the running ones.

uvicorn has its own supervisor (``uvicorn.supervisors.Multiprocess``). It replaces a worker before the successor
serves, restarts failing ones without a pause, and shares one socket among them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Final, NamedTuple

from ..asgi import ASGIApp, copy_tcp_timeout
from ..timing import backoff
from .uvicorn import (
    DEFAULT_GRACE,
    Certificate,
    NotStartedError,
    Server,
    create_server,
    reloads_on_hangup,
    run_server,
)

logger = logging.getLogger("tickertape.server")

STARTUP_FAILURE: Final = 3
"""Exit status of a worker that could not start: the one that uvicorn has."""

FIRST_PAUSE: Final = 0.25
"""Seconds before a worker that failed early is started again, for the first time."""

LONGEST_PAUSE: Final = 30.0
"""The longest pause: retries take little time, and an operator who has removed the cause does not wait long."""

PROVEN: Final = 5.0
"""Seconds of service after which the end of a worker does not count as a failure to start."""

HUNG: Final = 30.0
"""Seconds without a turn of the event loop after which a worker is killed."""

FINAL_GRACE: Final = 5.0
"""Seconds beyond the grace after which a worker that does not end is killed."""

KILL_WAIT: Final = 5.0
"""Seconds to wait for killed workers at the end. A process in an uninterruptible system call, as on a file system that
does not answer, cannot be killed; the operating system ends it later."""

_TURN: Final = 0.5
"""Longest time in seconds between two checks of the workers."""

_READY: Final = b"ready"
_BEAT: Final = b"beat"

_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and locks


@dataclass(frozen=True)
class Job:
    """The task of a worker; it is pickled for the worker's process.

    Attributes:
        factory: returns the application, and sets up logging. If the application has a method ``reload``, it gets
            the messages of the parent.
        listener: listens for all workers, or only keeps the address at which each worker listens by itself.
        grace: seconds for running requests at the end.
        access_log: True to log requests.
        tls: serve HTTPS.
    """

    factory: Callable[[], ASGIApp]
    listener: socket.socket
    grace: int
    access_log: bool
    tls: Certificate | None = None

    def bind(self) -> socket.socket:
        """Return the socket from which this worker accepts connections.

        If it is the worker's own, it does not listen until the application has started. Before that, the kernel would
        assign connections to it, and their clients would wait while the broker cannot be reached.
        """
        if self.listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return self.listener
        with self.listener as keeper:
            own = socket.socket(keeper.family)
            try:
                if own.family == socket.AF_INET6:
                    own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                own.bind(keeper.getsockname())
                copy_tcp_timeout(keeper, own)
            except OSError:
                own.close()
                raise
            return own


class Reload(NamedTuple):
    """Changes after the settings were read again.

    Attributes:
        factory: returns the application of workers that start later; ``None`` if that is as before.
        message: for the applications of the workers that run; it is pickled.
    """

    factory: Callable[[], ASGIApp] | None = None
    message: Any = None


def pause_before(failures: int) -> float:
    """Return the seconds to wait before a worker is started that has failed so many times in a row."""
    return backoff(failures, random.random, first=FIRST_PAUSE, cap=LONGEST_PAUSE, jitter=0.0) if failures else 0.0


def run_workers(
    factory: Callable[[], ASGIApp],
    listener: socket.socket,
    *,
    workers: int,
    grace: int = DEFAULT_GRACE,
    access_log: bool = False,
    tls: Certificate | None = None,
    hung_after: float = HUNG,
    on_start: Callable[[], None] = lambda: None,
    on_beat: Callable[[], None] = lambda: None,
    on_stop: Callable[[], None] = lambda: None,
    on_reload: Callable[[], Reload] = Reload,
    on_restart: Callable[[int], None] = lambda worker: None,
) -> None:
    """Serve the application in several processes, as :func:`~tickertape.server.run` does in one.

    Arguments:
        factory: called in each process, for which it is pickled; it must set up logging there.
        listener: from :func:`~tickertape.server.listen`, with or without ``workers=``.
        workers: the number of processes.
        hung_after: seconds without a turn of its event loop after which a worker is killed and replaced.
        on_beat: called at least each second.
        on_stop: called when the server begins to stop.
        on_reload: called after SIGHUP.
        on_restart: called when a worker has ended by itself or was killed, with its number, from 0.

    Raises:
        NotStartedError: no worker can start.
    """
    job = Job(factory, listener, grace, access_log, tls)
    supervisor = Supervisor(
        job,
        workers,
        hung_after=hung_after,
        on_start=on_start,
        on_beat=on_beat,
        on_stop=on_stop,
        on_reload=on_reload,
        on_restart=on_restart,
    )
    with listener, contextlib.closing(supervisor):
        supervisor.run()


class Worker:
    """A worker's process and its pipes, seen from the parent.

    Raises:
        OSError: the system refuses another process or another pipe.
    """

    def __init__(self, job: Job, name: str) -> None:
        with contextlib.ExitStack() as stack:
            lifeline, self.lifeline = map(stack.enter_context, _SPAWN.Pipe(duplex=False))
            self.pulse, pulse = map(stack.enter_context, _SPAWN.Pipe(duplex=False))
            self.process = _SPAWN.Process(target=work, args=(job, lifeline, pulse), name=name)
            with _signals_blocked():
                self.process.start()
            stack.pop_all()
        lifeline.close()
        pulse.close()
        self.served_since: float | None = None
        self.silence = 0.0

    def __str__(self) -> str:
        return f"{self.process.name} (pid {self.process.pid})"

    def listen(self, elapsed: float) -> None:
        """Read the pulse, ``elapsed`` seconds after the last time."""
        self.silence += elapsed
        try:
            while not self.pulse.closed and self.pulse.poll():
                self.silence = 0.0
                if self.pulse.recv_bytes() == _READY:
                    self.served_since = time.monotonic()
        except (EOFError, OSError):
            self.pulse.close()

    def send(self, message: Any) -> None:
        """Pass a message to the application of the worker."""
        with contextlib.suppress(OSError):  # it has ended
            self.lifeline.send(message)

    def stop(self) -> None:
        """Close the pipes, upon which the worker drains and ends."""
        self.lifeline.close()
        self.pulse.close()

    def reap(self, timeout: float | None = None) -> int | None:
        """Wait until the process has ended and return its exit code; ``None`` if it still runs."""
        self.process.join(timeout)
        self.lifeline.close()
        self.pulse.close()
        return self.process.exitcode


class _Slot:
    """The place of one worker: the worker, its successor, and the time at which the next one is started."""

    def __init__(self, number: int) -> None:
        self.name = f"worker {number}"
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.failures = 0
        self.due = 0.0

    def back_off(self, now: float) -> float:
        """Count a failure, and return the seconds until the next worker is started."""
        self.failures += 1
        pause = pause_before(self.failures)
        self.due = now + pause
        return pause


class Supervisor:
    """Start workers, replace those that end or hang, and stop them all at the end.

    Arguments:
        job: the task of each worker.
        workers: the number of processes.
        hung_after: seconds without a pulse after which a worker is killed.
        on_start: called once, when every worker serves or has failed to.
        on_beat: called in each turn, at least each second.
        on_stop: called when the server begins to stop.
        on_reload: called after SIGHUP.
        on_restart: called with the number of a worker that is started again.
        start: starts a worker.
    """

    def __init__(
        self,
        job: Job,
        workers: int,
        *,
        hung_after: float = HUNG,
        on_start: Callable[[], None] = lambda: None,
        on_beat: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
        on_reload: Callable[[], Reload] = Reload,
        on_restart: Callable[[int], None] = lambda worker: None,
        start: Callable[[Job, str], Worker] = Worker,
    ) -> None:
        self._job = job
        self._slots = [_Slot(number) for number in range(1, workers + 1)]
        self._leaving: list[Worker] = []
        self._to_replace: list[_Slot] = []
        self._hung_after = hung_after
        self._on_start = on_start
        self._on_beat = on_beat
        self._on_stop = on_stop
        self._on_reload = on_reload
        self._on_restart = on_restart
        self._start = start
        self._started = False
        self._signals: list[int] = []
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def run(self) -> None:
        """Supervise the workers until a signal ends the server."""
        with self._handling_signals():
            before = time.monotonic()
            while not self._must_end():
                self.fill(time.monotonic())
                self._wait()
                now = time.monotonic()
                # Count one turn at most: if the machine slept or the parent was stopped, no worker could report.
                self.check(now, min(now - before, _TURN))
                self._on_beat()
                before = now
            self._drain()

    def close(self) -> None:
        """Kill the workers that still run."""
        workers = self._workers()
        for worker in workers:
            worker.process.kill()
        deadline = time.monotonic() + KILL_WAIT
        for worker in workers:
            if worker.reap(max(0.0, deadline - time.monotonic())) is None:
                logger.error("%s was killed, but has not ended within %.0f s", worker, KILL_WAIT)
        self._woken.close()
        self._waker.close()

    def fill(self, now: float) -> None:
        """Start the workers that are due."""
        for slot in self._slots:
            if slot.worker is None and slot.due <= now:
                try:
                    slot.worker = self._start(self._job, slot.name)
                except OSError as error:
                    logger.error("cannot start %s: %s; next attempt in %g s", slot.name, error, slot.back_off(now))
        if self._to_replace and self._to_replace[0].successor is None:
            slot = self._to_replace[0]
            try:
                slot.successor = self._start(self._job, slot.name)
            except OSError as error:
                self._to_replace.clear()
                logger.error("cannot start a successor of %s: %s; the workers are not replaced", slot.name, error)

    def check(self, now: float, elapsed: float) -> None:
        """Read all pulses, and handle the workers that have ended or hang.

        Arguments:
            now: the monotonic time.
            elapsed: seconds since the last check.

        Raises:
            NotStartedError: no worker can start.
        """
        for slot in self._slots:
            if slot.worker is not None:
                self._check_worker(slot, slot.worker, now, elapsed)
            if slot.successor is not None:
                self._check_successor(slot, slot.successor, elapsed)
        for worker in [worker for worker in self._leaving if not worker.process.is_alive()]:
            self._leaving.remove(worker)
            worker.reap()
        if not self._started:
            self._check_start()

    def replace_all(self) -> None:
        """Replace all workers one after the other, unless that is already under way."""
        if not self._to_replace:
            self._to_replace = list(self._slots)

    def _workers(self) -> list[Worker]:
        held = [worker for slot in self._slots for worker in (slot.worker, slot.successor) if worker]
        return held + self._leaving

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

    def _check_worker(self, slot: _Slot, worker: Worker, now: float, elapsed: float) -> None:
        worker.listen(elapsed)
        if not worker.process.is_alive():
            end = _end_of(worker)
        elif worker.served_since is not None and worker.silence > self._hung_after:
            worker.process.kill()
            self._leaving.append(worker)  # it may take its time to die
            end = f"was killed: its event loop has not run for {worker.silence:.0f} s"
        else:
            return
        slot.worker = None
        self._on_restart(self._slots.index(slot))
        if worker.served_since is not None and now - worker.served_since >= PROVEN:
            slot.failures, slot.due, pause = 0, now, 0.0
        else:
            pause = slot.back_off(now)
        logger.warning("%s %s; starting another %s", worker, end, f"in {pause:g} s" if pause else "now")

    def _check_successor(self, slot: _Slot, successor: Worker, elapsed: float) -> None:
        successor.listen(elapsed)
        if successor.served_since is not None:
            if slot.worker is not None:
                slot.worker.stop()
                self._leaving.append(slot.worker)
            slot.worker, slot.successor = successor, None
            self._to_replace.remove(slot)
            logger.info("%s has taken over", successor)
        elif not successor.process.is_alive():
            slot.successor = None
            self._to_replace.clear()
            logger.error("%s %s; the other workers are not replaced", successor, _end_of(successor))

    def _check_start(self) -> None:
        serving = [slot for slot in self._slots if slot.worker is not None and slot.worker.served_since is not None]
        if not serving and all(slot.failures for slot in self._slots):
            raise NotStartedError
        if serving and all(slot in serving or slot.failures for slot in self._slots):
            self._started = True
            self._on_start()

    def _drain(self) -> None:
        """Stop all workers at the same time, and wait until they end, the grace is over, or Ctrl-C is pressed again."""
        self._on_stop()
        # An open socket would still receive connections, which no process accepts.
        self._job.listener.close()
        for worker in self._workers():
            worker.stop()
        deadline = time.monotonic() + self._job.grace + FINAL_GRACE
        while living := [worker for worker in self._workers() if worker.process.is_alive()]:
            left = deadline - time.monotonic()
            if left < 0 or signal.SIGINT in self._take_signals():
                logger.error("killing workers that have not ended: %s", ", ".join(map(str, living)))
                break
            wait([self._woken, *(worker.process.sentinel for worker in living)], min(left, _TURN))

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)
            with contextlib.suppress(OSError):
                self._waker.send(b"\0")

        numbers = [signal.SIGINT, signal.SIGTERM]
        if sys.platform != "win32":
            numbers += [signal.SIGUSR1, *([signal.SIGHUP] if reloads_on_hangup() else [])]
        former: dict[int, Any] = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _take_signals(self) -> list[int]:
        """Return the signals since the last call."""
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        taken, self._signals = self._signals, []
        return taken

    def _must_end(self) -> bool:
        for number in self._take_signals():
            if number in (signal.SIGINT, signal.SIGTERM):
                return True
            if number == signal.SIGUSR1:
                self.replace_all()
            else:
                self._reload()
        return False

    def _reload(self) -> None:
        factory, message = self._on_reload()
        if factory is not None:
            self._job = dataclasses.replace(self._job, factory=factory)
        for worker in self._workers():
            worker.send(message)


def _end_of(worker: Worker) -> str:
    """Describe how a worker has ended."""
    code = worker.reap()
    assert code is not None
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return "could not start" if code == STARTUP_FAILURE else f"ended with status {code}"


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals, in a new process too until it is ready for them: Ctrl-C reaches the parent and its children."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # otherwise it is started with the first process, and unblocks the signals
    former = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def work(job: Job, lifeline: Connection, pulse: Connection) -> None:
    """Serve in this process until ``lifeline`` ends, because the parent has closed it or has died.

    SIGTERM ends the worker too. SIGINT is left to the parent: Ctrl-C reaches both, and two signals would cut requests.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)  # the parent handles them
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        os.set_blocking(pulse.fileno(), False)  # a parent that is stopped reads nothing, and must not block workers
    app = job.factory()
    server = create_server(
        app,
        grace=job.grace,
        access_log=job.access_log,
        tls=job.tls,
        on_reload=getattr(app, "reload", lambda message: None),
        on_start=lambda: _report(pulse, _READY),
        on_beat=lambda: _report(pulse, _BEAT),
    )
    server.interruptible = False
    threading.Thread(target=_obey, args=(lifeline, server), daemon=True).start()
    try:
        run_server(server, job.bind())
    except NotStartedError:
        sys.exit(STARTUP_FAILURE)


def _report(pulse: Connection, word: bytes) -> None:
    with contextlib.suppress(OSError):
        pulse.send_bytes(word)


def _obey(lifeline: Connection, server: Server) -> None:
    """Pass on the messages of the parent, and stop the server when the lifeline ends."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            server.reload(lifeline.recv())
    server.should_exit = True
