"""The requests of the chat: checks, rate limits and streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.http import JSON, Answer
from tickertape import Hub
from tickertape.demo.chat import chat_demo
from tickertape.demo.chat.rooms import LEAVE_DELAY
from tickertape.demo.site import Site
from tickertape.testing import EventStream, EventStreamClient, FakeClock, ScriptedBroker


class User:
    """A browser, signed in or not."""

    def __init__(self, client: EventStreamClient) -> None:
        self._client = client
        self._headers = {"cookie": ""}

    async def request(self, method: str, url: str, value: Any = None, headers: dict[str, str] = JSON) -> Answer:
        """Send a request and read the answer."""
        body = b"" if value is None else json.dumps(value).encode()
        async with self._client.open(url, method=method, body=body, headers={**headers, **self._headers}) as response:
            return Answer(response.status, response.headers, await response.read())

    async def sign_in(self, name: str) -> User:
        answer = await self.request("POST", "/session", {"name": name})
        assert answer.status == 200
        self._headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]
        return self

    async def post(self, text: Any, key: Any, room: Any = "lobby") -> Answer:
        return await self.request("POST", "/chat/messages", {"room": room, "text": text, "key": key})

    def listen(self, room: str = "lobby", last_event_id: str | None = None) -> EventStream:
        """Open the stream of a room."""
        return self._client.open(
            "/chat/events", query={"room": room}, headers=self._headers, last_event_id=last_event_id
        )


class Chat:
    """The site with the chat, and its users."""

    def __init__(self, client: EventStreamClient, clock: FakeClock) -> None:
        self.client = client
        self.clock = clock

    async def user(self, name: str) -> User:
        return await User(self.client).sign_in(name)


@pytest.fixture
async def chat(tmp_path: Path) -> AsyncIterator[Chat]:
    clock = FakeClock()
    async with EventStreamClient(Site([chat_demo(folder=tmp_path, clock=clock)])) as client:
        yield Chat(client, clock)


async def next_of(stream: EventStream, kind: str | None = None) -> Any:
    """Return the data of the next event of a type; of the next message by default."""
    while (event := await stream.next_event()).event != kind:
        pass
    return json.loads(event.data or "")


REFUSED: list[tuple[str, Any, int, str]] = [
    (
        "/chat/messages",
        {"room": "attic", "text": "a", "key": "k"},
        404,
        "room to be one of lobby, help, random, got 'attic'",
    ),
    ("/chat/messages", {"room": ["lobby"], "text": "a", "key": "k"}, 404, "room to be one of"),
    ("/chat/messages", {"text": "a", "key": "k"}, 404, "room to be one of lobby, help, random, got None"),
    ("/chat/messages", {"room": "lobby", "text": " \n ", "key": "k"}, 422, "a message of 1 to 2,000 characters, got 0"),
    ("/chat/messages", {"room": "lobby", "text": "ä" * 2001, "key": "k"}, 422, "1 to 2,000 characters, got 2,001"),
    ("/chat/messages", {"room": "lobby", "text": 7, "key": "k"}, 422, "a message of 1 to 2,000 characters"),
    ("/chat/messages", {"room": "lobby", "text": "a"}, 422, "a key of 1 to 64 letters, digits and dashes, got None"),
    ("/chat/messages", {"room": "lobby", "text": "a", "key": "a/b"}, 422, "digits and dashes, got 'a/b'"),
    ("/chat/messages", {"room": "lobby", "text": "a", "key": "k" * 65}, 422, "a key of 1 to 64"),
    ("/chat/messages", ["lobby"], 422, "a JSON object"),
    ("/chat/typing", {"room": "attic"}, 404, "room to be one of"),
    ("/chat/events?room=attic", None, 404, "room to be one of lobby, help, random, got 'attic'"),
    ("/chat/events", None, 404, "room to be one of"),
]


async def test_refused_requests(chat: Chat) -> None:
    ada = await chat.user("Ada")
    for url, value, status, sentence in REFUSED:
        answer = await ada.request("GET" if value is None else "POST", url, value)
        assert (url, value, answer.status) == (url, value, status)
        assert sentence in answer.problem()["detail"]
    anonymous = User(chat.client)
    for url, value in (("/chat/messages", {}), ("/chat/typing", {}), ("/chat/events?room=lobby", None)):
        assert (await anonymous.request("GET" if value is None else "POST", url, value)).status == 401
    assert (await ada.request("POST", "/chat/messages", {}, {"content-type": "text/plain"})).status == 415


async def test_longest_message(chat: Chat) -> None:
    ada = await chat.user("Ada")
    assert (await ada.request("GET", "/chat/rooms")).json()["max_text"] == 2000
    for key, text in (("1", "😀" * 2000), ("2", "<b>\r\n\u2028\0"), ("3", "\ud800")):
        assert (await ada.post(f" {text}\n", key)).status == 201
    async with ada.listen() as stream:
        texts = [(await next_of(stream))["text"] for _ in range(3)]
    assert texts == ["😀" * 2000, "<b>\r\n\u2028\0", "\ufffd"]


async def test_repeated_message_is_ignored(chat: Chat) -> None:
    ada = await chat.user("Ada")
    answers = [await ada.post("hello", "k") for _ in range(3)]
    assert [answer.status for answer in answers] == [201] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    bo = await chat.user("Bo")
    assert (await bo.post("mine", "k")).json() != answers[0].json()
    async with ada.listen() as stream:
        got = [await next_of(stream) for _ in range(2)]
    assert [(message["name"], message["text"]) for message in got] == [("Ada", "hello"), ("Bo", "mine")]


async def test_rate_limits(chat: Chat) -> None:
    ada, bo = await chat.user("Ada"), await chat.user("Bo")
    assert [(await ada.post("a", str(number))).status for number in range(11)] == [201] * 10 + [429]
    chat.clock.advance(0.5)
    refused = await ada.post("a", "11")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert json.loads(refused.body)["detail"] == (
        "too many messages: the limit is 10 at once and 1 per second after that; try again in 1 s"
    )
    assert (await bo.post("b", "1")).status == 201
    chat.clock.advance(0.5)
    assert [(await ada.post("a", key)).status for key in ("12", "13")] == [201, 429]
    typing = [(await ada.request("POST", "/chat/typing", {"room": "lobby"})).status for _ in range(6)]
    assert typing == [204] * 5 + [429]


async def test_two_tabs_are_one_member(chat: Chat) -> None:
    ada, bo = await chat.user("Ada"), await chat.user("Bo")
    async with ada.listen() as stream:
        assert (await next_of(stream, "present"))["names"] == ["Ada"]
        async with bo.listen():
            async with bo.listen() as second:
                assert (await next_of(second, "present"))["names"] == ["Ada", "Bo"]
            chat.clock.advance(2 * LEAVE_DELAY)
            await bo.request("POST", "/chat/typing", {"room": "lobby"})
            kinds = [(await stream.next_event()).event for _ in range(5)]
            assert kinds == ["join", "count", "join", "count", "typing"]  # no leave event
        chat.clock.advance(LEAVE_DELAY - 1)
        async with bo.listen() as again:
            assert (await next_of(again, "present"))["names"] == ["Ada", "Bo"]
        chat.clock.advance(LEAVE_DELAY + 1)
        assert [(await stream.next_event()).event for _ in range(2)] == ["leave", "count"]
        assert stream.last_event_id is not None


async def test_resume_after_reconnect(chat: Chat) -> None:
    ada, bo = await chat.user("Ada"), await chat.user("Bo")
    async with ada.listen() as stream:
        await bo.post("1", "1")
        assert (await next_of(stream))["text"] == "1"
        place = stream.last_event_id
    await bo.request("POST", "/chat/typing", {"room": "lobby"})
    await bo.post("elsewhere", "2", room="help")
    await bo.post("2", "3")
    async with ada.listen(last_event_id=place) as stream:
        assert (await stream.next_event()).event == "present"
        kinds = []
        while (event := await stream.next_event()).event is not None:
            kinds.append(event.event)
        assert json.loads(event.data or "")["text"] == "2"
        assert "typing" not in kinds


async def test_history_after_restart(tmp_path: Path) -> None:
    folder = tmp_path / "100% #1?"
    folder.mkdir()
    for life in ("1", "2"):
        async with EventStreamClient(Site([chat_demo(folder=folder)])) as client:
            ada = await Chat(client, FakeClock()).user("Ada")
            await ada.post(life, life)
            async with ada.listen() as stream:
                got = [(await next_of(stream))["text"] for _ in range(int(life))]
    assert got == ["1", "2"]
    assert (folder / "chat.db").exists()


async def test_unavailable_log(tmp_path: Path) -> None:
    broker = ScriptedBroker()
    async with EventStreamClient(Site([chat_demo(folder=tmp_path, messages=Hub(broker))])) as client:
        ada = await Chat(client, FakeClock()).user("Ada")
        broker.fail("append")
        refused = await ada.post("hello", "k")
        assert refused.status == 503
        assert refused.problem()["detail"] == "scripted failure"
        broker.recover()
        assert (await ada.post("hello", "k")).status == 201
