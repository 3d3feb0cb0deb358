"""The items of a stream as bytes: events of other libraries, and mistakes that are logged once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sse_starlette
from fastapi.sse import ServerSentEvent as FastAPIEvent
from pydantic import BaseModel

from tickertape import InvalidEventError
from tickertape.asgi import items


class SubclassedEvent(FastAPIEvent):
    """An event of a program that extends FastAPI's."""


class Named(BaseModel):
    """A model with the fields of an event, which is data like any other."""

    data: str = "a"
    event: str = "b"


class ServerSentEvent:
    """Of neither library: not known, and not JSON."""

    data = "a"


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        (FastAPIEvent(data={"a": 1}, event="e", id="7", retry=5), b'id: 7\nevent: e\nretry: 5\ndata: {"a":1}\n\n'),
        (FastAPIEvent(data="text"), b'data: "text"\n\n'),
        (FastAPIEvent(data=Named()), b'data: {"data":"a","event":"b"}\n\n'),
        (FastAPIEvent(raw_data="<p>\n</p>"), b"data: <p>\ndata: </p>\n\n"),
        (FastAPIEvent(comment="hi"), b": hi\n\n"),
        (FastAPIEvent(event="e"), b"event: e\n\n"),
        (SubclassedEvent(data=1), b"data: 1\n\n"),
        (
            sse_starlette.ServerSentEvent("text", event="e", id="7", retry=5),
            b"id: 7\nevent: e\nretry: 5\ndata: text\n\n",
        ),
        (sse_starlette.ServerSentEvent(5), b"data: 5\n\n"),
        (sse_starlette.ServerSentEvent({"a": 1}), b"data: {'a': 1}\n\n"),
        (sse_starlette.ServerSentEvent(comment="hi", sep="\n"), b": hi\n\n"),
        (sse_starlette.JSONServerSentEvent({"a": 1}), b'data: {"a":1}\n\n'),
        (Named(), b'data: {"data":"a","event":"b"}\n\n'),
    ],
)
def test_events_of_other_libraries(item: Any, encoded: bytes) -> None:
    assert items.encode_item(item) == encoded


@pytest.mark.parametrize("item", [sse_starlette.ServerSentEvent("a", event="b\nc"), ServerSentEvent()])
def test_bad_events(item: Any) -> None:
    with pytest.raises(InvalidEventError):
        items.encode_item(item)


@pytest.fixture
def new_process() -> Iterator[None]:
    """As if nothing had been logged yet."""
    before = set(items._warned)
    items._warned.clear()
    yield
    items._warned.clear()
    items._warned.update(before)


TEXT = "text that is already formatted as an event is sent as the data of an event: "
FIELDS = "a dict with the fields of an event is sent as the data of an event: "


@pytest.mark.parametrize(
    ("item", "encoded", "warning"),
    [
        ("data: x\n\n", b"data: data: x\ndata: \ndata: \n\n", TEXT),
        ("event: e\r\ndata: x\r\n\r\n", b"data: event: e\ndata: data: x\ndata: \ndata: \n\n", TEXT),
        (": ping\n\n", b"data: : ping\ndata: \ndata: \n\n", TEXT),
        ("data: x", b"data: data: x\n\n", ""),
        ("a paragraph\n\n", b"data: a paragraph\ndata: \ndata: \n\n", ""),
        ({"data": "x"}, b'data: {"data":"x"}\n\n', FIELDS),
        ({"event": "e", "id": 1, "data": "x"}, b'data: {"event":"e","id":1,"data":"x"}\n\n', FIELDS),
        ({"data": "x", "name": "y"}, b'data: {"data":"x","name":"y"}\n\n', ""),
        ({"id": 1, "event": "e"}, b'data: {"id":1,"event":"e"}\n\n', ""),
        ({}, b"data: {}\n\n", ""),
    ],
)
@pytest.mark.usefixtures("new_process")
def test_warnings(item: Any, encoded: bytes, warning: str, caplog: pytest.LogCaptureFixture) -> None:
    """The item is sent as documented; the first of its kind is logged, with the remedy."""
    assert [items.encode_item(item) for _ in range(3)] == [encoded] * 3
    messages = [record.message for record in caplog.records]
    assert len(messages) == bool(warning)
    for message in messages:
        assert message.startswith(f"{warning}{item!r}. Yield ")
        assert "ServerSentEvent(data, " in message
        assert caplog.records[0].levelno == logging.WARNING
