"""The items of one connection, and their order."""

from __future__ import annotations

import pickle

import pytest

from tickertape import EventTooLargeError, Hub, ServerSentEvent
from tickertape.asgi import Receive, Scope, Send
from tickertape.client import Gap, ReceivedEvent
from tickertape.client.inbox import Comment, Failure, Inbox, Position
from tickertape.client.policy import Policy
from tickertape.errors import ClientError
from tickertape.hub import DEFAULT_MAX_EVENT_SIZE
from tickertape.testing import EventStreamClient

Item = ReceivedEvent | Comment | Position | Failure

CONFIRMED = b"id: e-5\nretry: 1000\n\n"
"""A hub's first block, if it resumes after ``e-5``."""


def inbox(resumed_after: str | None = None) -> Inbox:
    return Inbox(max_event_size=1000, resumed_after=resumed_after)


def drain(box: Inbox) -> list[Item]:
    items = []
    while (item := box.take()) is not None:
        items.append(item)
    return items


def fed(data: bytes, resumed_after: str | None = None) -> list[Item]:
    box = inbox(resumed_after)
    box.feed(data)
    return drain(box)


def test_events_and_comments() -> None:
    box = inbox()
    assert box.feed(b"data: a\n\n: beat\n\ndata: b\n\n: beat\n\n") == (2, 0)
    assert drain(box) == [ServerSentEvent("a"), ServerSentEvent("b")]
    assert box.feed(b"") == (0, 0)


def test_id_without_event() -> None:
    assert fed(b"id: 1\ndata: a\n\nid: 2\n\n") == [ServerSentEvent("a", id="1"), Position("2")]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_id_without_event_in_chunks(size: int) -> None:
    data = b"id: 1\nretry: 5\n\nid: 2\ndata: a\n\ndata: b\n\nid: 3\n\n"
    box = inbox()
    for start in range(0, len(data), size):
        box.feed(data[start : start + size])
    expected: list[Item] = [ReceivedEvent("a", id="2"), ReceivedEvent("b", id="2"), Position("3")]
    assert [item for item in drain(box) if item != Position("1")] == expected
    assert box.retry == 5


def test_unfinished_id() -> None:
    assert fed(b"id: 1\n") == []


def test_empty_id() -> None:
    assert fed(b"id: 1\n\nid\n\n") == [Position("")]
    assert fed(b"id: 1\ndata: a\n\nid:\ndata: b\n\n") == [ServerSentEvent("a", id="1"), ServerSentEvent("b", id="")]


def test_no_ids() -> None:
    assert fed(b"retry: 1\n\ndata: a\n\n") == [ServerSentEvent("a")]


def test_repeated_events() -> None:
    box = inbox("e-5")
    assert box.feed(CONFIRMED) == (0, 0)
    repeated = b"id: e-4\ndata: 4\n\nid: e-5\ndata: 5\n\n"
    assert box.feed(repeated + b"id: e-6\ndata: 6\n\n") == (0, 2)
    assert drain(box) == [ServerSentEvent("6", id="e-6")]
    assert box.feed(repeated + b"id: e-6\ndata: 6\n\n") == (0, 3)
    assert drain(box) == []


@pytest.mark.parametrize(
    ("after", "id"),
    [
        ("e-5", "f-1"),  # another epoch
        ("e-5", "e-6"),
        ("e-9", "e-10"),  # numbers, not text
        ("e-5", "5"),
        ("e-5", "e-x"),
        ("e-5", "e--1"),
        ("e-5", "e-١"),
        ("e-5", "-1"),
        ("5", "5"),
        ("e-5-1", "e-5-1"),
        ("e-" + "9" * 20, "e-" + "1" * 20),
        (None, "e-1"),
    ],
)
def test_other_ids_are_kept(after: str | None, id: str) -> None:
    """Also if the server confirms the id as a hub does."""
    event = f"id: {id}\ndata: x\n\n"
    assert fed(event.encode(), after) == [ServerSentEvent("x", id=id)]
    assert fed(f"id: {after}\n\n{event}".encode(), after)[-1] == ServerSentEvent("x", id=id)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b": hi\n\n",
        b"retry: 1000\n\n",
        b"id: user-41\n\n",  # another position
        b"id: user-42\ndata: a\n\n",  # with data it is an event
        b"data: a\n\nid: user-42\n\n",  # after an event it confirms nothing
    ],
)
def test_ids_are_opaque_without_confirmation(start: bytes) -> None:
    """Only a server that repeats the cursor, and nothing else, before its first event is a hub."""
    items = fed(start + b"id: user-7\ndata: x\n\nid: user-3\n\n", "user-42")
    assert items[-2:] == [ServerSentEvent("x", id="user-7"), Position("user-3")]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_confirmation_in_chunks(size: int, end: bytes) -> None:
    data = (b": hi\n\n" + CONFIRMED + b"id: e-4\ndata: 4\n\nid: e-6\ndata: 6\n\n").replace(b"\n", end)
    box = inbox("e-5")
    for start in range(0, len(data), size):
        box.feed(data[start : start + size])
    assert drain(box) == [ServerSentEvent("6", id="e-6")]


def test_event_without_own_id() -> None:
    # The hub's first block repeats the cursor, and an event without an id shows it.
    for end in (b"\n", b"\r", b"\r\n"):
        data = b"id: e-5\n\nevent: note\ndata: x\n\n".replace(b"\n", end)
        assert fed(data, "e-5") == [ServerSentEvent("x", event="note", id="e-5")]


def test_first_connection() -> None:
    data = b"id: user-7\ndata: a\n\nid: user-3\ndata: b\n\n"
    assert fed(data) == [ServerSentEvent("a", id="user-7"), ServerSentEvent("b", id="user-3")]


def test_position_does_not_go_back() -> None:
    assert fed(CONFIRMED, "e-5") == []
    assert fed(CONFIRMED + b"id: e-3\n\n", "e-5") == []
    assert fed(CONFIRMED + b"id: e-6\n\n", "e-5") == [Position("e-6")]


def test_position_is_no_delivery() -> None:
    # If a block without data counted as a delivery, the replay after it would be lost.
    data = b"id: e-9\n\nid: e-6\ndata: x\n\n"
    assert fed(data, "e-5")[-1] == ServerSentEvent("x", id="e-6")


def test_gap() -> None:
    data = '{"reason":"expired","after":"e-1","resumed":"e-7"}'
    (gap,) = fed(f"id: e-7\nevent: stream:gap\ndata: {data}\n\n".encode(), "e-9")
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.after, gap.resumed, gap.id) == ("expired", "e-1", "e-7", "e-7")
    assert gap == ServerSentEvent(data, event="stream:gap", id="e-7")
    assert repr(gap) == "Gap(reason='expired', after='e-1', resumed='e-7')"
    copy = pickle.loads(pickle.dumps(gap))
    assert isinstance(copy, Gap)
    assert copy == gap


def test_events_after_gap() -> None:
    data = b"""id: e-0\nevent: stream:gap\ndata: {"reason":"reset","after":"e-9","resumed":"e-0"}\n\n"""
    events = b"id: e-1\ndata: a\n\nid: e-2\n\nid: e-1\ndata: b\n\n"
    gap, *rest = fed(data + events, "e-9")
    assert isinstance(gap, Gap)
    assert rest == [ServerSentEvent("a", id="e-1"), Position("e-2")]
    assert fed(data.replace(b',"resumed":"e-0"', b"") + events, "e-9")[1:] == rest
    gap, *rest = fed(b'event: stream:gap\ndata: {"reason":"reset"}\n\nid: e-1\ndata: a\n\n', "e-9")
    assert rest == [ServerSentEvent("a", id="e-1")]


def test_gap_without_cursors() -> None:
    (gap,) = fed(b'event: stream:gap\ndata: {"reason":"reset","after":null}\n\n')
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.after, gap.resumed, gap.id) == ("reset", None, None, None)


@pytest.mark.parametrize("data", ["", "lost some", "[]", "{}", '{"reason":7}', "7"])
def test_invalid_gap_is_event(data: str) -> None:
    (event,) = fed(f"event: stream:gap\ndata: {data}\n\n".encode())
    assert not isinstance(event, Gap)
    assert event == ServerSentEvent(data, event="stream:gap")


def test_stream_error() -> None:
    box = inbox()
    box.feed(b'id: 1\ndata: a\n\nid: 2\nevent: stream:error\ndata: {"title":"oh"}\n\nid: 3\ndata: b\n\nid: 4\n\n')
    box.feed(b"data: c\n\n")
    first, failure = drain(box)
    assert first == ServerSentEvent("a", id="1")
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, ClientError)
    assert str(failure.error) == 'the stream failed on the server: {"title":"oh"}'
    assert not failure.final


def test_event_too_large() -> None:
    first, failure = fed(b"id: 1\ndata: a\n\nid: 2\ndata: " + b"x" * 1000 + b"\n\n")
    assert first == ServerSentEvent("a", id="1")
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, EventTooLargeError)
    assert failure.error.limit == 1000
    assert failure.final


def test_unfinished_event_too_large() -> None:
    (failure,) = fed(b"data: " + b"x" * 1000)
    assert isinstance(failure, Failure)


def test_largest_event_of_hub() -> None:
    data = "\n" * DEFAULT_MAX_EVENT_SIZE
    box = Inbox(max_event_size=Policy().max_event_size)
    box.feed(ServerSentEvent(data).encode())
    assert drain(box) == [ServerSentEvent(data)]


async def test_hub_confirms_cursor() -> None:
    """The client accepts the first bytes of our own hub as a confirmation."""
    async with Hub() as hub:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await hub.response(scope, topics=["a"])(scope, receive, send)

        one, two = [str(await hub.publish("a", data)) for data in ("1", "2")]
        async with EventStreamClient(app).open("/", last_event_id=one) as stream:
            await stream.next_event()
    box = Inbox(max_event_size=None, resumed_after=one)
    repeated = f"id: {one}\ndata: 1\n\nid: {two}\ndata: 2\n\n".encode()
    assert box.feed(stream.body + repeated) == (0, 2)
    assert drain(box) == [ServerSentEvent("2", id=two)]
