"""Runs over HTTP: opened, filled and ended by any program, read by any client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from support.command import hub_program
from support.http import JSON, Site, site
from support.hub import settle
from support.pages import files_of
from support.servers import BIN, Connection
from tickertape.client import EventSource
from tickertape.runs import FRAMINGS
from tickertape.testing import EventStream

LINES = {"content-type": "application/x-ndjson"}
TEXT = {"content-type": "application/x-www-form-urlencoded"}


async def open_run(hub: Site, name: str = "build/7", **options: Any) -> dict[str, Any]:
    answer = await hub.post(options, f"/runs/{name}")
    assert answer.status == 201, answer
    found: dict[str, Any] = answer.json()
    return found


async def read_run(stream: EventStream) -> list[tuple[str | None, str | None]]:
    """Return the types and data of the events of a run, and at last how it ended."""
    found: list[tuple[str | None, str | None]] = []
    while (event := await stream.next_event()).event != "stream:end":
        found.append((event.event, event.data))
    return [*found, ("stream:end", event.json()["reason"])]


async def test_life_of_a_run() -> None:
    async with site() as hub:
        opened = await open_run(hub, owner="ada", ttl=60, key="k")
        assert opened["state"] == "active"
        assert opened["joined"] is False
        assert opened["topic"] == f"run/build/7/{opened['run']}"
        again = await hub.post({"owner": "ada", "key": "k"}, "/runs/build/7")
        assert (again.status, again.json()["run"], again.json()["joined"]) == (200, opened["run"], True)
        async with hub.client.open("/runs/build/7") as live:
            answer = await hub.ask("POST", "/runs/build/7/events", b"compiling", TEXT)
            assert (answer.status, list(answer.json())) == (201, ["cursor"])
            answer = await hub.post({"data": {"progress": 0.5}, "event": "progress"}, "/runs/build/7/events")
            assert (answer.status, list(answer.json())) == (201, ["cursor"])
            body = b'"linking"\n{"data": "text", "event": "log"}\n'
            answer = await hub.ask("POST", "/runs/build/7/events", body, LINES)
            assert (answer.status, len(answer.json()["cursors"])) == (201, 2)
            answer = await hub.ask("POST", "/runs/build/7/events?event=log", b"raw", TEXT)
            assert answer.status == 201
            ended = await hub.post({"state": "error", "error": "no disk"}, "/runs/build/7/end")
            assert (ended.status, ended.json()["state"], ended.json()["error"]) == (200, "error", "no disk")
            expected = [
                (None, "compiling"),
                ("progress", '{"progress":0.5}'),
                (None, "linking"),
                ("log", "text"),
                ("log", "raw"),
                ("stream:end", "error"),
            ]
            assert await read_run(live) == expected
        async with hub.client.open("/runs/build/7") as late:
            assert await read_run(late) == expected
            last = late.last_event_id
        assert last is not None
        over = await hub.ask("GET", "/runs/build/7", headers={"last-event-id": last})
        assert (over.status, over.body) == (204, b"")
        second = await hub.post({"state": "done"}, "/runs/build/7/end")
        assert (second.status, second.json()["state"]) == (200, "error")


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_framings(framing: str) -> None:
    async with site() as hub:
        await open_run(hub)
        await hub.post(["Hello", " world"], "/runs/build/7/events")
        async with hub.client.open(f"/runs/build/7?framing={framing}") as reader:
            first = await reader.next_event()
            await hub.ask("POST", "/runs/build/7/end")
            body = f"{first.data}" + (await reader.read()).decode()
        assert "Hello" in body
        assert " world" in body
        assert ("stream:end" in body) == (framing == "events")


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("", ["0", "1", "2"]),
        ("?after=0", ["1", "2"]),
        ("?after=2", []),
        ("?after=now", []),
    ],
)
async def test_after(query: str, data: list[str]) -> None:
    async with site() as hub:
        await open_run(hub)
        await hub.post(["0", "1", "2"], "/runs/build/7/events")
        await settle()
        async with hub.client.open(f"/runs/build/7{query}") as reader:
            await hub.ask("POST", "/runs/build/7/end")
            assert await read_run(reader) == [*((None, each) for each in data), ("stream:end", "done")]


@pytest.mark.parametrize("query", ["?after=-1", "?after=x", "?framing=x", "?framing="])
async def test_invalid_query(query: str) -> None:
    async with site() as hub:
        await open_run(hub)
        answer = await hub.ask("GET", f"/runs/build/7{query}")
        assert (answer.status, answer.problem()["title"]) == (400, "Bad Request")


async def test_fenced_by_id() -> None:
    """A late request with the id of an earlier run changes nothing in a newer one."""
    async with site() as hub:
        first = (await open_run(hub))["run"]
        second = (await open_run(hub, replace=True))["run"]
        for action, status in (("events", 409), ("end", 200), ("cancel", 200)):
            answer = await hub.post("late" if action == "events" else {}, f"/runs/build/7/{action}?run={first}")
            assert answer.status == status
            assert answer.json()["state"] == "cancelled"
            unknown = await hub.post("late" if action == "events" else {}, f"/runs/build/7/{action}?run=e-1")
            assert (unknown.status, unknown.problem()["detail"]) == (404, "there is no run 'build/7' with the id 'e-1'")
        found = (await hub.ask("GET", "/runs")).json()["runs"]
        assert [(each["run"], each["state"]) for each in found] == [(second, "active")]
        async with hub.client.open(f"/runs/build/7?run={first}") as reader:
            assert await read_run(reader) == [("stream:end", "cancelled")]


async def test_one_active_run_of_a_name() -> None:
    async with site() as hub:
        await open_run(hub, key="a")
        refused = await hub.post({"key": "b"}, "/runs/build/7")
        assert (refused.status, refused.problem()["title"]) == (409, "Conflict")
        assert "replace" in refused.problem()["detail"]


async def test_owner() -> None:
    async with site() as hub:
        await open_run(hub, owner="ada", key="k")
        for method, path in (("POST", "/events"), ("POST", "/end"), ("POST", "/cancel"), ("GET", "")):
            answer = await hub.ask(method, f"/runs/build/7{path}?owner=bob", b"", TEXT)
            assert (answer.status, answer.problem()["title"]) == (403, "Forbidden"), path
        joined = await hub.post({"owner": "bob", "key": "k"}, "/runs/build/7")
        assert joined.status == 403
        assert (await hub.ask("POST", "/runs/build/7/end?owner=ada")).status == 200


async def test_cancel() -> None:
    async with site() as hub:
        await open_run(hub)
        cancelled = await hub.ask("POST", "/runs/build/7/cancel")
        assert (cancelled.status, cancelled.json()["state"]) == (200, "cancelled")
        late = await hub.post("more", "/runs/build/7/events")
        assert (late.status, late.problem()["state"]) == (409, "cancelled")


async def test_keys_store_items_once() -> None:
    async with site() as hub:
        await open_run(hub)
        answers = [await hub.post(["a", "b"], "/runs/build/7/events?key=1") for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        await hub.ask("POST", "/runs/build/7/end")
        async with hub.client.open("/runs/build/7") as reader:
            assert await read_run(reader) == [(None, "a"), (None, "b"), ("stream:end", "done")]


async def test_longest_key() -> None:
    """A key of 255 characters, beside which the id of the run has no room."""
    async with site() as hub:
        await open_run(hub)
        path = f"/runs/build/7/events?key={'k' * 255}"
        answers = [await hub.post(["a", "b"], path) for _ in range(2)]
        assert [answer.status for answer in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()
        assert (await hub.post("a", f"{path}k")).status == 422


async def test_type_of_items_that_name_none() -> None:
    async with site() as hub:
        await open_run(hub)
        items = ["a", {"data": "b"}, {"data": "c", "event": "own"}]
        assert (await hub.post(items, "/runs/build/7/events?event=log")).status == 201
        assert (await hub.post(items, "/runs/build/7/events?event=a%0Ab")).status == 422
        await hub.ask("POST", "/runs/build/7/end")
        async with hub.client.open("/runs/build/7") as reader:
            assert await read_run(reader) == [("log", "a"), ("log", "b"), ("own", "c"), ("stream:end", "done")]


async def test_list() -> None:
    async with site() as hub:
        for name in ("a", "b/c", "d"):
            await open_run(hub, name)
        await hub.ask("POST", "/runs/b/c/end")

        async def names(query: str) -> list[str]:
            return [each["name"] for each in (await hub.ask("GET", f"/runs{query}")).json()["runs"]]

        assert await names("") == ["a", "d"]
        assert await names("?finished=true") == ["a", "b/c", "d"]
        assert await names("?finished=true&limit=2") == ["a", "b/c"]
        last = (await hub.ask("GET", "/runs?finished=true&limit=2")).json()["runs"][-1]["run"]
        assert await names(f"?finished=true&after={last}") == ["d"]
        for query in ("?finished=yes", "?after=x", "?limit=1001"):
            assert (await hub.ask("GET", f"/runs{query}")).status == 400


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "detail"),
    [
        ("", b"[]", JSON, 422, "expected a JSON object, got []"),
        ("", b'{"x": 1}', JSON, 422, "expected the fields key, owner, ttl, replace, got 'x'"),
        ("", b'{"key": 1}', JSON, 422, "expected 'key' to be a string, got 1"),
        ("", b'{"ttl": true}', JSON, 422, "expected 'ttl' to be a number, got true"),
        ("", b'{"replace": 1}', JSON, 422, "expected 'replace' to be a boolean, got 1"),
        ("", b'{"ttl": -1}', JSON, 422, "expected ttl to be a number of seconds > 0, got -1"),
        ("", b"key=1", TEXT, 415, "expected a Content-Type of application/json, or no body"),
        ("/end", b'{"state": "active"}', JSON, 422, "expected state to be one of done, error, cancelled, got 'active'"),
        ("/events", b'[{"data": 1}, 5]', JSON, 422, "expected a JSON object, got 5"),
        ("/events", b'{"event": "x"}', JSON, 422, "the item has no field 'data'"),
        ("/events", b'{"data": 1, "event": "a\\nb"}', JSON, 422, "expected event without '\\n', got 'a\\nb'"),
        ("/events", b'{"data": 1, "event": "stream:end"}', JSON, 422, None),
        ("/events", b'{"data": 1, "event": "run:end"}', JSON, 422, None),
        ("/events", b"\xff", TEXT, 400, "expected a body in UTF-8, got the byte 0xff at 0"),
    ],
)
async def test_mistakes(path: str, body: bytes, headers: Mapping[str, str], status: int, detail: str | None) -> None:
    async with site() as hub:
        if path:
            await open_run(hub)
        answer = await hub.ask("POST", f"/runs/build/7{path}", body, headers)
        assert answer.status == status
        assert detail is None or answer.problem()["detail"] == detail


async def test_invalid_item_of_a_batch() -> None:
    async with site() as hub:
        await open_run(hub)
        answer = await hub.post(["a", {"data": 1}, {"datum": 1}], "/runs/build/7/events")
        assert (answer.status, answer.problem()["index"]) == (422, 2)
        await hub.ask("POST", "/runs/build/7/end")
        async with hub.client.open("/runs/build/7") as reader:
            assert await read_run(reader) == [("stream:end", "done")]


@pytest.mark.parametrize("name", ["a//b", "a/*", "x" * 300])
async def test_invalid_name(name: str) -> None:
    async with site() as hub:
        for method, path in (("POST", ""), ("GET", ""), ("POST", "/events"), ("POST", "/end"), ("POST", "/cancel")):
            assert (await hub.ask(method, f"/runs/{name}{path}", b"", TEXT)).status == 400


async def test_unknown_run() -> None:
    async with site() as hub:
        for method, path in (("GET", ""), ("POST", "/events"), ("POST", "/end"), ("POST", "/cancel")):
            answer = await hub.ask(method, f"/runs/build/7{path}", b"x" if path == "/events" else b"", TEXT)
            assert answer.status == 404
            assert "no run 'build/7'" in answer.problem()["detail"]


async def test_topic_end_over_http() -> None:
    async with site() as hub:
        async with hub.client.open("/events?topic=jobs/7") as stream:
            await hub.post({"topic": "jobs/7", "data": "1"})
            answer = await hub.post({"reason": "done"}, "/topics/jobs/7/end")
            assert answer.status == 200
            assert (await stream.next_event()).data == "1"
            end = await stream.next_event()
            assert (end.event, end.id, end.json()) == (
                "stream:end",
                answer.json()["cursor"],
                {"topic": "jobs/7", "reason": "done"},
            )
            assert (await stream.read()).endswith(b"\n\n")  # and the response is over
        again = await hub.ask("POST", "/topics/jobs/7/end")
        assert again.json() == answer.json()
        for last in ({"last-event-id": answer.json()["cursor"]}, {}):
            assert (await hub.ask("GET", "/events?topic=jobs/7", headers=last)).status == 204
        for body, status in ((b'{"reason": ""}', 422), (b'{"why": "x"}', 422), (b'{"reason": 1}', 422), (b"[", 400)):
            assert (await hub.ask("POST", "/topics/jobs/7/end", body, JSON)).status == status
        assert (await hub.ask("POST", "/topics/jobs//end")).status == 400


# Programs in other languages, and two workers.


def curl(*arguments: str) -> str:
    """Run curl and return what it prints."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", *arguments]
    return subprocess.run(command, check=True, capture_output=True, timeout=30).stdout.decode()


async def test_producer_with_curl(tmp_path: Path) -> None:
    """Each request goes to any of two workers; readers of both get every event, in order, then the end."""
    with hub_program("--workers", "2", broker=f"sqlite:///{tmp_path}/log.db") as hub:
        runs = f"{hub.url}/runs/export/42"
        opened = json.loads(await asyncio.to_thread(curl, "-X", "POST", runs))
        async with AsyncExitStack() as stack:
            readers = [await stack.enter_async_context(EventSource(runs)) for _ in range(6)]
            reading = [asyncio.create_task(read_all(reader)) for reader in readers]
            for number in range(20):
                # To the topic of the run, as any event, and to the run itself.
                url = f"{hub.url}/events/{opened['topic']}" if number % 2 else f"{runs}/events?run={opened['run']}"
                assert "cursor" in json.loads(await asyncio.to_thread(curl, "-d", str(number), url))
            ended = json.loads(await asyncio.to_thread(curl, "--json", '{"state": "done"}', f"{runs}/end"))
            assert ended["state"] == "done"
            async with asyncio.timeout(30):
                found = await asyncio.gather(*reading)
        assert found == [[str(number) for number in range(20)]] * 6
        assert [reader.end and reader.end.reason for reader in readers] == ["done"] * 6
        assert [reader.statistics().attempts for reader in readers] == [1] * 6
        lines = await asyncio.to_thread(curl, "-N", f"{runs}?framing=openai_chat")
        assert lines.rstrip().endswith("data: [DONE]")


async def read_all(source: EventSource) -> list[str]:
    return [event.data async for event in source]


PRODUCER = """
const base = process.argv[2];
const post = (path, body) => fetch(`${base}${path}`, {
  method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
}).then(async (response) => {
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return response.json();
});
const { run } = await post("/runs/report/1", { key: "today" });
for (let step = 1; step <= 4; step += 1) {
  await post(`/runs/report/1/events?run=${run}&key=${step}`, { data: { progress: step / 4 }, event: "progress" });
}
await post(`/runs/report/1/end?run=${run}`, {});
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
async def test_producer_in_node(tmp_path: Path) -> None:
    script = tmp_path / "producer.mjs"
    script.write_text(PRODUCER)
    with hub_program("--workers", "2", broker=f"sqlite:///{tmp_path}/log.db") as hub:
        process = await asyncio.create_subprocess_exec("node", str(script), hub.url)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
            async with EventSource(f"{hub.url}/runs/report/1") as source:
                found = [event.json()["progress"] async for event in source]
        assert found == [0.25, 0.5, 0.75, 1]
        assert source.end is not None
        assert source.end.reason == "done"


async def test_raw_stream(tmp_path: Path) -> None:
    """The bytes on the wire, and the 204 that stops an EventSource."""
    with hub_program(broker=f"sqlite:///{tmp_path}/log.db") as hub:
        port = int(hub.url.rpartition(":")[2])
        opened = json.loads(await asyncio.to_thread(curl, "-X", "POST", f"{hub.url}/runs/a/b"))
        await asyncio.to_thread(curl, "-d", "x", f"{hub.url}/runs/a/b/events")
        await asyncio.to_thread(curl, "-X", "POST", f"{hub.url}/runs/a/b/end")
        epoch, _, offset = opened["run"].rpartition("-")
        async with await Connection.open(port) as connection:
            assert await connection.get("/runs/a/b") == 200
            body = (await connection.rest()).decode()
        blocks = body.split("\n\n")
        assert blocks[0] == f"id: {epoch}-{offset}"
        assert blocks[1].endswith("\ndata: x")
        end = json.dumps({"reason": "done", "run": opened["run"]})
        assert blocks[2].partition("\n")[2] == f"event: stream:end\ndata: {end}"
        last = blocks[2].partition("\n")[0].removeprefix("id: ")
        async with await Connection.open(port) as connection:
            assert await connection.get("/runs/a/b", headers=f"Last-Event-ID: {last}\r\n") == 204


async def test_commands_of_the_page(tmp_path: Path) -> None:
    """The producer and the readers that the page about runs shows, with the address of a hub of this test."""
    files = files_of("how-to/runs")
    with hub_program("--workers", "2", broker=f"sqlite:///{tmp_path}/log.db") as hub:

        async def shell(name: str) -> str:
            script = files[name].replace("http://127.0.0.1:8000", hub.url)
            environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
            process = await asyncio.create_subprocess_exec(
                "sh", "-euc", script, stdout=subprocess.PIPE, env=environment, stdin=subprocess.DEVNULL
            )
            async with asyncio.timeout(60):
                output, _ = await process.communicate()
            assert process.returncode == 0
            return output.decode()

        produced = await shell("build.sh")
        assert produced.count('"cursor') == 3
        assert '"state":"done"' in produced
        assert '"owner":"ci"' in produced
        read = await shell("read.sh")
    stream, chunks, listened = read.partition("stream:end")[0], read.count("chat.completion.chunk"), read.splitlines()
    assert [line for line in stream.splitlines() if line.startswith("data")] == [
        "data: compiling",
        'data: {"progress":0.5}',
        "data: linking",
        "data: testing",
    ]
    assert chunks == 4  # three pieces of text, and the end
    items = [json.loads(line) for line in listened if line.startswith("{")]
    assert [item["data"] for item in items][:4] == ["compiling", {"progress": 0.5}, "linking", "testing"]
