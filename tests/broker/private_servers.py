"""Private servers that tests stop, kill and promote, and an address that can be moved between them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import psycopg
import pytest
import redis as redis_driver
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.servers import free_port

__all__ = [
    "IN_CI",
    "PrivateNats",
    "PrivatePgbouncer",
    "PrivatePostgres",
    "PrivateRedis",
    "find_program",
    "forwarded",
    "require",
]

IN_CI: Final = os.environ.get("CI", "").lower() == "true"
"""True where a missing server is a failure, not a reason to skip."""

START: Final = 30.0
"""Seconds until a server must answer, on a busy machine."""

_PROGRAMS: Final = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), "/usr/local/sbin", "/usr/sbin"]


def require(reason: str | None) -> None:
    """Skip the test for a reason, or fail it where no server may be missing."""
    if reason is not None:
        (pytest.fail if IN_CI else pytest.skip)(reason)


def find_program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, _PROGRAMS)]))
    require(None if found else f"no program {name}")
    return found or name


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true, with pauses."""
    deadline = time.monotonic() + START
    while not condition():
        assert time.monotonic() < deadline, f"expected {what} within {START} s"
        time.sleep(0.02)


class PrivateRedis:
    """A Redis server in its own directory.

    Arguments:
        options: of its command line.
    """

    def __init__(self, directory: Path, *options: str, settings: Path | None = None) -> None:
        self._settings = [str(settings)] if settings is not None else []
        self.port = free_port()
        self.files = directory / f"redis-{self.port}"
        self.files.mkdir()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @classmethod
    def sentinel(cls, directory: Path, settings: Path) -> PrivateRedis:
        """Start a sentinel; it rewrites its settings now and then."""
        return cls(directory, "--sentinel", settings=settings)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis_driver.Redis:
        once = Retry(NoBackoff(), 0)
        return redis_driver.Redis(host="127.0.0.1", port=self.port, retry=once, socket_timeout=START)

    def info(self, section: str) -> dict[str, object]:
        with self.client() as client:
            found: dict[str, object] = client.info(section)
            return found

    def start(self) -> None:
        """Start it, or start it again with its data on disk."""
        place = ["--port", f"{self.port}", "--dir", str(self.files), "--bind", "127.0.0.1"]
        if not self._settings:
            place += ["--save", ""]
        command = [find_program("redis-server"), *self._settings, *place, *self._options]
        log = (self.files / "log").open("ab")
        with log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "an answer of redis-server")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.files / "log").read_text()
        with suppress(redis_driver.ConnectionError), self.client() as client:
            try:
                client.ping()
            except redis_driver.AuthenticationError:
                return True
            except redis_driver.BusyLoadingError:
                return False
            return True
        return False

    def signal(self, number: int) -> None:
        """Send a signal to it; wait for its end if that kills it."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class PrivateNats:
    """A NATS server with JetStream, in its own directory.

    Arguments:
        password: of the user ``tester``; without it, everyone may do everything.
    """

    def __init__(self, directory: Path, *, password: str | None = None) -> None:
        self.port = free_port()
        self.files = directory / f"nats-{self.port}"
        self.files.mkdir()
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again with its data on disk; return when JetStream is ready."""
        place = ("-a", "127.0.0.1", "-p", f"{self.port}", "-js", "-sd", str(self.files))
        login = () if self._password is None else ("--user", "tester", "--pass", self._password)
        with (self.files / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_program("nats-server"), *place, *login], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._answers, "an answer of nats-server")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.files / "log").read_text()
        login = {} if self._password is None else {"user": "tester", "pass": self._password}
        words = json.dumps({**login, "verbose": False})
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
            connection.sendall(f"CONNECT {words}\r\nSUB answer 1\r\nPUB $JS.API.INFO answer 0\r\n\r\n".encode())
            received = b""
            while b"account_info_response" not in received:
                piece = connection.recv(65536)
                if not piece:
                    return False
                received += piece
            return True
        return False

    def signal(self, number: int) -> None:
        """Send a signal to it; wait until it is stopped or dead if that is its effect."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitpid(self._process.pid, os.WUNTRACED)
        elif number == signal.SIGKILL:
            self._process.wait()

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)


class PrivatePostgres:
    """A PostgreSQL cluster in its own directory, with a password.

    Arguments:
        backup_of: another cluster, of which this one becomes a copy.
    """

    password: Final = "open sesame"

    def __init__(self, backup_of: PrivatePostgres | None = None) -> None:
        self.port = free_port()
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self._home = Path(tempfile.mkdtemp(prefix="tickertape-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._data = self._home / "data"
        self.files = self._data / "base"  # the tables, without the write-ahead log
        if self._user is not None:
            shutil.chown(self._home, self._user)
        if backup_of is None:
            secret = self._home / "secret"
            secret.write_text(self.password)
            secret.chmod(0o644)
            self._run(
                "initdb", "-D", str(self._data), "-U", "postgres", "-A", "scram-sha-256", "-N", f"--pwfile={secret}"
            )
        else:
            self._run("pg_basebackup", "-D", str(self._data), "-d", backup_of.url, "-c", "fast", "--no-sync")

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        return f"postgresql://postgres:open%20sesame@127.0.0.1:{port}/postgres"

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [find_program(name), *arguments], check=False, user=self._user, capture_output=True, text=True, cwd="/"
        )
        assert done.returncode == 0, done.stderr

    def start(self, *, standby: bool = False) -> None:
        """Start it, or start it again with its data on disk; as a standby without a primary if asked to."""
        if standby:
            (self._data / "standby.signal").touch()
        place = ("-D", str(self._data), "-p", f"{self.port}", "-c", "listen_addresses=127.0.0.1")
        # As large as a test needs it, and no slower than the death of processes, not of machines, asks for.
        small = ("-k", str(self._home), "-c", "shared_buffers=4MB", "-c", "max_connections=40", "-c", "fsync=off")
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_program("postgres"), *place, *small],
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, "an answer of postgres")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._home / "log").read_text()
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def log(self) -> str:
        """Return what the server has logged."""
        return (self._home / "log").read_text("utf-8", errors="replace")

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def signal(self, number: int) -> None:
        """Send a signal to the server and all of its children; wait for their end if that kills them."""
        assert self._process is not None
        pids = [self._process.pid, *self._children()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGKILL:
            self._process.wait()
            # The next server refuses to start while a child of this one lives.
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of all children")

    def _children(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
        shutil.rmtree(self._home, ignore_errors=True)


class PrivatePgbouncer:
    """A pgbouncer in front of a PostgreSQL server that asks for no password.

    Arguments:
        target: the port of the server on 127.0.0.1.
        mode: ``session``, ``transaction`` or ``statement``.
    """

    def __init__(self, target: int, mode: str) -> None:
        self.port = free_port()
        user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self._home = Path(tempfile.mkdtemp(prefix="tickertape-pgbouncer-"))
        users, settings = self._home / "users", self._home / "pgbouncer.ini"
        users.write_text('"postgres" ""\n')
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={target}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {mode}\n"
        )
        if user is not None:
            for path in (self._home, users, settings):
                shutil.chown(path, user)
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_program("pgbouncer"), str(settings)], user=user, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._answers, "a pgbouncer that listens")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._home / "log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
            return True
        return False

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)


class Forwarder:
    """A TCP proxy whose target can be changed.

    Attributes:
        port: its port on 127.0.0.1.
        target: the port for new connections; 0 for none.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def stall(self) -> None:
        """Forward nothing more, and keep all connections."""
        self._flowing.clear()

    def move(self, target: int) -> None:
        """Forward to another server, and close the connections to the previous one."""
        self.target = target
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait for the end of all connections."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError):
                there = await asyncio.open_connection("127.0.0.1", self.target)
                try:
                    await _first(self._pump(reader, there[1]), self._pump(there[0], writer))
                finally:
                    there[1].close()
        except asyncio.CancelledError:
            pass  # the target has changed: the client must see the end of its connection
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                await self._flowing.wait()
                writer.write(piece)
                await writer.drain()


async def _first(*works: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def forwarded(target: int) -> AsyncIterator[Forwarder]:
    """Yield a proxy in front of a port."""
    forwarder = Forwarder(target)
    server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0)
    forwarder.port = server.sockets[0].getsockname()[1]
    try:
        yield forwarder
    finally:
        server.close()
        forwarder.move(0)
        await forwarder.ended()
