"""Notifications while the real program is killed and started again: none is lost, and none comes twice."""

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
from tickertape.demo.notifications.queue import DURABLE

from .databases import KINDS, execute, whole_database
from .programs import Demo, running

NATS: Final = os.environ.get("TICKERTAPE_TEST_NATS", "nats://127.0.0.1:4222")

LIVES: Final = 2
"""How often the program is killed."""

PROGRESS: Final = 15
"""Events of a life before its end: it dies in the middle of its work."""


async def live_and_die(demo: Demo) -> None:
    """Listen for a while, and kill the program while rows are on their way; take what it had sent."""
    async with demo.listening() as received:
        for _ in range(PROGRESS):
            await anext(received)
        demo.kill()
        async for _ in received:
            pass


async def listen_until(demo: Demo, title: str) -> None:
    async with demo.listening() as received:
        while demo.titles[-1] != title:
            await anext(received)


class Writer(threading.Thread):
    """Another program, which writes rows as fast as it can, whatever becomes of the demo."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._over = threading.Event()
        self.titles: list[str] = []

    def run(self) -> None:
        while not self._over.wait(0.01):
            self.write(f"{len(self.titles)}")

    def write(self, title: str) -> None:
        execute(self._url, "INSERT INTO notifications (user_id, title) VALUES ('ann', ?), ('bob', 'of Bob')", title)
        self.titles.append(title)

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.parametrize("kind", KINDS)
async def test_no_row_is_lost_and_none_comes_twice(kind: str, tmp_path: Path) -> None:
    with whole_database(kind, tmp_path) as url, running(tmp_path, "--database", url) as demo:
        await demo.sign_in("Ann")
        writer = Writer(url)
        writer.start()
        try:
            for _ in range(LIVES):
                await live_and_die(demo)
                await asyncio.to_thread(wait_for_rows, writer, len(writer.titles) + PROGRESS)
                demo.start()
        finally:
            writer.stop()
        writer.write("the last")
        await listen_until(demo, "the last")
        assert demo.titles == writer.titles
        page = await demo.ask("/notifications/inbox?limit=3")
        assert [found["title"] for found in page["notifications"]] == writer.titles[:-4:-1]


def wait_for_rows(writer: Writer, count: int) -> None:
    """Return when there are ``count`` rows: some are written while nobody reads."""
    while len(writer.titles) < count:
        writer.join(0.01)
        assert writer.is_alive()


async def test_no_message_of_a_queue_is_lost_and_none_comes_twice(tmp_path: Path) -> None:
    require(nats_absent())
    name = f"test_{secrets.token_hex(6)}"
    client = await nats.connect(NATS)
    jetstream = client.jetstream()
    try:
        await jetstream.add_stream(name=name, subjects=[f"{name}.*"])
        # What a killed program had taken and not acknowledged comes again after a second, not after 30.
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
            for _ in range(LIVES):
                for broken in (b"{", b'{"user": "Ann"}', b'"Ann"', b"\xff", b""):
                    await jetstream.publish(f"{name}.notify", broken)
                await publish(3 * PROGRESS)
                await live_and_die(demo)
                await publish(5)
                demo.start()
            await publish(1)
            async with demo.listening() as received:
                # In the order of arrival: what is delivered again comes behind what was sent meanwhile.
                while len(demo.titles) < len(sent):
                    await anext(received)
            assert sorted(demo.titles, key=int) == sent
    finally:
        with suppress(nats.js.errors.NotFoundError):
            await jetstream.delete_stream(name)
        await client.close()


async def test_lost_connections_to_postgres_delay_and_lose_nothing(tmp_path: Path) -> None:
    with whole_database("postgres", tmp_path) as url, running(tmp_path, "--database", url) as demo:
        await demo.sign_in("Ann")
        insert = "INSERT INTO notifications (user_id, title) VALUES ('ann', ?)"
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        async with demo.listening() as received:
            for number in range(2):
                execute(url, insert, f"heard of {number}")
                await anext(received)
                execute(url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
                execute(url, insert, f"not heard of {number}")
                await anext(received)
        assert demo.titles == [f"{what} {number}" for number in range(2) for what in ("heard of", "not heard of")]
