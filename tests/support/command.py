"""The ``tickertape`` command as users run it, with output and errors apart, and a hub to connect to."""

from __future__ import annotations

import os
import pty
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final, NamedTuple, Self

from support.servers import Service

__all__ = ["PATIENCE", "SCRIPT", "Command", "HubProgram", "Outcome", "hub_program", "run"]

PATIENCE: Final = 30.0
"""Seconds to wait for something that should happen at once: generous, for busy machines."""

PAUSE: Final = 0.02
"""Seconds between two checks of another process."""

SCRIPT: Final = str(Path(sys.executable).parent / "tickertape")


class Outcome(NamedTuple):
    """The result of a command."""

    status: int
    output: str
    errors: str


def environment(more: Mapping[str, str] | None) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TICKERTAPE_")}
    return {**ours, "COLUMNS": "100", "PYTHONUNBUFFERED": "1", **(more or {})}


def run(*arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Outcome:
    """Run a command to its end."""
    result = subprocess.run(
        [SCRIPT, *arguments], input=stdin, check=False, capture_output=True, timeout=PATIENCE, env=environment(env)
    )
    return Outcome(result.returncode, result.stdout.decode(), result.stderr.decode())


class Command:
    """A running command; a context manager.

    Arguments:
        arguments: after ``tickertape``.
        terminal: whether its output and errors go to a terminal.
        env: variables on top of our own.
    """

    def __init__(self, *arguments: str, terminal: bool = False, env: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._terminal = pty.openpty() if terminal else None
        self.process = subprocess.Popen(
            [SCRIPT, *arguments],
            stdin=subprocess.PIPE,
            stdout=self._terminal[1] if self._terminal else subprocess.PIPE,
            stderr=self._terminal[1] if self._terminal else self._errors,
            env=environment(env),
            start_new_session=True,
        )
        if self._terminal is not None:
            os.close(self._terminal[1])
            self.output: IO[bytes] = os.fdopen(self._terminal[0], "rb", buffering=0)
        else:
            assert self.process.stdout is not None
            self.output = self.process.stdout
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError, ValueError):  # a terminal ends with EIO
            for line in iter(self.output.readline, b""):
                self._lines.put(line)
        self._lines.put(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.output.close()
        self._errors.close()

    def line(self) -> str:
        """Return the next line of the output; ``""`` at its end."""
        return self._lines.get(timeout=PATIENCE).decode()

    def write(self, data: bytes) -> None:
        """Write to the standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    @property
    def errors(self) -> str:
        """The text on standard error so far."""
        return os.pread(self._errors.fileno(), 1 << 20, 0).decode()

    def says(self, text: str) -> None:
        """Return when ``text`` is on standard error."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.errors:
            assert self.process.poll() is None, self.errors
            assert time.monotonic() < deadline, f"expected {text!r}, got {self.errors!r}"
            time.sleep(PAUSE)

    def end(self, number: int | None = signal.SIGINT) -> int:
        """Send a signal, unless it is None, and return the exit status."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


class HubProgram(Service):
    """The real ``tickertape serve``, which can be killed and restarted at the same port.

    Arguments:
        options: of the command.
        broker: where it keeps events.
    """

    def __init__(self, *options: str, broker: str = "memory://") -> None:
        super().__init__(SCRIPT, "serve", "--port", "{port}", "--retry", "0.5", "--broker", broker, *options)


@contextmanager
def hub_program(*options: str, broker: str = "memory://") -> Iterator[HubProgram]:
    """Run a hub while the block runs; the arguments are those of :class:`HubProgram`."""
    hub = HubProgram(*options, broker=broker)
    try:
        hub.start()
        yield hub
    finally:
        hub.kill()
