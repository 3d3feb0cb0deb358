"""The application of the page about runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.pages import files_of
from tickertape.testing import EventStream, EventStreamClient

QUESTION = {"id": "a", "text": "what is a run?"}
WORDS = ["You ", "asked: ", "what ", "is ", "a ", "run? "]


async def data_of(stream: EventStream) -> list[str]:
    """Return the text of a run's events until its end, and how it ended."""
    found: list[str] = []
    while (event := await stream.next_event()).event != "stream:end":
        found.append(str(event.data))
    return [*found, event.json()["reason"]]


async def test_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "app"}
    exec(files_of("how-to/runs")["app.py"], names)
    async with EventStreamClient(names["app"]) as client, asyncio.timeout(30):
        assert (await client.get("/chat/1")).status == 204
        async with client.open("/chat/1", method="POST", json=QUESTION) as asked:
            assert (await asked.next_event()).data == WORDS[0]
            async with client.open("/chat/1") as joined:
                assert await data_of(joined) == [*WORDS, "done"]
            assert await data_of(asked) == [*WORDS[1:], "done"]
        async with client.open("/chat/1", method="POST", json=QUESTION) as again:
            assert await data_of(again) == [*WORDS, "done"]
        async with client.open("/chat/1", method="POST", json={"id": "b", "text": "word " * 1000}) as asked:
            await asked.next_event()
            stopped = await client.post("/chat/1/stop")
            assert stopped.status == 202
            assert (await data_of(asked))[-1] == "cancelled"
