"""``Reader``, the program in C that holds the subscribers, and ``Publisher``, which sends the events."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any, Final

SOURCE: Final = Path(__file__).with_name("reader.c")

PATIENCE: Final = 60.0
"""Seconds for one answer of the server to a publisher."""

SETTLE: Final = 0.5
"""Seconds until a server has registered a stream whose response has begun."""

_ID: Final = re.compile(rb"^id: ?(\S+)\r?$", re.MULTILINE)

MARK: Final = "@{:016d}#{:08d}~"
"""The part of an event that the reader looks for: the time in microseconds, and the number."""


def compiler() -> str | None:
    """Return the C compiler, or ``None``."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compile_reader(directory: Path) -> Path:
    """Return the compiled reader.

    Raises:
        RuntimeError: there is no compiler, or it fails.
    """
    cc = compiler()
    if cc is None:
        raise RuntimeError("expected a C compiler (cc)")
    program = directory / "reader"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        made = subprocess.run([cc, "-O2", "-o", str(program), str(SOURCE)], capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"{cc} failed: {made.stderr.strip()[:500]}")
    return program


class Reader:
    """Subscribers of one server at a time.

    Arguments:
        program: the compiled reader.
        source: the last byte of the first address from which it connects. Each 4,000 connections take another address.
    """

    def __init__(self, program: Path, source: int = 2) -> None:
        self._process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._files = tempfile.TemporaryDirectory()
        self.pid = self._process.pid
        self._ask(f"source {source}")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._files.cleanup()

    def _ask(self, command: str) -> dict[str, Any]:
        self.send(command)
        return self.answer()

    def send(self, command: str) -> None:
        """Send a command; :meth:`answer` must follow."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Return the answer to a command.

        Raises:
            RuntimeError: the reader failed.
        """
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the reader ended"}')
        if "error" in found:
            raise RuntimeError(f"the reader failed: {found['error']}")
        return found

    def connect(self, port: int, count: int, request: bytes, at_once: int = 200) -> dict[str, Any]:
        """Connect subscribers, and wait for the start of each response."""
        self.start_connecting(port, count, request, at_once)
        return self.answer()

    def start_connecting(self, port: int, count: int, request: bytes, at_once: int = 200) -> None:
        """Connect subscribers; :meth:`answer` must follow."""
        path = Path(self._files.name) / "request"
        path.write_bytes(request)
        self.send(f"connect {port} {count} {at_once} {path}")

    def expect(self, number: int) -> None:
        """Clear all figures. The next event of each stream has this number."""
        self._ask(f"expect {number}")

    def read(self, total: int, silence: float) -> dict[str, Any]:
        """Read until there are so many events, or none came for some seconds."""
        self.start_reading(total, silence)
        return self.answer()

    def start_reading(self, total: int, silence: float) -> None:
        """Read as :meth:`read` does; :meth:`answer` must follow."""
        self.send(f"await {total} {int(silence * 1000)}")

    def delays(self) -> array[int]:
        """Return the time of each event from publishing to reading, in microseconds."""
        path = Path(self._files.name) / "delays"
        self._ask(f"delays {path}")
        found = array("I")
        found.frombytes(path.read_bytes())
        return found

    def close(self) -> None:
        """Close all connections."""
        self._ask("close")


class Publisher:
    """Publish numbered events over one connection, each after the answer to the one before.

    Arguments:
        port: the server's port.
        size: bytes of an event.
        path: where to publish.
        number: the number of the first event.
    """

    def __init__(self, port: int, size: int, path: str = "/publish", number: int = 1) -> None:
        self.number = number
        self.size = size
        self._path = path
        self._port = port
        self._socket = self._connect()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def renew(self) -> None:
        """Use another connection: servers close those that are idle for some seconds."""
        self._socket.close()
        self._socket = self._connect()

    def close(self) -> None:
        self._socket.close()

    def publish(self) -> None:
        """Publish the next event.

        Raises:
            RuntimeError: the server refused it.
        """
        mark = MARK.format(time.monotonic_ns() // 1000, self.number)
        body = mark.ljust(self.size, "x").encode()
        self.number += 1
        head = f"POST {self._path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n"
        self._socket.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status = _read_response(self._socket)
        if not 200 <= status < 300:
            raise RuntimeError(f"expected the event to be published, got status {status}")


def last_id(port: int, request: bytes, publisher: Publisher) -> str:
    """Publish an event, and return its id, as a client gets it.

    Raises:
        RuntimeError: the event has no id.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request)
        data = client.recv(65536)
        time.sleep(SETTLE)
        publisher.publish()
        while b"~" not in data or b"\n\n" not in data.partition(b"~")[2].replace(b"\r", b""):
            data += _receive(client)
    ids = _ID.findall(data)
    if not ids:
        raise RuntimeError("expected events with an id")
    return str(ids[-1].decode())


def _read_response(connection: socket.socket) -> int:
    """Read one response, and return its status."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        while not body.endswith(b"0\r\n\r\n"):
            body += _receive(connection)
    else:
        length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)
        while len(body) < length:
            body += _receive(connection)
    return int(lines[0].split()[1])


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise RuntimeError("the server closed the connection of the publisher")
    return data
