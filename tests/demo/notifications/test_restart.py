"""Kill and restart the program: no notification is lost or repeated."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from broker.nats_logs import nats_absent
from broker.private_servers import require
from tickertape.demo.notifications.demo import DURABLE

from .databases import KINDS, execute, whole_database
from .programs import Demo, running

NATS: Final = os.environ.get("TICKERTAPE_TEST_NATS", "nats://127.0.0.1:4222")

RESTARTS: Final = 2
"""Number of times that the program is killed."""

EVENTS_BEFORE_KILL: Final = 15
"""Events that the client receives before the program is killed, in the middle of its work."""


async def listen_and_kill(demo: Demo) -> None:
    """Receive some events, kill the program while it publishes more, and read the rest of the stream."""
    async with demo.listening() as received:
        for _ in range(EVENTS_BEFORE_KILL):
            await anext(received)
        demo.kill()
        async for _ in received:
            pass


async def listen_until(demo: Demo, title: str) -> None:
    async with demo.listening() as received:
        while demo.titles[-1] != title:
            await anext(received)


class Writer(threading.Thread):
    """Another program that writes rows all the time."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopped = threading.Event()
        self.titles: list[str] = []

    def run(self) -> None:
        while not self._stopped.wait(0.01):
            self.write(f"{len(self.titles)}")

    def write(self, title: str) -> None:
        execute(self._url, "INSERT INTO notifications (user_id, title) VALUES ('ann', ?), ('bob', 'of Bob')", title)
        self.titles.append(title)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


@pytest.mark.parametrize("kind", KINDS)
async def test_rows_after_kill(kind: str, tmp_path: Path) -> None:
    with whole_database(kind, tmp_path) as url, running(tmp_path, "--database", url) as demo:
        await demo.sign_in("Ann")
        writer = Writer(url)
        writer.start()
        try:
            for _ in range(RESTARTS):
                await listen_and_kill(demo)
                await asyncio.to_thread(wait_for_rows, writer, len(writer.titles) + EVENTS_BEFORE_KILL)
                demo.start()
        finally:
            writer.stop()
        writer.write("the last")
        await listen_until(demo, "the last")
        assert demo.titles == writer.titles
        page = await demo.request("/notifications/inbox?limit=3")
        assert [each["title"] for each in page["notifications"]] == writer.titles[:-4:-1]


def wait_for_rows(writer: Writer, count: int) -> None:
    """Wait until there are ``count`` rows, so that some are written while the program is down."""
    while len(writer.titles) < count:
        writer.join(0.01)
        assert writer.is_alive()


async def test_queue_after_kill(tmp_path: Path) -> None:
    require(nats_absent())
    name = f"test_{secrets.token_hex(6)}"
    client = await nats.connect(NATS)
    jetstream = client.jetstream()
    try:
        await jetstream.add_stream(name=name, subjects=[f"{name}.*"])
        # NATS delivers unacknowledged messages again after 1 s, instead of 30 s.
        soon = ConsumerConfig(
            durable_name=DURABLE, filter_subject=f"{name}.*", ack_policy=AckPolicy.EXPLICIT, ack_wait=1
        )
        await jetstream.add_consumer(name, soon)
        sent: list[str] = []

        async def publish(count: int) -> None:
            for _ in range(count):
                message = {"user": "Ann", "title": f"{len(sent)}"}
                sent.append(message["title"])
                await jetstream.publish(f"{name}.notify", json.dumps(message).encode())

        with running(tmp_path, "--queue", f"{NATS}/{name}.*") as demo:
            await demo.sign_in("Ann")
            for _ in range(RESTARTS):
                for invalid in (b"{", b'{"user": "Ann"}', b'"Ann"', b"\xff", b""):
                    await jetstream.publish(f"{name}.notify", invalid)
                await publish(3 * EVENTS_BEFORE_KILL)
                await listen_and_kill(demo)
                await publish(5)
                demo.start()
            await publish(1)
            async with demo.listening() as received:
                # The order may differ: redelivered messages come after newer ones.
                while len(demo.titles) < len(sent):
                    await anext(received)
            assert sorted(demo.titles, key=int) == sent
    finally:
        with suppress(nats.js.errors.NotFoundError):
            await jetstream.delete_stream(name)
        await client.close()


async def test_terminated_postgres_connections(tmp_path: Path) -> None:
    with whole_database("postgres", tmp_path) as url, running(tmp_path, "--database", url) as demo:
        await demo.sign_in("Ann")
        insert = "INSERT INTO notifications (user_id, title) VALUES ('ann', ?)"
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        async with demo.listening() as received:
            for number in range(2):
                execute(url, insert, f"notified {number}")
                await anext(received)
                execute(url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
                execute(url, insert, f"not notified {number}")
                await anext(received)
        assert demo.titles == [f"{what} {number}" for number in range(2) for what in ("notified", "not notified")]
