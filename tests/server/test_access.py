"""Access control over HTTP: what each credential may do, tickets over workers, and secrets in all output."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest

from support.access import ADMIN, bearer, protect
from support.http import JSON, site
from support.program import serving
from support.servers import Connection
from tickertape.access import add_key
from tickertape.errors import StreamEndedError
from tickertape.hub import Grant
from tickertape.testing import FakeClock

GRANTS = {
    "reader": Grant(user="reader", subscribe=("a/**",)),
    "writer": Grant(user="writer", publish=("a/**", "run/a/**")),
    "all": Grant(user="all", subscribe=("**",), publish=("**",)),
    "admin": ADMIN,
}

EVENT = b'{"topic":"a/1","data":"x"}'
BATCH = b'[{"topic":"a/1","data":"x"},{"topic":"b","data":"x"}]'

TABLE = [
    # method, url, body, and the status for: none, wrong, reader, writer, all, admin
    ("GET", "/events?topic=a/*", b"", (401, 401, 200, 403, 200, 200)),
    ("GET", "/events?topic=a/*&topic=b", b"", (401, 401, 403, 403, 200, 200)),
    ("GET", "/events?topic=news", b"", (200, 401, 403, 403, 200, 200)),
    ("GET", "/events?topic=runs/**", b"", (401, 401, 403, 403, 403, 200)),
    ("GET", "/events?topic=**", b"", (401, 401, 403, 403, 200, 200)),
    ("POST", "/events", EVENT, (401, 401, 403, 201, 201, 201)),
    ("POST", "/events", BATCH, (401, 401, 403, 403, 201, 201)),
    ("POST", "/events/a/1", b"x", (401, 401, 403, 201, 201, 201)),
    ("POST", "/events/runs/a", b"x", (401, 401, 403, 403, 403, 403)),
    ("POST", "/events/hub-access/revocations", b"{}", (401, 401, 403, 403, 403, 403)),
    ("POST", "/topics/a/1/end", b"", (401, 401, 403, 200, 200, 200)),
    ("GET", "/history?topic=a/**", b"", (401, 401, 200, 403, 200, 200)),
    ("GET", "/topics", b"", (200, 401, 200, 403, 200, 200)),
    ("GET", "/subscribers", b"", (401, 401, 403, 403, 403, 200)),
    ("GET", "/metrics", b"", (401, 401, 403, 403, 403, 200)),
    ("GET", "/statistics", b"", (401, 401, 403, 403, 403, 200)),
    ("GET", "/runs", b"", (200, 401, 200, 403, 200, 200)),
    ("POST", "/runs/a/1", b"", (401, 401, 403, 201, 403, 409)),
    ("GET", "/runs/b", b"", (401, 401, 403, 403, 403, 404)),
    ("POST", "/runs/b/cancel", b"", (401, 401, 403, 403, 403, 404)),
    ("POST", "/tickets", b'{"topics":["a/1"]}', (401, 401, 201, 403, 201, 201)),
    ("POST", "/revocations", b'{"user":"x"}', (401, 401, 403, 403, 403, 201)),
    ("GET", "/health/ready", b"", (200, 200, 200, 200, 200, 200)),
    ("GET", "/openapi.json", b"", (200, 200, 200, 200, 200, 200)),
]


@pytest.mark.parametrize(("method", "url", "body", "statuses"), TABLE)
async def test_table(method: str, url: str, body: bytes, statuses: tuple[int, ...]) -> None:
    async with site() as hub:
        protect(hub.hub, GRANTS, 1.0, subscribe=["news"])
        for word, status in zip(("", "wrong", *GRANTS), statuses, strict=True):
            headers = (JSON if body[:1] in (b"{", b"[") else {}) | (bearer(word) if word else {})
            async with hub.client.open(url, method=method, body=body, headers=headers) as response:
                assert response.status == status, word


ENDS = [
    # the end of the right, the framing, the last event or the cut that the reader gets
    ("expired", "events", "stream:expired"),
    ("revoked", "events", "stream:expired"),
    ("expired", "openai_chat", "cut"),
    ("revoked", "openai_chat", "cut"),
]


@pytest.mark.parametrize(("end", "framing", "last"), ENDS)
async def test_stream_of_a_run_ends_with_its_right(end: str, framing: str, last: str) -> None:
    """Like every stream. A reader of another protocol must not take a part of the run for the whole."""
    clock = FakeClock()
    until = time.time() + 60 if end == "expired" else None
    grant = Grant(user="ann", subscribe=("run/a/**",), until=until)
    async with site(clock=clock) as hub:
        protect(hub.hub, {"ann": grant, "admin": ADMIN})
        await hub.ask("POST", "/runs/a", headers=bearer("admin"))
        await hub.ask("POST", "/runs/a/events", b'"x"', JSON | bearer("admin"))
        async with hub.client.open(f"/runs/a?framing={framing}", headers=bearer("ann")) as stream:
            assert "x" in (await stream.next_event()).data
            if end == "expired":
                for _ in range(13):
                    clock.advance(5)
                    await hub.ask("POST", "/runs/a/events", b"[]", JSON | bearer("admin"))  # a sign of life
            else:
                await hub.ask("POST", "/revocations", b'{"user":"ann"}', JSON | bearer("admin"))
            if last == "cut":
                with pytest.raises(StreamEndedError):
                    await stream.next_event()
                await stream.finished()
                assert not stream.complete
                assert isinstance(stream.error, StreamEndedError)
            else:
                event = await stream.next_event()
                assert (event.type, event.json()["reason"]) == (last, end)
                await stream.finished()
                assert stream.error is None


async def test_lists_are_filtered() -> None:
    async with site() as hub:
        protect(hub.hub, GRANTS)
        for topic in ("a/1", "b"):
            await hub.hub.publish(topic, "x")
        await hub.ask("POST", "/runs/a/1", headers=bearer("admin"))
        seen = {
            word: [each["topic"] for each in (await hub.ask("GET", "/topics", headers=bearer(word))).json()["topics"]]
            for word in ("reader", "all", "admin")
        }
        assert seen["reader"] == ["a/1"]
        assert seen["all"] == ["a/1", "b"]
        assert {topic.partition("/")[0] for topic in seen["admin"]} >= {"a", "b", "runs"}
        runs = {
            word: len((await hub.ask("GET", "/runs", headers=bearer(word))).json()["runs"]) for word in ("all", "admin")
        }
        assert runs == {"all": 0, "admin": 1}


async def test_ticket() -> None:
    async with site() as hub:
        protect(hub.hub, GRANTS, 1.0)
        answer = await hub.ask("POST", "/tickets", b'{"topics":["a/*"]}', JSON | bearer("reader"))
        ticket = answer.json()["ticket"]
        assert answer.json()["valid"] == 30
        assert (await hub.ask("POST", f"/tickets?ticket={ticket}", b'{"topics":["a/*"]}', JSON)).status == 401
        ticket = (await hub.ask("POST", "/tickets", b'{"topics":["a/*"]}', JSON | bearer("reader"))).json()["ticket"]
        async with hub.client.open(f"/events?topic=a/1&ticket={ticket}") as stream:
            await hub.hub.publish("a/1", "x")
            assert (await stream.next_event()).data == "x"
            assert [info.user for info in hub.hub.presence] == ["reader"]
            assert (await hub.ask("GET", f"/events?topic=a/1&ticket={ticket}")).status == 401
            await hub.ask("POST", "/revocations", b'{"user":"reader"}', JSON | bearer("admin"))
            assert (await stream.next_event()).json() == {"reason": "revoked"}
        assert (await hub.ask("GET", "/events?topic=a/1", headers=bearer("reader"))).status == 401


async def test_workers(tmp_path: Path) -> None:
    """A ticket of one worker is good on any, once; and the output has no credential in it."""
    keys = tmp_path / "keys.toml"
    reader = add_key(keys, "reader", subscribe=["a/**"])
    options = ["--workers", "2", "--broker", f"sqlite:///{tmp_path}/log.db", "--api-key-file", str(keys)]
    async with serving(*options, "--access-log", "--log-level", "debug") as program:
        async with httpx2.AsyncClient(base_url=program.url, headers=bearer(reader)) as client:
            answers = [await client.post("/tickets", json={"topics": ["a/*"]}) for _ in range(6)]
        tickets = [answer.json()["ticket"] for answer in answers]
        for ticket in tickets:
            statuses = []
            for _ in range(4):
                async with await Connection.open(program.port) as connection:
                    statuses.append(await connection.get(f"/events?topic=a/1&ticket={ticket}"))
            assert statuses == [200, 401, 401, 401]
        async with await Connection.open(program.port) as connection:
            assert await connection.get(f"/events?topic=a/1&access_token={reader}") == 401
        await program.end()
        assert "ticket=***" in program.output
        for secret in (reader, *tickets):
            assert secret not in program.output
