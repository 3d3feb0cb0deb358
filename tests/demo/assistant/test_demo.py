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
        self.topics: dict[str, str] = {}  # by run

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
        self.topics[answer.json()["run"]] = answer.json()["topic"]
        return str(answer.json()["run"])

    async def answers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.request("GET", "")).json()["answers"]
        return found

    def follow(self, run: str, topic: str = "") -> EventStream:
        """Read an answer from its first word. The id of a run is the position before it."""
        query = {"topic": topic or self.topics[run]}
        return self._client.open("/stream", query=query, headers=self._headers, last_event_id=run)


def site_of(source: Source, hub: Hub, **options: Any) -> Site:
    async def generate(question: str) -> AsyncGenerator[str]:
        async for word in source():
            yield word

    return Site(hub, [assistant_demo(hub, generate=generate, **options)])


@asynccontextmanager
async def assistant(source: Source, hub: Hub, **options: Any) -> AsyncIterator[EventStreamClient]:
    async with EventStreamClient(site_of(source, hub, **options)) as client:
        yield client


@pytest.fixture(params=["memory", "sqlite"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Hub:
    return Hub("memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'log.db'}")


async def read_to_the_end(stream: EventStream) -> tuple[list[str], dict[str, Any]]:
    """Return the words of an answer, and its end."""
    words = []
    async for event in stream:
        if event.event == "run:text":
            words.append(event.data or "")
        elif event.event == "run:end":
            return words, event.json()
    raise AssertionError(words)


async def test_answer(hub: Hub) -> None:
    source = Source()
    async with assistant(source, hub) as client:
        ada = Browser(client)
        assert await ada.answers() == []
        run = await ada.ask(" What is a log? ")
        assert await ada.ask("What is a log?") == run  # the same key
        assert await ada.answers() == [{"run": run, "state": "active", "topic": ada.topics[run]}]
        refused = await ada.request("POST", "", {"question": "And?", "key": "other"})
        assert (refused.status, refused.problem()["detail"]) == (
            409,
            "another answer is being written: wait or stop it",
        )
        async with ada.follow(run) as first, ada.follow(run) as second:
            question = await anext(event async for event in first if event.event)
            assert (question.event, question.json()) == ("question", {"text": "What is a log?"})
            source.give("A list", " of\nevents.", None)
            words, end = await read_to_the_end(first)
            assert (words, end["run"], end["state"]) == (["A list", " of\nevents."], run, "done")
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


async def test_stop(hub: Hub) -> None:
    source = Source()
    async with assistant(source, hub) as client:
        ada = Browser(client)
        run = await ada.ask("What is a log?")
        source.give("A list")
        async with ada.follow(run) as stream:
            while (await stream.next_event()).data != "A list":
                pass
            assert (await ada.request("POST", f"/{run}/stop")).status == 202
            assert (await read_to_the_end(stream))[1]["state"] == "cancelled"
        assert source.finished.is_set()
        (found,) = await ada.answers()
        assert (found["state"], found["text"]) == ("cancelled", "A list")
        assert (await ada.request("POST", f"/{run}/stop")).status == 202  # it has ended already


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(GeneratorError("Out of words."), "Out of words."), (RuntimeError("secret"), "The run failed.")],
)
async def test_error(error: Exception, sentence: str) -> None:
    source = Source()
    async with assistant(source, Hub()) as client:
        ada = Browser(client)
        run = await ada.ask("What is a log?")
        source.give("A list", error)
        async with ada.follow(run) as stream:
            assert (await read_to_the_end(stream))[1]["error"] == sentence
        (found,) = await ada.answers()
        assert (found["state"], found["text"], found["error"]) == ("error", "A list", sentence)


async def test_conversations_are_private(hub: Hub) -> None:
    source = Source()
    async with assistant(source, hub) as client:
        ada, bo = Browser(client), Browser(client)
        run = await ada.ask("What is a log?")
        assert await bo.answers() == []
        for topic in (ada.topics[run], "run/assistant/**", "run/**"):
            async with bo.follow(run, topic) as stream:
                assert (topic, stream.status) == (topic, 401)
        refused = await bo.request("POST", f"/{run}/stop")
        assert (refused.status, refused.problem()["detail"]) == (404, f"no such answer: {run!r}")
        assert [found["state"] for found in await ada.answers()] == ["active"]


async def test_orphan_after_restart(tmp_path: Path) -> None:
    source = Source()
    site = site_of(source, Hub(f"sqlite:///{tmp_path / 'log.db'}"))
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
            words, end = await read_to_the_end(stream)
            assert (words, end["state"]) == (["A list"], "orphaned")


REFUSED = [
    ({"question": " ", "key": "k"}, 422, "a question of 1 to 500 characters, got 0"),
    ({"question": "ä" * 501, "key": "k"}, 422, "a question of 1 to 500 characters, got 501"),
    ({"question": ["a"], "key": "k"}, 422, "a question of 1 to 500 characters"),
    ({"question": "a"}, 422, "a key of 1 to 64 letters, digits and dashes, got None"),
    ({"question": "a", "key": "a b"}, 422, "a key of 1 to 64 letters"),
    (["a"], 422, "a JSON object"),
]


async def test_refused_questions() -> None:
    async with assistant(Source(), Hub()) as client:
        ada = Browser(client)
        for value, status, sentence in REFUSED:
            answer = await ada.request("POST", "", value)
            assert (value, answer.status) == (value, status)
            assert sentence in answer.problem()["detail"]
        assert (await ada.request("POST", "", {}, {"content-type": "text/plain"})).status == 415
        assert (await ada.request("POST", "/x/stop")).status == 404


async def test_limits() -> None:
    source = Source()
    async with assistant(source, Hub(), max_active=2) as client:
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


async def test_log_is_away() -> None:
    broker = ScriptedBroker()
    async with assistant(Source(), Hub(broker)) as client:
        ada = Browser(client)
        run = await ada.ask("What is a log?")
        broker.fail("append")
        for path, value in (("", {"question": "b", "key": "c"}), (f"/{run}/stop", None)):
            assert (await ada.request("POST", path, value)).status == 503
        broker.fail("read")
        assert (await ada.request("GET", "")).status == 503
        broker.recover()
        assert (await ada.request("POST", f"/{run}/stop")).status == 202
