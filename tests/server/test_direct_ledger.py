"""The ledger of ``tests/hub`` over real sockets, and a server that stops with a thousand streams."""

from __future__ import annotations

import asyncio
import json
import random
import time
from contextlib import closing

import pytest

from support.servers import BIN, START, TESTS, Connection, Program, free_port, until
from tickertape import Decoder

APP = "support.direct_app:app"
DRAIN_WINDOW = 1.0  # of the application's hub
TOPICS = ("a", "b", "c")


class Uvicorn(Program):
    """uvicorn with the application, at a free port or a given one."""

    def __init__(self, *options: str, events: int = 100_000, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        command = [str(BIN / "uvicorn"), APP, f"--port={self.port}", "--log-level=warning", *options]
        super().__init__(command, {"PYTHONPATH": str(TESTS), "EVENTS": str(events)})
        self.wait_for(self.port)

    async def ask(self, path: str) -> list[str]:
        async with await Connection.open(self.port) as connection:
            assert await connection.get(path) == 200
            answer: list[str] = json.loads(await connection.rest())
            return answer


class Client:
    """A client that resumes after its last id, and keeps account of every event in between."""

    def __init__(self, server: Uvicorn, app: str, topic: str, rng: random.Random) -> None:
        self.server = server
        self.app = app
        self.topic = topic
        self.rng = rng
        self.offset: int | None = None  # accounted for up to here
        self.delivered: list[int] = []
        self.declared: list[tuple[int, int]] = []
        self.streams = 0
        self.over = asyncio.Event()
        self.until = -1

    async def run(self) -> None:
        while not self.over.is_set() or self.offset is None or self.offset < self.until:
            small = self.rng.choice((None, 4096))
            async with await Connection.open(self.server.port, receive_buffer=small) as connection:
                place = "" if self.offset is None else f"Last-Event-ID: {self.epoch}-{self.offset}\r\n"
                path = f"/{self.app}/events?topic={self.topic}&policy={self.rng.choice(('disconnect', 'skip'))}"
                assert await connection.get(path, headers=place) == 200
                self.streams += 1
                await self.read(connection, self.rng.choice((1, 3, 10, 1000)))

    async def read(self, connection: Connection, pieces: int) -> None:
        decoder = Decoder(comments=True)
        while pieces or self.over.is_set():
            if self.over.is_set() and self.offset is not None and self.offset >= self.until:
                return
            pieces -= 1
            try:
                async with asyncio.timeout(0.5):
                    piece = await connection.piece()
            except TimeoutError:
                return  # silence: leave, and reconnect
            if not piece:
                return
            for event in decoder.feed(piece):
                self.epoch, _, offset = (event.id or decoder.last_event_id or "").partition("-")
                if event.event == "stream:gap":
                    gap = event.json()
                    after, resumed = (int(gap[name].split("-")[1]) for name in ("after", "resumed"))
                    self.declared.append((after, resumed))
                    self.offset = resumed
                elif event.comment is None:
                    self.delivered.append(int(offset))
                    self.offset = int(offset)
            if self.offset is None and decoder.last_event_id is not None:
                self.epoch, _, offset = decoder.last_event_id.partition("-")
                self.offset = int(offset)
                self.start = self.offset
            if self.rng.random() < 0.02 and not self.over.is_set():
                await asyncio.sleep(0.2)  # does not read for a while

    def check(self, published: list[int]) -> None:
        """Compare the received events with those published to the topic since the first stream began."""
        assert self.delivered == sorted(set(self.delivered)), "in order, each once"
        gone = {offset for after, resumed in self.declared for offset in range(after + 1, resumed + 1)}
        expected = [offset for offset in published if offset > self.start]
        missing = [offset for offset in expected if offset not in gone and offset not in self.delivered]
        assert missing == [], (self.topic, missing)
        assert set(self.delivered) <= set(published)


@pytest.mark.parametrize(
    ("loop", "http", "app"),
    [
        ("asyncio", "httptools", "bare"),
        ("uvloop", "httptools", "bare"),
        ("asyncio", "httptools", "portable"),
        ("uvloop", "h11", "bare"),
    ],
)
async def test_ledger_over_sockets(loop: str, http: str, app: str) -> None:
    """Every event is delivered, or declared as missing by a gap."""
    seed = 7
    with closing(Uvicorn(f"--loop={loop}", f"--http={http}", events=150)) as server:
        rng = random.Random(seed)
        clients = [Client(server, app, rng.choice(TOPICS), random.Random(seed + number)) for number in range(40)]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        published: dict[str, list[int]] = {topic: [] for topic in TOPICS}
        for _ in range(60):
            topic = rng.choice(TOPICS)
            count, size = rng.choice(((1, 10), (10, 100), (60, 2000), (20, 30_000), (2, 500_000)))
            cursors = await server.ask(f"/publish?topic={topic}&n={count}&size={size}")
            published[topic] += [int(cursor.split("-")[1]) for cursor in cursors]
        ways = [way for topic in TOPICS for way in await server.ask(f"/ways?topic={topic}")]
        for topic in TOPICS:  # one more for each, which everyone still has to get
            (cursor,) = await server.ask(f"/publish?topic={topic}")
            published[topic].append(int(cursor.split("-")[1]))
        for client in clients:
            client.until = published[client.topic][-1]
            client.over.set()
        async with asyncio.timeout(40):
            await asyncio.gather(*tasks)
        for client in clients:
            client.check(published[client.topic])
        assert {way.split(",")[0] for way in ways} == {"portable" if app == "portable" else "direct"}
        assert sum(client.streams for client in clients) > 100
        assert sum(len(client.delivered) for client in clients) > 2000
        assert "Traceback" not in server.output, server.output


@pytest.mark.parametrize(("app", "way"), [("bare", "direct"), ("portable", "portable")])
async def test_thousand_streams_and_a_restart(app: str, way: str) -> None:
    """All streams end in time with their server. The memory log is new after a restart, so resuming gives a gap."""
    with closing(Uvicorn("--backlog=2048")) as server:
        connections = [await Connection.open(server.port) for _ in range(1000)]
        for connection in connections:
            await connection.ask(f"/{app}/events?topic=a")
        for connection in connections:
            assert await connection.head() == 200
            await connection.piece()
        ways = await server.ask("/ways?topic=a")
        assert [each.split(",")[0] for each in ways] == [way] * 1000
        published: list[str] = []
        publishing = asyncio.create_task(publish_until_refused(server, published))
        reading = asyncio.gather(*(connection.rest() for connection in connections))
        await until(lambda: len(published) > 20, lambda: "events to be published", within=START)
        start = time.monotonic()
        await server.end()
        took = time.monotonic() - start
        bodies = await reading
        await publishing
        assert took < DRAIN_WINDOW + 2, took
        assert all(connection.complete for connection in connections)
        assert all(b"data: " in body and b"\nretry: " in body[-20:] for body in bodies)
        for connection in connections:
            await connection.close()
    last = Decoder()
    last.feed(bodies[0])
    with closing(Uvicorn(port=server.port)) as again:
        async with await Connection.open(again.port) as connection:
            await connection.get(f"/{app}/events?topic=a", headers=f"Last-Event-ID: {last.last_event_id}\r\n")
            event = await connection.event()
            assert event.event == "stream:gap"
            gap = event.json()
            assert (gap["reason"], gap["after"]) == ("reset", last.last_event_id)


async def publish_until_refused(server: Uvicorn, cursors: list[str]) -> None:
    """Publish as long as the server accepts connections."""
    while True:
        try:
            cursors += await server.ask("/publish?topic=a&n=1&size=100")
        except (OSError, AssertionError):
            return
