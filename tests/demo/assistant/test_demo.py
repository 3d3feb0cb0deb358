"""The requests of the assistant: an answer is started, followed, stopped and listed, on each log."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.http import JSON, Answer
from support.runs import Source
from tickertape import Hub
from tickertape.demo.assistant import assistant_demo
from tickertape.demo.assistant.demo import MAX_SHOWN
from tickertape.demo.assistant.generator import GeneratorError
from tickertape.demo.site import Site
from tickertape.testing import EventStream, EventStreamClient, ScriptedBroker


class Browser:
    """A browser with its cookies."""

    def __init__(self, client: EventStreamClient) -> None:
        self._client = client
        self._headers = {"cookie": ""}

    async def request(self, method: str, path: str, value: Any = None, headers: dict[str, str] = JSON) -> Answer:
        body = b"" if value is None else json.dumps(value).encode()
        path = f"/assistant/answers{path}"
        async with self._client.open(path, method=method, body=body, headers={**headers, **self._headers}) as response:
            if cookie := response.headers.get("set-cookie"):
                self._headers["cookie"] = cookie.partition(";")[0]
            return Answer(response.status, response.headers, await response.read())

    async def ask(self, question: str, key: str = "k") -> str:
        answer = await self.request("POST", "", {"question": question, "key": key})
        assert answer.status == 201
        return str(answer.json()["run"])

    async def answers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.request("GET", "")).json()["answers"]
        return found

    def follow(self, run: str) -> EventStream:
        return self._client.open(f"/assistant/answers/{run}", headers=self._headers)


def site_of(source: Source, hub: Hub, folder: Path, **options: Any) -> Site:
    async def generate(question: str) -> AsyncGenerator[str]:
        async for word in source():
            yield word

    return Site([assistant_demo(folder=folder, hub=hub, generate=generate, **options)])


@asynccontextmanager
async def assistant(source: Source, hub: Hub, folder: Path, **options: Any) -> AsyncIterator[EventStreamClient]:
    async with EventStreamClient(site_of(source, hub, folder, **options)) as client:
        yield client


@pytest.fixture(params=["memory", "sqlite"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Hub:
    return Hub("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'log.db'}")


async def read_to_the_end(stream: EventStream) -> tuple[list[str], dict[str, Any]]:
    """Return the words of an answer, and its end."""
    words = []
    async for event in stream:
        if event.event is None and event.data:
            words.append(event.data)
        elif event.event == "stream:end":
            return words, event.json()
    raise AssertionError(words)


async def test_answer(hub: Hub, tmp_path: Path) -> None:
    source = Source()
    async with assistant(source, hub, tmp_path) as client:
        ada = Browser(client)
        assert await ada.answers() == []
        run = await ada.ask(" What is a log? ")
        assert await ada.ask("What is a log?") == run  # the same key
        assert await ada.answers() == [{"run": run, "state": "active"}]
        refused = await ada.request("POST", "", {"question": "And?", "key": "other"})
        assert (refused.status, refused.problem()["detail"]) == (
            409,
            "another answer is being written: wait or stop it",
        )
        async with ada.follow(run) as first, ada.follow(run) as second:
            question = await anext(event async for event in first if event.event)
            assert (question.event, question.json()) == ("question", {"text": "What is a log?"})
            source.give("A list", " of\nevents.", None)
            assert await read_to_the_end(first) == (["A list", " of\nevents."], {"reason": "done", "run": run})
            assert (await read_to_the_end(second))[0] == ["A list", " of\nevents."]
        expected = {
            "run": run,
            "state": "done",
            "question": "What is a log?",
            "text": "A list of\nevents.",
            "error": None,
        }
        assert await ada.answers() == [expected]
        async with ada.follow(run) as again:
            assert (await read_to_the_end(again))[0] == ["A list", " of\nevents."]
        assert source.starts == 1


async def test_stop(hub: Hub, tmp_path: Path) -> None:
    source = Source()
    async with assistant(source, hub, tmp_path) as client:
        ada = Browser(client)
        run = await ada.ask("What is a log?")
        source.give("A list")
        async with ada.follow(run) as stream:
            while (await stream.next_event()).data != "A list":
                pass
            assert (await ada.request("POST", f"/{run}/stop")).status == 202
            assert (await read_to_the_end(stream))[1]["reason"] == "cancelled"
        assert source.finished.is_set()
        (found,) = await ada.answers()
        assert (found["state"], found["text"]) == ("cancelled", "A list")
        assert (await ada.request("POST", f"/{run}/stop")).status == 202  # it has ended already


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(GeneratorError("Out of words."), "Out of words."), (RuntimeError("secret"), "The run failed.")],
)
async def test_error(error: Exception, sentence: str, tmp_path: Path) -> None:
    source = Source()
    async with assistant(source, Hub(), tmp_path) as client:
        ada = Browser(client)
        run = await ada.ask("What is a log?")
        source.give("A list", error)
        async with ada.follow(run) as stream:
            assert (await read_to_the_end(stream))[1]["message"] == sentence
        (found,) = await ada.answers()
        assert (found["state"], found["text"], found["error"]) == ("error", "A list", sentence)


async def test_conversations_are_private(hub: Hub, tmp_path: Path) -> None:
    source = Source()
    async with assistant(source, hub, tmp_path) as client:
        ada, bo = Browser(client), Browser(client)
        run = await ada.ask("What is a log?")
        assert await bo.answers() == []
        async with bo.follow(run) as stream:
            assert stream.status == 204
        refused = await bo.request("POST", f"/{run}/stop")
        assert (refused.status, refused.problem()["detail"]) == (404, f"no such answer: {run!r}")
        assert await ada.answers() == [{"run": run, "state": "active"}]


async def test_orphan_after_restart(tmp_path: Path) -> None:
    source = Source()
    site = site_of(source, Hub(f"sqlite:///{tmp_path / 'log.db'}"), tmp_path)
    async with EventStreamClient(site) as client:
        ada = Browser(client)
        run = await ada.ask("What is a log?")
        source.give("A list")
        async with ada.follow(run) as stream:
            while (await stream.next_event()).data != "A list":
                pass
    async with EventStreamClient(site) as client:
        ada._client = client
        (found,) = await ada.answers()
        assert (found["run"], found["state"], found["text"]) == (run, "orphaned", "A list")
        async with ada.follow(run) as stream:
            assert await read_to_the_end(stream) == (
                ["A list"],
                {"reason": "orphaned", "run": run, "message": "The process that produced the run is gone."},
            )


REFUSED = [
    ({"question": " ", "key": "k"}, 422, "a question of 1 to 500 characters, got 0"),
    ({"question": "ä" * 501, "key": "k"}, 422, "a question of 1 to 500 characters, got 501"),
    ({"question": ["a"], "key": "k"}, 422, "a question of 1 to 500 characters"),
    ({"question": "a"}, 422, "a key of 1 to 64 letters, digits and dashes, got None"),
    ({"question": "a", "key": "a b"}, 422, "a key of 1 to 64 letters"),
    (["a"], 422, "a JSON object"),
]


async def test_refused_questions(tmp_path: Path) -> None:
    async with assistant(Source(), Hub(), tmp_path) as client:
        ada = Browser(client)
        for value, status, sentence in REFUSED:
            answer = await ada.request("POST", "", value)
            assert (value, answer.status) == (value, status)
            assert sentence in answer.problem()["detail"]
        assert (await ada.request("POST", "", {}, {"content-type": "text/plain"})).status == 415
        assert (await ada.request("POST", "/x/stop")).status == 404


async def test_limits(tmp_path: Path) -> None:
    source = Source()
    async with assistant(source, Hub(), tmp_path, max_active=2) as client:
        ada, bo, cleo = Browser(client), Browser(client), Browser(client)
        source.give(*[None] * (MAX_SHOWN + 2))
        for number in range(MAX_SHOWN + 2):
            async with ada.follow(await ada.ask(f"{number}", key=f"{number}")) as stream:
                await read_to_the_end(stream)
        assert [found["question"] for found in await ada.answers()] == [f"{number + 2}" for number in range(MAX_SHOWN)]
        await ada.ask("one")
        await bo.ask("two")
        refused = await cleo.request("POST", "", {"question": "three", "key": "k"})
        assert refused.status == 503
        assert "2 answers are being written already" in refused.problem()["detail"]


async def test_log_is_away(tmp_path: Path) -> None:
    broker = ScriptedBroker()
    async with assistant(Source(), Hub(broker), tmp_path) as client:
        ada = Browser(client)
        run = await ada.ask("What is a log?")
        broker.fail("append")
        for path, value in (("", {"question": "b", "key": "c"}), (f"/{run}/stop", None)):
            assert (await ada.request("POST", path, value)).status == 503
        broker.fail("read")
        for path in ("", f"/{run}"):
            assert (await ada.request("GET", path)).status == 503
        broker.recover()
        assert (await ada.request("POST", f"/{run}/stop")).status == 202
