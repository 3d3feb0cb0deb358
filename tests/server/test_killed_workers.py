"""Workers that are killed while they serve: every event is delivered or declared, and stored once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

from support.ledger import Account, Ledger, Published
from support.program import Serve, serving, workers_of
from support.servers import START, Connection, until
from tickertape import Decoder, ServerSentEvent
from tickertape.broker import create_broker
from tickertape.client import Draft, Publisher
from tickertape.wire import Cursor

SEED = 11
READERS = 100
PUBLISHERS = 6
BATCHES = 40
"""Of each publisher."""

KILLS = 5
KEPT = 1000
"""Events in the log: more than are published while a publisher tries again, fewer than a sleeping reader misses."""

TOPICS = ("a", "b/1", "b/2", "c")
AUDIENCES = (("**",), ("a",), ("b/*",), ("b/1", "c"))


class Reader:
    """A client that reconnects with its last id until the end, and records all events without a check."""

    def __init__(self, port: int, number: int) -> None:
        self.port = port
        self.patterns = AUDIENCES[number % len(AUDIENCES)]
        self.rng = random.Random(SEED + number)
        self.sleeps = number % 10 == 0  # away from its first event to the end
        self.place: str | None = None
        self.start: str | None = None
        self.events: list[ServerSentEvent] = []
        self.streams = 0
        self.over = asyncio.Event()
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        while True:
            with suppress(OSError):
                async with await Connection.open(self.port) as connection:
                    await self.read(connection)
            if self.over.is_set() and self.streams and self.events and self.events[-1].data == "the end":
                return
            if self.sleeps and self.events:
                await self.over.wait()
            await asyncio.sleep(self.rng.uniform(0.0, 0.1))

    async def read(self, connection: Connection) -> None:
        query = "&".join(f"topic={pattern}" for pattern in (*self.patterns, "end"))
        place = "" if self.place is None else f"Last-Event-ID: {self.place}\r\n"
        assert await connection.get(f"/events?{query}&on_overflow=skip", headers=place) == 200
        self.streams += 1
        decoder = Decoder()
        while piece := await connection.piece():
            self.events += decoder.feed(piece)
            self.place = decoder.last_event_id or self.place
            self.start = self.start or self.place
            leaves = self.sleeps and self.events and not self.over.is_set()
            if leaves or (self.events and self.events[-1].data == "the end"):
                return


async def publish(url: str, number: int, ledger: Ledger, progress: asyncio.Queue[int]) -> int:
    """Publish batches one after the other, each until it is acknowledged; return the number of repeated attempts."""
    rng = random.Random(SEED * 1000 + number)
    async with Publisher(url, max_attempts=None, max_delay=0.3) as publisher:
        for batch in range(BATCHES):
            drafts = [
                Draft(rng.choice(TOPICS), f"{number}/{batch}/{place}", key=f"{number}/{batch}/{place}")
                for place in range(rng.choice((1, 5, 40)))
            ]
            for draft, text in zip(drafts, await publisher.publish_many(drafts), strict=True):
                enter(ledger, text, draft.topic, str(draft.data))
            progress.put_nowait(1)
            await asyncio.sleep(rng.uniform(0.0, 0.1))
        return publisher.statistics().retries


def enter(ledger: Ledger, text: str, topic: str, data: str) -> None:
    """Record an acknowledged event; no cursor may be used twice."""
    cursor = Cursor.parse(text)
    assert cursor is not None
    log = ledger.published.setdefault(cursor.epoch, {})
    assert cursor.offset not in log, ("one offset for two events", cursor, log[cursor.offset], data)
    log[cursor.offset] = Published(topic, data)


async def kill_workers(program: Serve, progress: asyncio.Queue[int]) -> list[int]:
    """Kill one worker after the other, each after a number of publications; return their ids."""
    rng = random.Random(SEED)
    killed = []
    for _ in range(KILLS):
        for _ in range(rng.randint(10, PUBLISHERS * BATCHES // KILLS - 10)):
            await progress.get()
        pids = [pid for pid in workers_of(program) if pid not in killed]
        while not pids:
            await asyncio.sleep(0.01)
            pids = [pid for pid in workers_of(program) if pid not in killed]
        killed.append(rng.choice(sorted(pids)))
        os.kill(killed[-1], signal.SIGKILL)
    return killed


async def test_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    ledger = Ledger()
    options = ("--workers", "2", "--broker", url, "--retention-events", str(KEPT))
    async with serving(*options) as program:
        readers = [Reader(program.port, number) for number in range(READERS)]
        await until(lambda: all(reader.start for reader in readers), lambda: "streams of all readers", within=START)
        progress: asyncio.Queue[int] = asyncio.Queue()
        killing = asyncio.create_task(kill_workers(program, progress))
        publishing = [publish(program.url, number, ledger, progress) for number in range(PUBLISHERS)]
        retries = sum(await asyncio.gather(*publishing))
        killed = await killing
        for reader in readers:
            reader.over.set()
        async with Publisher(program.url, max_attempts=None, max_delay=0.3) as publisher:
            enter(ledger, await publisher.publish("end", "the end"), "end", "the end")
        async with asyncio.timeout(START):
            await asyncio.gather(*(reader.task for reader in readers))
        await until(
            lambda: len(set(workers_of(program)) - {*killed}) == 2,
            lambda: f"two workers: {program.output}",
            within=START,
        )
        await program.end()
        assert program.process.returncode == 0
        assert program.output.count("was killed by SIGKILL") == KILLS
        assert "Traceback" not in program.output
    await balance(ledger, readers, url)
    print(f"\n{ledger_line(ledger)}; {KILLS} workers killed, {retries} publications retried")  # noqa: T201
    assert retries > 0
    assert ledger.subscriptions > READERS * 1.5
    assert ledger.gaps["expired"] >= READERS // 20, "sleepers"
    assert ledger.gaps["reset"] == 0


async def balance(ledger: Ledger, readers: list[Reader], url: str) -> None:
    """Compare the log, and the events of each reader, with the acknowledged events."""
    broker = create_broker(url)
    state = await broker.open()
    log = ledger.published[state.epoch]
    assert sorted(log) == list(range(1, state.newest + 1)), "each is stored once, and nothing else is"
    for record in (await broker.read(state.oldest - 1, KEPT)).records:
        assert log[record.offset] == Published(record.topic, record.data)
    await broker.close()
    for reader in readers:
        account = Account(ledger, tuple(sorted((*reader.patterns, "end"))), "skip")
        account.open(reader.start)
        for event in reader.events:
            account.receive(event)
        account.close(state.epoch, state.newest)
        ledger.subscriptions += reader.streams


def ledger_line(ledger: Ledger) -> str:
    """Return the ledger as a sentence."""
    (log,) = ledger.published.values()
    return (
        f"{len(log):,} events acknowledged, each stored once; {READERS} readers, {ledger.subscriptions} streams: "
        f"{ledger.delivered:,} deliveries, {ledger.declared:,} declared by {ledger.gaps['expired']} gaps, 0 missing"
    )
