"""Both publishers of the client against the real interface: requests of the one are accepted by the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from support.local import serve_here
from tickertape import InvalidEventError
from tickertape.client import Draft, Publisher, SyncPublisher
from tickertape.errors import InvalidTopicError, PublishError
from tickertape.hub import Hub
from tickertape.server.app import create_app
from tickertape.wire import End

Publish = Callable[..., Any]
"""Call a method of a publisher at a URL, by name, with arguments; return what it returns."""


async def by_async(url: str, method: str, *arguments: Any, **options: Any) -> Any:
    async with Publisher(url) as publisher:
        return await getattr(publisher, method)(*arguments, **options)


async def by_sync(url: str, method: str, *arguments: Any, **options: Any) -> Any:
    def call() -> Any:
        assert threading.current_thread() is not threading.main_thread()
        with SyncPublisher(url) as publisher:
            return getattr(publisher, method)(*arguments, **options)

    return await asyncio.to_thread(call)


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Hub, str]]:
    hub = Hub(max_event_size=1000)
    async with serve_here(create_app(hub)) as url:
        yield hub, url


async def kept(hub: Hub) -> list[tuple[str, str | None, str]]:
    records, _ = await hub.history("**")
    return [(record.topic, record.event, record.data) for _, record in records]


@pytest.mark.parametrize("publish", [by_async, by_sync])
async def test_publish(served: tuple[Hub, str], publish: Publish) -> None:
    hub, url = served
    first = await publish(url, "publish", "a/b", {"n": 1}, event="e")
    assert first == f"{hub.epoch}-1"
    again = [await publish(url, "publish", "a", "x", key="k") for _ in range(2)]
    assert again == [f"{hub.epoch}-2"] * 2
    drafts = [Draft("c", "1"), Draft("c", None), Draft("d", "ä€\n", event="e")]
    assert await publish(url, "publish_many", drafts) == [f"{hub.epoch}-{offset}" for offset in (3, 4, 5)]
    assert await publish(url, "publish_many", []) == []
    assert await kept(hub) == [
        ("a/b", "e", '{"n":1}'),
        ("a", None, "x"),
        ("c", None, "1"),
        ("c", None, "null"),
        ("d", "e", "ä€\n"),
    ]


@pytest.mark.parametrize("publish", [by_async, by_sync])
@pytest.mark.parametrize(
    ("arguments", "options", "status", "said"),
    [
        (("a", "x" * 1001), {}, 413, "at most 1000 bytes, got 1001"),
        (("a", "x" * 8001), {}, 413, "expected a body of at most 8000 bytes"),
    ],
)
async def test_refused_events(
    served: tuple[Hub, str], publish: Publish, arguments: tuple[str, ...], options: Any, status: int, said: str
) -> None:
    hub, url = served
    with pytest.raises(PublishError, match=said) as raised:
        await publish(url, "publish", *arguments, **options)
    assert raised.value.status == status
    assert await kept(hub) == []


@pytest.mark.parametrize("publish", [by_async, by_sync])
async def test_end(served: tuple[Hub, str], publish: Publish) -> None:
    hub, url = served
    topic = "a/ä b?#%"
    async with hub.subscribe(topic) as events:
        await publish(url, "publish", topic, "x")
        assert await publish(url, "end", topic, reason="done") == f"{hub.epoch}-2"
        assert await publish(url, "end", topic) == f"{hub.epoch}-2"  # it has ended
        last = [event async for event in events][-1]
    assert isinstance(last, End)
    assert last.reason == "done"
    with pytest.raises(PublishError) as raised:
        await publish(url, "end", "a", reason="")
    assert raised.value.status == 422
    with pytest.raises(InvalidTopicError):
        await publish(url, "end", "a/*")


@pytest.mark.parametrize("publish", [by_async, by_sync])
async def test_refused_batch(served: tuple[Hub, str], publish: Publish) -> None:
    hub, url = served
    with pytest.raises(PublishError) as raised:
        await publish(url, "publish_many", [Draft("a", "1"), Draft("a", "x" * 1001)])
    assert (raised.value.status, raised.value.extensions["index"]) == (413, 1)
    assert await kept(hub) == []


@pytest.mark.parametrize("publish", [by_async, by_sync])
@pytest.mark.parametrize(
    ("topic", "options", "error"),
    [
        ("a//b", {}, InvalidTopicError),
        ("*", {}, InvalidTopicError),
        ("a", {"event": "a\nb"}, InvalidEventError),
        ("a", {"event": "stream:gap"}, InvalidEventError),
        ("a", {"key": ""}, InvalidEventError),
    ],
)
async def test_invalid_events_are_not_sent(
    served: tuple[Hub, str], publish: Publish, topic: str, options: Any, error: type[Exception]
) -> None:
    _, url = served
    with pytest.raises(error):
        await publish(url, "publish", topic, "x", **options)
