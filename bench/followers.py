"""The load of a broker's server for each worker that follows the log, by processor time for each event.

Every worker follows the log over its own connection, so the server sends each event once to each of them. The server
is a private one, apart from PostgreSQL, where only the sessions of a new database count. Events of 120 bytes are
stored one by one, each after the last follower has the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, NamedTuple

import psutil
import psycopg

from tickertape.broker import Broker, create_broker
from tickertape.wire import Cursor, Draft

from .brokers_stores import POSTGRES
from .processes import free_port, processor_time, wait_for

FOLLOWERS: Final = (1, 16)
EVENTS: Final = 500
WARM: Final = 20
SAMPLE: Final = 10
"""Events between two looks at the sessions of PostgreSQL, which end when they are idle."""

SIZE: Final = 120
PATIENCE: Final = 60.0


class Store(NamedTuple):
    """A server: the URL of a log, a function that returns its processor time, and one that counts its connections."""

    url: str
    spent: Callable[[], float]
    connections: Callable[[], int]


@contextlib.contextmanager
def _program(command: list[str], port: int, url: str) -> Iterator[Store]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield Store(url, lambda: processor_time(process.pid), lambda: _connected(process.pid, port))
    finally:
        process.kill()
        process.wait()


def _connected(pid: int, port: int) -> int:
    found = psutil.Process(pid).net_connections("tcp")
    return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in found)


@contextlib.contextmanager
def redis() -> Iterator[Store]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", f"{port}", "--dir", folder, "--save", "", "--appendonly", "yes"]
        with _program(["redis-server", *options], port, f"redis://127.0.0.1:{port}/0") as store:
            yield store


@contextlib.contextmanager
def nats() -> Iterator[Store]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["-a", "127.0.0.1", "-p", f"{port}", "-js", "-sd", folder]
        with _program(["nats-server", *options], port, f"nats://127.0.0.1:{port}") as store:
            yield store


@contextlib.contextmanager
def postgres() -> Iterator[Store]:
    name = f"followers_{secrets.token_hex(4)}"
    with psycopg.connect(POSTGRES, autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}")
        try:
            sessions = "SELECT pid FROM pg_stat_activity WHERE datname = %s"

            def pids() -> list[int]:
                return [pid for (pid,) in session.execute(sessions, (name,))]

            seen: dict[int, float] = {}

            def spent() -> float:
                for pid in pids():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        seen[pid] = processor_time(pid)
                return sum(seen.values())

            url = psycopg.conninfo.conninfo_to_dict(POSTGRES)
            host, port, user = url["host"], url.get("port", 5432), url["user"]
            yield Store(
                f"postgresql://{user}@{host}:{port}/{name}",
                spent,
                lambda: len(pids()),
            )
        finally:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")


STORES: Final = {"Redis": redis, "NATS": nats, "PostgreSQL": postgres}
PROGRAMS: Final = {"Redis": "redis-server", "NATS": "nats-server"}


class Found(NamedTuple):
    """Processor times for an event, of the server and of this process with all followers; the server's connections."""

    server: float
    followers: float
    connections: int


async def measure(store: Store, followers: int, events: int) -> Found:
    """Store events one by one, each after all followers have the one before."""
    async with contextlib.AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(_opened(store.url))
        arrived = asyncio.Semaphore(0)
        state = await publisher.state()
        for _ in range(followers):
            broker = await stack.enter_async_context(_opened(store.url))
            task = asyncio.create_task(_follow(broker, Cursor(state.epoch, state.newest), arrived, WARM + events))
            stack.callback(task.cancel)
        spent = own = 0.0
        for number in range(WARM + events):
            if number == WARM:
                spent, own = store.spent(), time.process_time()
            await publisher.append([Draft("followers", data="x" * SIZE)])
            async with asyncio.timeout(PATIENCE):
                for _ in range(followers):
                    await arrived.acquire()
            if number % SAMPLE == 0:
                store.spent()
        assert (await publisher.state()).newest == state.newest + WARM + events
        used = store.spent() - spent, time.process_time() - own
        return Found(used[0] / events, used[1] / events, store.connections())


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Broker]:
    broker = create_broker(url)
    try:
        await broker.open()
        yield broker
    finally:
        await broker.close()


async def _follow(broker: Broker, after: Cursor, arrived: asyncio.Semaphore, events: int) -> None:
    seen = 0
    async for records in broker.tail(after):
        for _ in records:
            seen += 1
            arrived.release()
        if seen >= events:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    options, _ = parser.parse_known_args()
    few, many = FOLLOWERS
    titles = (f"us an event, {few} follows", f"{many} follow", "for each", "of a follower", "connections of each")
    print(f"{'':12}" + "".join(f"{title:>{len(title) + 3}}" for title in titles))
    for name, start in STORES.items():
        if name in PROGRAMS and shutil.which(PROGRAMS[name]) is None:
            print(f"{name:12}skipped, {PROGRAMS[name]} is missing")
            continue
        with start() as store:
            one = asyncio.run(measure(store, few, options.events))
            all_of_them = asyncio.run(measure(store, many, options.events))
        each = [(after - before) / (many - few) for before, after in zip(one, all_of_them, strict=True)]
        figures = (one.server * 1e6, all_of_them.server * 1e6, each[0] * 1e6, each[1] * 1e6, each[2])
        shown = zip(titles, figures, strict=True)
        print(f"{name:12}" + "".join(f"{figure:{len(title) + 3}.1f}" for title, figure in shown))


if __name__ == "__main__":
    main()
