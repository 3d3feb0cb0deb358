"""A server of scripted bytes: a test decides which bytes a connection gets, and when.

A script is a function of a :class:`Connection`. The server runs one script for each connection, in
order, each in a thread; later connections get status 204, on which event sources end. A
script waits for events that the test sets, never for time.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

__all__ = ["Connection", "RawServer", "Request", "Script", "answer", "stream"]

PATIENCE: Final = 30.0
"""Seconds after which a waiting script fails, so that a hang becomes a failure."""


@dataclass(frozen=True)
class Request:
    """A received request."""

    method: str
    target: str
    headers: dict[str, bytes]
    """Names in lower case."""
    body: bytes


class Connection:
    """One accepted connection, with its request read."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(PATIENCE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = stream

    def read_request(self) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            received = self._socket.recv(65536)
            if not received:
                return None
            data += received
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        headers = {name.decode().lower(): value.strip() for name, _, value in pairs}
        while len(body) < int(headers.get("content-length", b"0")):
            body += self._socket.recv(65536)
        method, target, _ = first.decode().split(" ")
        return Request(method, target, headers, body)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def begin(self, *, chunked: bool = True, more: str = "") -> None:
        """Send the head of an event stream, with ``more`` lines in it."""
        coding = "Transfer-Encoding: chunked" if chunked else "Connection: close"
        self.send(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{coding}\r\n{more}\r\n".encode())

    def chunk(self, data: bytes) -> None:
        """Send one chunk of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def wait(self, event: threading.Event) -> None:
        assert event.wait(PATIENCE), "expected the test to set the event"

    def hold(self) -> None:
        """Keep the connection open until the client has left it."""
        with suppress(ConnectionError):
            while self._socket.recv(65536):
                pass

    def reset(self) -> None:
        """Break the connection off with a RST instead of a FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


Script: TypeAlias = Callable[[Connection], None]


def answer(status: int, *headers: str, body: bytes = b"") -> Script:
    """Return a script that answers with a status, headers and a body."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers))
    return lambda connection: connection.send(head.encode() + b"\r\n" + body)


def stream(*chunks: bytes, chunked: bool = True, then: Literal["end", "hold", "drop"] = "end") -> Script:
    """Return a script that sends an event stream in these chunks, then ends, keeps or breaks the connection."""

    def script(connection: Connection) -> None:
        connection.begin(chunked=chunked)
        for chunk in chunks:
            if chunked:
                connection.chunk(chunk)
            else:
                connection.send(chunk)
        if then == "hold":
            connection.hold()
        elif then == "end" and chunked:
            connection.chunk(b"")

    return script


class RawServer:
    """Run scripts, one for each connection; a context manager."""

    def __init__(self, *scripts: Script) -> None:
        self.requests: list[Request] = []
        self._scripts = list(scripts)
        self._threads: list[threading.Thread] = []
        self._connections: list[Connection] = []
        self._errors: list[BaseException] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        # A blocked accept() is not woken by close() alone.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        if self._errors and error is None:
            raise self._errors[0]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(accepted)
            self._connections.append(connection)
            self._start(self._serve, connection, self._scripts.pop(0) if self._scripts else answer(204))

    def _serve(self, connection: Connection, script: Script) -> None:
        with self._noted():
            request = connection.read_request()
            if request is None:
                return
            self.requests.append(request)
            script(connection)
            connection.close()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            pass  # the client has left, or the server is closing
        except BaseException as error:
            self._errors.append(error)
