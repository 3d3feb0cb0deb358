"""The requests of the chat: checks, rate limits, and the topics of a room."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.http import JSON, Answer
from tickertape import Hub
from tickertape.demo.chat import chat_demo
from tickertape.demo.chat.rooms import HISTORY, LEAVE_DELAY, OVERVIEW, messages_of, presence_of
from tickertape.demo.site import Site, open_hub
from tickertape.testing import EventStream, EventStreamClient, FakeClock, ScriptedBroker


class User:
    """A browser, signed in or not."""

    def __init__(self, client: EventStreamClient) -> None:
        self._client = client
        self.headers = {"cookie": ""}

    async def request(self, method: str, url: str, value: Any = None, headers: dict[str, str] = JSON) -> Answer:
        """Send a request and read the answer."""
        body = b"" if value is None else json.dumps(value).encode()
        async with self._client.open(url, method=method, body=body, headers={**headers, **self.headers}) as response:
            if cookie := response.headers.get("set-cookie"):
                self.headers["cookie"] = cookie.partition(";")[0]
            return Answer(response.status, response.headers, await response.read())

    async def sign_in(self, name: str) -> User:
        assert (await self.request("POST", "/session", {"name": name})).status == 200
        return self

    async def post(self, text: Any, key: Any, room: Any = "lobby") -> Answer:
        return await self.request("POST", "/chat/messages", {"room": room, "text": text, "key": key})

    async def texts(self, room: str = "lobby") -> list[str]:
        """Return the texts of the last messages of a room."""
        answer = await self.request("GET", f"/chat/messages?room={room}")
        return [message["text"] for message in answer.json()["messages"]]

    async def members(self, room: str = "lobby") -> list[str]:
        answer = await self.request("GET", "/chat/rooms")
        return next(each["names"] for each in answer.json()["rooms"] if each["name"] == room)

    def listen(self, room: str = "lobby", last_event_id: str | None = None) -> EventStream:
        """Open a stream of the topics of a room. Its reader is a member of the room."""
        query = {"topic": [messages_of(room), presence_of(room), OVERVIEW]}
        return self._client.open("/stream", query=query, headers=self.headers, last_event_id=last_event_id)


def site_of(hub: Hub, clock: FakeClock | None = None) -> Site:
    return Site(hub, [chat_demo(hub, clock=clock)])


class Chat:
    """The site with the chat, and its users."""

    def __init__(self, client: EventStreamClient, clock: FakeClock) -> None:
        self.client = client
        self.clock = clock

    async def user(self, name: str) -> User:
        return await User(self.client).sign_in(name)


@pytest.fixture
async def chat() -> AsyncIterator[Chat]:
    clock = FakeClock()
    async with EventStreamClient(site_of(Hub(clock=clock), clock)) as client:
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
    ("/chat/messages?room=attic", None, 404, "room to be one of lobby, help, random, got 'attic'"),
    ("/chat/messages", None, 404, "room to be one of"),
    ("/stream?topic=chat/**&topic=notifications/bo", None, 403, "does not allow it to subscribe to 'notifications/bo'"),
]


async def test_refused_requests(chat: Chat) -> None:
    ada = await chat.user("Ada")
    for url, value, status, sentence in REFUSED:
        answer = await ada.request("GET" if value is None else "POST", url, value)
        assert (url, value, answer.status) == (url, value, status)
        assert sentence in answer.problem()["detail"]
    anonymous = User(chat.client)
    for url, value in (("/chat/messages", {}), ("/chat/typing", {}), ("/stream?topic=chat/rooms", None)):
        assert (await anonymous.request("GET" if value is None else "POST", url, value)).status == 401
    assert (await ada.request("POST", "/chat/messages", {}, {"content-type": "text/plain"})).status == 415


async def test_longest_message(chat: Chat) -> None:
    ada = await chat.user("Ada")
    assert (await ada.request("GET", "/chat/rooms")).json()["max_text"] == 2000
    for key, text in (("1", "😀" * 2000), ("2", "<b>\r\n\u2028\0"), ("3", "\ud800")):
        assert (await ada.post(f" {text}\n", key)).status == 201
    assert await ada.texts() == ["😀" * 2000, "<b>\r\n\u2028\0", "\ufffd"]


async def test_repeated_message_is_ignored(chat: Chat) -> None:
    ada = await chat.user("Ada")
    answers = [await ada.post("hello", "k") for _ in range(3)]
    assert [answer.status for answer in answers] == [201] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    bo = await chat.user("Bo")
    assert (await bo.post("mine", "k")).json() != answers[0].json()
    assert await ada.texts() == ["hello", "mine"]


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


async def test_history(chat: Chat) -> None:
    ada, bo = await chat.user("Ada"), await chat.user("Bo")
    assert await ada.texts() == []
    for number in range(HISTORY + 5):
        assert (await bo.post(f"{number}", f"{number}")).status == 201
        assert (await bo.post("elsewhere", f"help-{number}", room="help")).status == 201
        chat.clock.advance(2)
    assert await ada.texts() == [f"{number + 5}" for number in range(HISTORY)]
    assert await ada.texts("random") == []
    assert len(await ada.texts("help")) == HISTORY


async def test_members(chat: Chat) -> None:
    """Two tabs are one member. A member that reconnects in time has not left."""
    ada, bo = await chat.user("Ada"), await chat.user("Bo")
    async with ada.listen() as stream:
        assert await next_of(stream, "join") == {"name": "Ada"}
        async with bo.listen(), bo.listen(), bo.listen("help"):
            assert await next_of(stream, "join") == {"name": "Bo"}
            assert (await ada.members(), await ada.members("help")) == (["Ada", "Bo"], ["Bo"])
        chat.clock.advance(LEAVE_DELAY - 1)
        async with bo.listen():
            chat.clock.advance(2 * LEAVE_DELAY)
            assert (await ada.members(), await ada.members("help")) == (["Ada", "Bo"], [])
            await bo.request("POST", "/chat/typing", {"room": "lobby"})
            assert await next_of(stream, "typing") == {"name": "Bo"}
        chat.clock.advance(LEAVE_DELAY + 1)
        assert await next_of(stream, "leave") == {"name": "Bo"}
        assert await next_of(stream, "count") == {"room": "lobby", "present": 1}
        await bo.post("hello", "k", room="help")
        assert await next_of(stream, "activity") == {"room": "help"}


async def test_other_room_on_an_open_stream(chat: Chat) -> None:
    """A tab that goes to another room changes its topics, and with them the rooms of its user."""
    ada = await chat.user("Ada")
    query = {"topic": presence_of("lobby"), "subscription": "true"}
    async with chat.client.open("/stream", query=query, headers=ada.headers) as stream:
        opening = await next_of(stream, "stream:open")
        url = f"/subscriptions/{opening['subscription']}"
        topics = {"add": [presence_of("help")], "remove": [presence_of("lobby")]}
        assert (await (await chat.user("Bo")).request("PATCH", url, topics)).status == 404
        refused = await ada.request("PATCH", url, {"add": ["notifications/bo"]})
        assert (refused.status, refused.problem()["detail"]) == (
            403,
            "the credential of this request does not allow it to subscribe to 'notifications/bo'",
        )
        for wrong in ("chat/rooms", [7]):
            refused = await ada.request("PATCH", url, {"add": wrong})
            assert (refused.status, "expected add to be a list of topics" in refused.problem()["detail"]) == (422, True)
        assert (await ada.request("PATCH", url, topics)).status == 200
        assert (await next_of(stream, "stream:topics"))["topics"] == [presence_of("help")]
        chat.clock.advance(LEAVE_DELAY + 1)
        assert (await ada.members(), await ada.members("help")) == ([], ["Ada"])


async def test_sign_out_ends_streams(chat: Chat) -> None:
    """The name is free again: only its next owner may read what is for it."""
    ada = await chat.user("Ada")
    former = ada.headers["cookie"]
    async with ada.listen() as stream:
        assert (await ada.request("DELETE", "/session")).status == 200
        assert (await next_of(stream, "stream:expired"))["reason"] == "revoked"
    assert (await ada.request("GET", "/stream?topic=chat/rooms")).status == 401
    async with (await chat.user("Ada")).listen() as stream:
        ada.headers["cookie"] = former  # of a browser whose name has another owner now
        await ada.request("DELETE", "/session")
        await (await chat.user("Bo")).post("hello", "k")
        assert (await next_of(stream))["text"] == "hello"


async def test_resume_after_reconnect(chat: Chat) -> None:
    ada, bo = await chat.user("Ada"), await chat.user("Bo")
    async with ada.listen() as stream:
        await bo.post("1", "1")
        assert (await next_of(stream))["text"] == "1"
        place = stream.last_event_id
    await bo.post("elsewhere", "2", room="help")
    await bo.post("2", "3")
    async with ada.listen(last_event_id=place) as stream:
        assert (await next_of(stream))["text"] == "2"


async def test_restart(tmp_path: Path) -> None:
    """Messages are kept. Clients from before the restart learn that all rooms are empty."""
    folder = tmp_path / "100% #1?"
    folder.mkdir()
    place = None
    for life in ("1", "2"):
        async with EventStreamClient(site_of(open_hub(folder))) as client:
            ada = await Chat(client, FakeClock()).user("Ada")
            assert await ada.members() == []
            async with ada.listen(last_event_id=place) as stream:
                assert await ada.members() == ["Ada"]
                if place:
                    assert await next_of(stream, "reset") == {}
                await ada.post(life, life)
                await next_of(stream)
                place = stream.last_event_id
    async with EventStreamClient(site_of(open_hub(folder))) as client:
        assert await (await Chat(client, FakeClock()).user("Bo")).texts() == ["1", "2"]


async def test_unavailable_log() -> None:
    broker = ScriptedBroker()
    async with EventStreamClient(site_of(Hub(broker))) as client:
        ada = await Chat(client, FakeClock()).user("Ada")
        broker.fail("append")
        refused = await ada.post("hello", "k")
        assert refused.status == 503
        assert refused.problem()["detail"] == "scripted failure"
        broker.recover()
        assert (await ada.post("hello", "k")).status == 201
        assert await ada.texts() == ["hello"]
