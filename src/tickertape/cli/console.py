"""The console of the commands: common options, errors with the next step, the log, signals and pipes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, NoReturn, TypeAlias

import typer
from rich.console import Console

DEFAULT_URL: Final = "http://127.0.0.1:8000"
"""The address of ``tickertape serve`` without options."""

HubOption: TypeAlias = Annotated[
    str,
    typer.Option("--url", envvar="TICKERTAPE_URL", help="Address of the hub with these topics.", metavar="URL"),
]

HeaderOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        help="Header of each request, as 'Authorization: Bearer …'; may be repeated. Default: none.",
        metavar="NAME:VALUE",
        show_default=False,
    ),
]

NoColorOption: TypeAlias = Annotated[
    bool, typer.Option("--no-color", help="Print without colours, as with `NO_COLOR` in the environment.")
]


def fail(sentence: str) -> NoReturn:
    """Print a sentence on standard error and exit with status 1."""
    sys.exit(f"tickertape: {sentence}")


def misuse(sentence: str, *, command: str) -> NoReturn:
    """Report a mistake in the command line, and exit with status 2."""
    typer.echo(f"tickertape: {sentence}; next step: {command} --help", err=True)
    raise typer.Exit(2)


def explain(error: OSError, host: str, port: int, *, command: str) -> str:
    """Return a sentence about an error of a server that cannot listen, with the next step."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; next step: {command} --port {port + 1 if port < 65535 else 0}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs more rights than you have; next step: {command} --port 8000"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is no address of this machine; next step: {command} --host 127.0.0.1"
    return f"cannot listen at {host} port {port}: {error.strerror or error}"


def address_of(listener: socket.socket, scheme: str = "http", root_path: str = "") -> str:
    """Return the URL of ``listener`` for a browser on this machine; ``unix:<path>`` for a Unix socket."""
    if listener.family == getattr(socket, "AF_UNIX", None):
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}{root_path}" if ":" in host else f"{scheme}://{host}:{port}{root_path}"


def set_up_logging() -> None:
    """Log to standard error: our own messages from INFO, those of others from WARNING."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("tickertape").setLevel(logging.INFO)


def quiet_logs() -> None:
    """Keep the client's log out of the output: the command prints the same in its own words."""
    logger = logging.getLogger("tickertape")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


def stderr_console(no_color: bool) -> Console:
    """Return a console for messages. They go to standard error, because the output may go to a pipe."""
    return Console(stderr=True, highlight=False, soft_wrap=True, no_color=no_color or None)


def headers_of(lines: Sequence[str] | None, *, command: str) -> dict[str, str]:
    """Return the headers of ``--header`` options, each written as ``Name: value``."""
    pairs = [line.partition(":") for line in lines or ()]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            misuse(f"expected a header as 'Name: value', got {name!r}", command=command)
    return {name.strip(): value.strip() for name, _, value in pairs}


def argument_data(text: str) -> str:
    """Return the data that an argument means: itself, ``-`` the standard input, ``@FILE`` a file, ``@-`` the input.

    Raises:
        OSError: the file cannot be read.
        ValueError: the bytes are not UTF-8.
    """
    if text in ("-", "@-"):
        return sys.stdin.buffer.read().decode()
    return Path(text[1:]).read_bytes().decode() if text.startswith("@") else text


class Stop:
    """Turn SIGINT and SIGTERM into :class:`KeyboardInterrupt`, except inside of :meth:`held` blocks."""

    def __init__(self) -> None:
        self._holding = False
        self._received = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay a signal until the end of the block. A second signal is not delayed: the block may hang."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._received:
            raise KeyboardInterrupt

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if number == signal.SIGINT and sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\n")  # after the ^C that the terminal shows
        if not self._holding or self._received:
            raise KeyboardInterrupt
        self._received = True


@contextmanager
def until_signal() -> Iterator[Stop]:
    """Run the block until SIGINT or SIGTERM ends it by a :class:`KeyboardInterrupt`."""
    stop = Stop()
    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def discard_output() -> None:
    """Discard the output that would be flushed to a closed pipe at the exit."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
