"""``GET /metrics``, as Prometheus reads it: one process, several, and workers that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from support.access import ADMIN, bearer, protect
from support.http import site
from support.program import Serve, serving, workers_of
from support.servers import START, Connection, until
from tickertape.access import add_key
from tickertape.asgi import DisconnectReason
from tickertape.client import Publisher
from tickertape.server.metrics import Audience


def value_of(families: Iterable[Metric], name: str, **labels: str) -> float:
    """Return the sum of the samples of this name whose labels include these."""
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert found, name
    return sum(found)


async def read(program: Serve) -> list[Metric]:
    async with await Connection.open(program.port) as connection:
        assert await connection.get("/metrics", headers="Connection: close\r\n") == 200
        while await connection.piece():
            pass
        return [*parse(connection.body.decode())]


@pytest.mark.parametrize(
    ("accept", "content_type", "parser"),
    [
        ("", "text/plain; version=", parse),
        (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text; version=1.0.0",
            parse_openmetrics,
        ),
    ],
)
async def test_formats(accept: str, content_type: str, parser: Any) -> None:
    async with site() as at:
        await at.ask("POST", "/events/a", b"one")
        answer = await at.ask("GET", "/metrics", headers={"accept": accept})
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.headers["content-type"].startswith(content_type)
        families = [*parser(answer.body.decode())]
        assert value_of(families, "tickertape_events_published_total") == 1
        assert value_of(families, "tickertape_broker_latency_seconds_count", operation="append") == 1
        assert value_of(families, "process_open_fds") > 0
        assert value_of(families, "tickertape_build_info") == 1


@pytest.mark.parametrize(
    ("metrics", "controlled", "statuses"),
    [
        ("admin", False, (200, 200)),
        ("admin", True, (401, 200)),
        ("open", True, (200, 200)),
        ("off", False, (404, 404)),
        ("off", True, (404, 404)),
    ],
)
async def test_audience(metrics: Audience, controlled: bool, statuses: tuple[int, int]) -> None:
    """Requests without a credential, and those of an administrator, get these statuses."""
    async with site(metrics=metrics) as at:
        if controlled:
            protect(at.hub, {"admin": ADMIN})
        answers = [await at.ask("GET", "/metrics", headers=headers) for headers in ({}, bearer("admin"))]
        assert tuple(answer.status for answer in answers) == statuses


async def test_audience_is_a_setting(tmp_path: Path) -> None:
    """The key works as Prometheus sends it, and the samples of all workers come with it."""
    file = tmp_path / "keys"
    key = add_key(file, "prometheus", admin=True)
    async with serving("--workers", "2", "--api-key-file", str(file)) as program, httpx2.AsyncClient() as client:
        url = f"http://127.0.0.1:{program.port}/metrics"
        assert (await client.get(url)).status_code == 401
        answer = await client.get(url, headers={"authorization": f"Bearer {key}"})
        families = [*parse(answer.text)]
        assert value_of(families, "tickertape_build_info") == 2
    async with serving("--api-key-file", str(file), "--metrics", "open") as program:
        await read(program)


async def test_every_reason_is_there_from_the_start() -> None:
    """An alert on a rate needs the zero before the first one."""
    async with site() as at:
        families = [*parse((await at.ask("GET", "/metrics")).body.decode())]
        for reason in DisconnectReason:
            assert value_of(families, "tickertape_streams_closed_total", reason=reason) == 0
        for gap in ("expired", "reset"):
            assert value_of(families, "tickertape_gaps_total", reason=gap) == 0


async def test_sum_of_all_workers() -> None:
    async with serving("--workers", "3") as program:
        streams = [await Connection.open(program.port) for _ in range(30)]
        for stream in streams:
            assert await stream.get("/events?topic=**") == 200
        async with Publisher(program.url) as publisher:
            for number in range(10):
                await publisher.publish("a", str(number))
        for stream in streams:
            while (await stream.event()).data != "9":
                pass
        families = await read(program)
        processes = {
            sample.labels["process"] for family in families for sample in family.samples if "process" in sample.labels
        }
        assert processes == {*map(str, workers_of(program))}
        assert value_of(families, "tickertape_streams_active") == 30
        assert value_of(families, "tickertape_streams_opened_total") == 30
        assert value_of(families, "tickertape_events_published_total") == 10
        assert value_of(families, "tickertape_events_delivered_total") == 300
        for stream in streams:
            await stream.close()
        closed = 0.0
        async with asyncio.timeout(START):
            while closed < 30:
                closed = value_of(await read(program), "tickertape_streams_closed_total", reason="client_closed")
        assert closed == 30


async def test_restarts_are_counted() -> None:
    async with serving("--workers", "2") as program:
        assert value_of(await read(program), "tickertape_worker_restarts_total") == 0
        victim = workers_of(program)[0]
        os.kill(victim, signal.SIGKILL)
        await until(lambda: "was killed by SIGKILL" in program.output, lambda: "a report of the death", within=START)
        families = await read(program)
        assert value_of(families, "tickertape_worker_restarts_total") == 1
        await until(lambda: len({*workers_of(program)} - {victim}) == 2, lambda: "two workers", within=START)
        await program.end()
        assert "Traceback" not in program.output
