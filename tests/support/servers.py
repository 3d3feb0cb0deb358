"""Real servers in separate processes, and a client that sees the bytes on the wire."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeAlias

from tickertape import Decoder, ServerSentEvent

__all__ = ["SERVERS", "START", "Address", "Connection", "Program", "Server", "Service", "free_port", "serve"]

START: Final = 30.0
"""Seconds that a server may take until it answers: generous, for busy machines."""

PATIENCE: Final = 10.0
"""Seconds to wait for something that should happen at once."""

PAUSE: Final = 0.02
"""Seconds between two checks of another process."""

_SO_ATTACH_FILTER: Final = 26
"""The number of the option on Linux; :mod:`socket` does not name it."""

BIN: Final = Path(sys.executable).parent
TESTS: Final = Path(__file__).parents[1]

Address: TypeAlias = int | str
"""A port of 127.0.0.1, or the path of a Unix socket."""


class Kind(NamedTuple):
    """The command line of a server, and its option for the address."""

    command: tuple[str, ...]
    port: str
    path: str


SERVERS: Final = {
    "uvicorn-httptools": Kind(("uvicorn", "--http=httptools"), "--port={}", "--uds={}"),
    "uvicorn-h11": Kind(("uvicorn", "--http=h11", "--loop=asyncio"), "--port={}", "--uds={}"),
    "uvicorn-workers": Kind(("uvicorn", "--workers=2"), "--port={}", "--uds={}"),
    "gunicorn": Kind(
        ("gunicorn", "--worker-class=uvicorn_worker.UvicornWorker"), "--bind=127.0.0.1:{}", "--bind=unix:{}"
    ),
    "granian": Kind(("granian", "--interface=asgi"), "--port={}", "--uds={}"),
    "hypercorn": Kind(("hypercorn",), "--bind=127.0.0.1:{}", "--bind=unix:{}"),
}
"""Each with its own defaults, as far as they can be kept."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def connect(address: Address, receive_buffer: int | None = None) -> socket.socket:
    """Connect to a server; with a small ``receive_buffer``, few bytes are in transit if the client does not read."""
    connection = socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX)
    try:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", address) if isinstance(address, int) else address)
    except BaseException:
        connection.close()
        raise
    return connection


class Program:
    """A process with its children, started at once; what they write is kept.

    Arguments:
        command: the program and its arguments.
        env: variables on top of our own.
        pass_fds: descriptors that it inherits.
        folder: where it runs; here by default.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        folder: str | None = None,
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,  # its own process group, so that its children can be ended with it
        )

    @property
    def output(self) -> str:
        """The output of the process and its children so far."""
        return os.pread(self._output.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def wait_for(self, address: Address) -> None:
        """Return when connections are accepted at ``address``."""
        deadline = time.monotonic() + START
        while True:
            with suppress(OSError):
                connect(address).close()
                return
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, f"expected an answer at {address}, got:\n{self.output}"
            time.sleep(PAUSE)

    async def says(self, text: str, *, after: int = 0, within: float = PATIENCE) -> None:
        """Return when ``text`` is in the output, ``after`` the characters of an earlier look."""
        await until(
            lambda: text in self.output[after:],
            lambda: f"{text!r} in the output, got:\n{self.output[after:]}",
            within=within,
        )

    async def end(self, number: int = signal.SIGTERM) -> float:
        """Send a signal and return the seconds until the process is gone."""
        start = time.monotonic()
        self.process.send_signal(number)
        await until(lambda: self.process.poll() is not None, lambda: f"an exit, got:\n{self.output}")
        return time.monotonic() - start

    def close(self) -> None:
        """End it if it still runs, with its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._output.close()


class Service:
    """A server that can be killed, and started again at the same port.

    Arguments:
        command: the program and its arguments, with ``{port}`` in the place of the port.
        folder: where it runs; here by default.
    """

    def __init__(self, *command: str, folder: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self._folder = None if folder is None else str(folder)
        self._program: Program | None = None

    def start(self) -> None:
        """Start it and return when it answers."""
        self._program = Program(self._command, folder=self._folder)
        self._program.wait_for(self.port)

    @property
    def output(self) -> str:
        """The output since it was started."""
        return "" if self._program is None else self._program.output

    def kill(self) -> None:
        """End it as a crash does: by SIGKILL."""
        if self._program is not None:
            self._program.close()
            self._program = None


async def until(condition: Callable[[], bool], expected: Callable[[], str], *, within: float = PATIENCE) -> None:
    """Return when ``condition`` holds, for example in another process."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"expected {expected()}"
        await asyncio.sleep(PAUSE)


class Server(Program):
    """A server that runs an application.

    Arguments:
        kind: one of :data:`SERVERS`.
        app: the application, as ``module:name``.
        address: where to listen; by default a free port.
        options: more arguments of the command.
        pass_fds: descriptors that it inherits.

    Attributes:
        address: where it listens.
    """

    def __init__(
        self,
        kind: str,
        app: str,
        *options: str,
        address: Address | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        server = SERVERS[kind]
        self.address = free_port() if address is None else address
        program, *arguments = server.command
        bind = server.port if isinstance(self.address, int) else server.path
        command = [str(BIN / program), app, *arguments, *(options or [bind.format(self.address)])]
        super().__init__(command, {"PYTHONPATH": str(TESTS), **(env or {})}, pass_fds)


@contextmanager
def serve(kind: str, app: str) -> Iterator[Server]:
    """Run an application under a server that is ready to answer."""
    server = Server(kind, app)
    try:
        server.wait_for(server.address)
        yield server
    finally:
        server.close()


class Connection:
    """One connection of HTTP/1, with one response at a time, read piece by piece.

    Attributes:
        status: of the response.
        headers: names in lower case; values of the same name are joined by a comma.
        body: the received part, without the framing of chunks.
        complete: whether the body has ended as HTTP/1.1 wants it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._buffer = b""
        self._decoder = Decoder(comments=True)
        self._events: list[ServerSentEvent] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False

    @classmethod
    async def open(cls, address: Address, *, receive_buffer: int | None = None) -> Self:
        """Connect to a server, as :func:`connect` does."""
        return cls(*await asyncio.open_connection(sock=connect(address, receive_buffer), limit=1024))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, path: str, *, method: str = "GET", version: str = "1.1", headers: str = "") -> int:
        """Send a request, read the head of the answer and return its status; ``headers`` are lines that end in CRLF."""
        await self.ask(path, method=method, version=version, headers=headers)
        return await self.head()

    async def ask(self, path: str, *, method: str = "GET", version: str = "1.1", headers: str = "") -> None:
        """Send a request, and do not wait for the answer."""
        self._writer.write(f"{method} {path} HTTP/{version}\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
        await self._writer.drain()

    async def head(self) -> int:
        """Read the head of an answer and return its status."""
        async with asyncio.timeout(PATIENCE):
            while b"\r\n\r\n" not in self._buffer:
                if not await self._receive():
                    raise ConnectionError(f"expected the head of an answer, got {self._buffer!r}")
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.headers, self.body, self.complete = {}, b"", False
        for line in lines:
            name, _, value = line.partition(":")
            before = self.headers.get(name.lower())
            self.headers[name.lower()] = value.strip() if before is None else f"{before}, {value.strip()}"
        self.status = int(first.split()[1])
        return self.status

    async def event(self) -> ServerSentEvent:
        """Return the next event or comment."""
        while not self._events:
            piece = await self.piece()
            assert piece, f"expected another event, got the end after {self.body[-200:]!r}"
            self._events += self._decoder.feed(piece)
        return self._events.pop(0)

    async def rest(self) -> bytes:
        """Read to the end, clean or not, and return the whole body."""
        while await self.piece():
            pass
        return self.body

    async def piece(self) -> bytes:
        """Return the next bytes of the body; none at its end."""
        async with asyncio.timeout(PATIENCE):
            while not (piece := self._take()) and not self.complete and await self._receive():
                pass
        self.body += piece
        return piece

    async def _receive(self) -> bool:
        """Wait for more bytes; return whether there are any before the connection ends."""
        with suppress(ConnectionError):
            received = await self._reader.read(65536)
            self._buffer += received
            return bool(received)
        return False

    def _take(self) -> bytes:
        """Take what the buffer has of the body: all whole chunks at once, for some streams send very many."""
        if self.headers.get("transfer-encoding") != "chunked":
            piece, self._buffer = self._buffer, b""
            self.complete = len(self.body) + len(piece) == int(self.headers.get("content-length", -1))
            return piece
        chunks, start = [], 0
        while not self.complete and (end := self._buffer.find(b"\r\n", start)) >= 0:
            after = end + 2 + int(self._buffer[start:end], 16)
            if len(self._buffer) < after + 2:
                break
            chunks.append(self._buffer[end + 2 : after])
            self.complete = after == end + 2
            start = after + 2
        self._buffer = self._buffer[start:]
        return b"".join(chunks)

    async def closed(self) -> bool:
        """Return whether the server has closed the connection with nothing left to read."""
        async with asyncio.timeout(PATIENCE):
            return not self._buffer and not await self._receive()

    def vanish(self) -> None:
        """Drop every packet that arrives, as a machine that is switched off does: a filter accepts no byte of it."""
        accept_none = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(accept_none))
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    async def dropped(self) -> None:
        """Return when the server has dropped the connection; nothing is read."""
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket"), 0)
        await until(lambda: bool(poll.poll(0)), lambda: "a dropped connection, but it is open")

    async def stall(self) -> None:
        """Read nothing until the server has sent all that it can, and no more bytes arrive."""
        before = -1
        while (arrived := self._arrived()) > before or not arrived:
            before = arrived
            await asyncio.sleep(0.1)

    def _arrived(self) -> int:
        answer = fcntl.ioctl(self._writer.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        (count,) = struct.unpack("i", answer)
        return int(count)

    def abort(self) -> None:
        """Close the connection at once, with a reset if bytes were not read."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close the connection; does nothing if it is closed."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
