"""The requests of the notifications demo: sending, inbox, read marks, and access to streams."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tickertape.demo.notifications.demo import DEFAULT_PAGE, notifications_demo
from tickertape.demo.notifications.table import MAX_PAGE
from tickertape.demo.site import Site, open_hub
from tickertape.testing import EventStream, EventStreamClient

from .databases import execute, new_database, remove

JSON = {"content-type": "application/json"}


class User:
    """A client with a cookie, anonymous until :meth:`sign_in`."""

    def __init__(self, client: EventStreamClient) -> None:
        self._client = client
        self.headers = {"cookie": ""}

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {**self.headers, **({} if body is None else JSON)}
        async with self._client.open(path, method=method, headers=headers, body=content) as response:
            cookie = response.headers.get("set-cookie", "").partition(";")[0]
            if cookie:
                self.headers["cookie"] = cookie
            return response.status, json.loads(await response.read())

    async def sign_in(self, name: str) -> User:
        assert await self.request("POST", "/session", {"name": name}) == (200, {"name": name})
        return self

    async def send(self, user: str, title: str, **fields: str) -> int:
        status, answer = await self.request("POST", "/notifications/", {"user": user, "title": title, **fields})
        assert status == 201, answer
        return int(answer["id"])

    async def inbox(self, query: str = "") -> dict[str, Any]:
        status, answer = await self.request("GET", f"/notifications/inbox{query}")
        assert status == 200, answer
        page: dict[str, Any] = answer
        return page

    async def titles(self) -> list[str]:
        return [each["title"] for each in (await self.inbox())["notifications"]]

    def stream(self, last_event_id: str | None = None, *, path: str = "/notifications/events") -> EventStream:
        return self._client.open(path, headers=self.headers, last_event_id=last_event_id)


class Served:
    """The application and its users, each with a separate browser."""

    def __init__(self, client: EventStreamClient, url: str) -> None:
        self.client = client
        self.url = url
        self.anyone = User(client)

    async def user(self, name: str) -> User:
        return await User(self.client).sign_in(name)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    with new_database("sqlite", folder) as url:
        hub = open_hub(folder)
        async with EventStreamClient(Site(hub, [notifications_demo(hub, folder=folder)])) as client:
            yield Served(client, url)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


async def next_titles(stream: EventStream, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        event = await stream.next_event()
        if event.event == "notification":
            found.append(event.json()["title"])
    return found


async def test_send(served: Served) -> None:
    for name in ("Ann", "Zoë Müller-Lüdenscheidt", "名前", "a.b_c 1", "İbrahim", "Straße"):
        user = await served.user(name)
        async with user.stream() as stream:
            sent = await served.anyone.send(name, "Hello", body="You", link="/clock/")
            event = await stream.next_event()
            assert event.event == "notification"
            (found,) = (await user.inbox())["notifications"]
            assert event.json() == found
            assert (found["id"], found["title"], found["body"], found["link"]) == (sent, "Hello", "You", "/clock/")


async def test_rows_of_other_programs(served: Served) -> None:
    ann = await served.user("Ann")
    async with ann.stream() as stream:
        for user in ("a/b", "*", "**", "notifications/ann", "\N{PARTY POPPER}" * 96, "\u202e", " ann", "ann"):
            execute(served.url, "INSERT INTO notifications (user_id, title) VALUES (?, ?)", user, f"for {user}")
        assert await next_titles(stream, 1) == ["for ann"]


ATTEMPTS: Final[list[tuple[str, dict[str, str]]]] = [
    ("/notifications/events?topic=notifications/ann", {}),
    ("/notifications/events?topic=**&topics=notifications/**&user=ann&name=Ann&last=100", {}),
    ("/notifications/events?last_event_id={0}", {}),
    ("/notifications/events?lastEventId={0}&user_id=ann", {}),
    ("/notifications/events", {"x-user": "ann", "x-forwarded-user": "Ann", "authorization": "Bearer Ann"}),
    ("/notifications/events", {"last-event-id": "{0}"}),
    ("/notifications/events", {"last-event-id": "ann"}),
    ("/notifications/events", {"last-event-id": "notifications/ann"}),
]


async def test_streams_are_private(served: Served) -> None:
    """The log has one order: if Bob received Ann's events, they would come before his own."""
    ann, bob = await served.user("Ann"), await served.user("Bob")
    start = (await ann.inbox())["cursor"]
    await served.anyone.send("Ann", "Ann's, before")
    async with ann.stream(start) as stream:
        assert await next_titles(stream, 1) == ["Ann's, before"]
    headers = dict(bob.headers)
    for number, (path, more) in enumerate(ATTEMPTS):
        bob.headers = {**headers, **{name: value.format(start) for name, value in more.items()}}
        async with bob.stream(path=path.format(start)) as stream:
            await served.anyone.send("Ann", "Ann's")
            await served.anyone.send("Bob", f"Bob's {number}")
            while (await next_titles(stream, 1)) != [f"Bob's {number}"]:
                pass
            assert b"Ann's" not in stream.body, (path, more)
    assert await bob.titles() == [f"Bob's {number}" for number in reversed(range(len(ATTEMPTS)))]


async def test_no_path_to_other_users(served: Served) -> None:
    bob = await served.user("Bob")
    for path in ("events/ann", "notifications/ann", "users/ann", "inbox/ann", "../notifications/ann"):
        async with bob.stream(path=f"/notifications/{path}") as response:
            assert response.status == 404, path


async def test_not_signed_in(served: Served) -> None:
    ann, forger = await served.user("Ann"), User(served.client)
    forger.headers["cookie"] = ann.headers["cookie"][:-3] + "AAA"
    for user in (served.anyone, forger):
        for method, path in (("GET", "events"), ("GET", "inbox"), ("POST", "read")):
            status, problem = await user.request(method, f"/notifications/{path}")
            assert (status, problem["detail"]) == (401, "not signed in")


REFUSED: Final = [
    ('{"user": "Ann", "title": "Hi", "urgent": true}', JSON, 422, "unknown field 'urgent'"),
    ('{"user": "Ann"}', JSON, 422, "expected 'title' to have 1 to 120 characters, got 0"),
    ('{"user": "", "title": "Hi"}', JSON, 422, "expected 'user' to have 1 to 32 characters, got 0"),
    (
        '{"user": "Ann", "title": "Hi", "link": "javascript:alert(1)"}',
        JSON,
        422,
        "expected a link that starts with https://, http:// or /, got 'javascript:alert(1)'",
    ),
    ("[]", JSON, 422, "expected a JSON object, got []"),
    ("{", JSON, 400, "the body is not valid JSON: "),
    ("", JSON, 400, "the body is not valid JSON: "),
    ('{"body": "%s"}' % ("x" * 70_000), JSON, 413, "the body is larger than 65536 bytes"),
    ("user=Ann&title=Hi", {"content-type": "text/plain"}, 415, "expected a Content-Type of application/json"),
]


async def test_refused_requests(served: Served) -> None:
    for body, headers, status, sentence in REFUSED:
        sent = served.client.open("/notifications/", method="POST", headers=headers, body=body.encode())
        async with sent as response:
            problem = json.loads(await response.read())
        assert (response.status, response.headers["content-type"]) == (status, "application/problem+json"), body
        assert sentence in problem["detail"]
    assert await (await served.user("Ann")).titles() == []


async def test_inbox_pages(served: Served) -> None:
    ann = await served.user("Ann")
    for number in range(DEFAULT_PAGE + 5):
        execute(served.url, "INSERT INTO notifications (user_id, title) VALUES ('ann', ?)", f"{number}")
    first = await ann.inbox()
    assert [each["title"] for each in first["notifications"]] == [
        str(DEFAULT_PAGE + 4 - number) for number in range(DEFAULT_PAGE)
    ]
    assert (first["more"], first["unread_older"], first["user"]) == (True, 5, "ann")
    rest = await ann.inbox(f"?before={first['notifications'][-1]['id']}&limit=100")
    assert [each["title"] for each in rest["notifications"]] == ["4", "3", "2", "1", "0"]
    assert (rest["more"], rest["unread_older"]) == (False, 0)


INVALID_PAGES: Final = {
    "limit=101": f"expected limit to be a number from 1 to {MAX_PAGE}, got '101'",
    "limit=0": f"expected limit to be a number from 1 to {MAX_PAGE}, got '0'",
    "limit=": f"expected limit to be a number from 1 to {MAX_PAGE}, got ''",
    "before=-1": "expected before to be a number from 1 to 9223372036854775807, got '-1'",
    "before=9223372036854775808": "got '9223372036854775808'",
    "before=1;DROP": "got '1;DROP'",
    "before=" + "9" * 5000: "expected before to be a number",
    "before=٣": "expected before to be a number",
}


async def test_invalid_pages(served: Served) -> None:
    ann = await served.user("Ann")
    for query, sentence in INVALID_PAGES.items():
        status, problem = await ann.request("GET", f"/notifications/inbox?{query}")
        assert status == 422, query
        assert sentence in problem["detail"]


async def test_read_marks(served: Served) -> None:
    ann, bob = await served.user("Ann"), await served.user("Bob")
    one, two = await served.anyone.send("Ann", "one"), await served.anyone.send("Ann", "two")
    bobs = await served.anyone.send("Bob", "Bob's")
    start = (await ann.inbox())["cursor"]

    async def unread(user: User) -> list[int]:
        return [each["id"] for each in (await user.inbox())["notifications"] if not each["read_at"]]

    assert await ann.request("POST", "/notifications/read", {"ids": [one, bobs]}) == (200, {"ids": [one, bobs]})
    assert (await unread(ann), await unread(bob)) == ([two], [bobs])
    assert await ann.request("POST", "/notifications/read", {"up_to": bobs}) == (200, {"up_to": bobs})
    assert (await unread(ann), await unread(bob)) == ([], [bobs])
    await served.anyone.send("Bob", "the last")
    async with ann.stream(start) as stream:
        marks: list[Any] = []
        while len(marks) < 2:
            event = await stream.next_event()
            marks += [event.json()] if event.event == "read" else []
        assert marks == [{"ids": [one, bobs]}, {"up_to": bobs}]
    async with bob.stream(start) as stream:
        assert await next_titles(stream, 1) in (["Bob's"], ["the last"])
        assert b"event: read" not in stream.body


INVALID_MARKS: Final[list[dict[str, Any]]] = [
    {},
    *({"ids": ids} for ids in ([], [0], ["1"], [True], [2**63], 1, list(range(1, 102)))),
    *({"up_to": up_to} for up_to in (-1, True, 1.5, "1", None)),
    {"up_to": 1, "ids": [1]},
    {"up_to": 1, "all": True},
]


async def test_invalid_marks(served: Served) -> None:
    ann = await served.user("Ann")
    for body in INVALID_MARKS:
        status, problem = await ann.request("POST", "/notifications/read", body)
        sentence = 'expected {"ids": [1 to 100 ids]} or {"up_to": id}, got something else'
        assert (status, problem["detail"]) == (422, sentence), body


async def test_unavailable_table(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    ann = await served.user("Ann")
    execute(served.url, "ALTER TABLE notifications RENAME TO gone")
    for method, path, body in (
        ("GET", "inbox", None),
        ("POST", "", {"user": "Ann", "title": "Hi"}),
        ("POST", "read", {"up_to": 1}),
    ):
        status, problem = await ann.request(method, f"/notifications/{path}", body)
        assert status == 503
        assert problem["detail"].startswith("the database or the event log is not available")
    assert "no such table: notifications" in caplog.text


async def test_stream_resumes_from_inbox_cursor(served: Served) -> None:
    ann = await served.user("Ann")
    async with ann.stream() as stream:
        await served.anyone.send("Ann", "seen")
        await next_titles(stream, 1)
    page = await ann.inbox()
    assert [each["title"] for each in page["notifications"]] == ["seen"]
    await served.anyone.send("Ann", "missed")
    async with ann.stream(page["cursor"]) as stream:
        assert await next_titles(stream, 1) == ["missed"]


async def test_recreated_table(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        ann = await served.user("Ann")
        async with ann.stream() as stream:
            await served.anyone.send("Ann", "first")
            await next_titles(stream, 1)
    remove(tmp_path / "notifications.sqlite")
    async with serving(tmp_path) as served:
        ann = await served.user("Ann")
        async with ann.stream() as stream:
            assert await served.anyone.send("Ann", "the first again") == 1
            assert await next_titles(stream, 1) == ["the first again"]
