"""Private servers of brokers, in one table, that tests stop, kill and start again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from broker.private_servers import PrivateNats, PrivatePostgres, PrivateRedis

__all__ = ["KINDS", "Log", "PrivateServer", "Servers"]

SECRET: Final = "open sesame"


class PrivateServer(Protocol):
    """A server in its own directory.

    Attributes:
        port: where it listens.
        files: the folder with its data.
    """

    port: int
    files: Path

    def start(self) -> None:
        """Start it, or start it again with its data on disk; return when it answers."""

    def signal(self, number: int) -> None:
        """Send it a signal; wait for its end if that kills it."""

    def end(self) -> None:
        """End it in any state."""


def _started(server: PrivateServer) -> PrivateServer:
    try:
        server.start()
    except BaseException:
        server.end()
        raise
    return server


KINDS: Final[dict[str, tuple[Callable[[Path], PrivateServer], str]]] = {
    # With one second for a request, these tests are short.
    "redis": (PrivateRedis, "redis://127.0.0.1:{port}/0?prefix={name}&timeout=1"),
    "redis-durable": (
        lambda directory: PrivateRedis(directory, "--appendonly", "yes", "--appendfsync", "always"),
        "redis://127.0.0.1:{port}/0?prefix={name}&timeout=1",
    ),
    "redis-locked": (
        lambda directory: PrivateRedis(directory, "--requirepass", SECRET),
        "redis://:open%20sesame@127.0.0.1:{port}/0?prefix={name}&timeout=1",
    ),
    "postgres": (
        lambda directory: _started(PrivatePostgres()),
        "postgresql://postgres:open%20sesame@127.0.0.1:{port}/postgres?schema={name}&timeout=1",
    ),
    "nats": (
        lambda directory: _started(PrivateNats(directory, password=SECRET)),
        "nats://tester:open%20sesame@127.0.0.1:{port}/{name}?timeout=1",
    ),
}
"""For each kind of server, a function that starts it and the URL of a log on it."""


class Log(NamedTuple):
    """A log of one test.

    Attributes:
        kind: the kind of its server.
        server: its server.
        name: its name on that server.
    """

    kind: str
    server: PrivateServer
    name: str

    @property
    def url(self) -> str:
        return self.url_at(self.server.port)

    def url_at(self, port: int) -> str:
        """Return its URL with another port."""
        return KINDS[self.kind][1].format(port=port, name=self.name)


class Servers:
    """One server of each kind, shared by all tests."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, PrivateServer] = {}
        self._numbers = itertools.count(1)

    @contextmanager
    def log(self, kind: str) -> Iterator[Log]:
        """Yield a new log. A server whose test fails is not used again, because it may be stopped."""
        if kind not in self._running:
            self._running[kind] = KINDS[kind][0](self._directory)
        try:
            yield Log(kind, self._running[kind], f"log{next(self._numbers)}")
        except BaseException:
            self._running.pop(kind).end()
            raise

    def end(self) -> None:
        """End all servers."""
        while self._running:
            self._running.popitem()[1].end()
