"""What one connection brings, and in which order it can be taken."""

from __future__ import annotations

import pickle

import pytest

from tickertape import EventTooLargeError, Hub, ServerSentEvent
from tickertape.asgi import Receive, Scope, Send
from tickertape.client import Gap
from tickertape.client.inbox import Failure, Inbox, Place
from tickertape.client.policy import Policy
from tickertape.errors import ClientError
from tickertape.hub import DEFAULT_MAX_EVENT_SIZE
from tickertape.testing import EventStreamClient

Item = ServerSentEvent | Place | Failure


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


def test_events_come_in_order_and_comments_are_counted() -> None:
    box = inbox()
    assert box.feed(b"data: a\n\n: beat\n\ndata: b\n\n: beat\n\n") == (2, 0)
    assert drain(box) == [ServerSentEvent("a"), ServerSentEvent("b")]
    assert box.feed(b"") == (0, 0)


def test_an_id_without_an_event_waits_behind_the_events_before_it() -> None:
    assert fed(b"id: 1\ndata: a\n\nid: 2\n\n") == [ServerSentEvent("a", id="1"), Place("2")]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_id_without_an_event_is_a_place_whatever_the_chunking(size: int) -> None:
    data = b"id: 1\nretry: 5\n\nid: 2\ndata: a\n\ndata: b\n\nid: 3\n\n"
    box = inbox()
    for start in range(0, len(data), size):
        box.feed(data[start : start + size])
    expected: list[Item] = [ServerSentEvent("a", id="2"), ServerSentEvent("b", id="2"), Place("3")]
    assert [item for item in drain(box) if item != Place("1")] == expected
    assert box.retry == 5


def test_an_unfinished_id_is_no_place() -> None:
    assert fed(b"id: 1\n") == []


def test_an_empty_id_is_the_place_without_a_name() -> None:
    assert fed(b"id: 1\n\nid\n\n") == [Place("")]
    assert fed(b"id: 1\ndata: a\n\nid:\ndata: b\n\n") == [ServerSentEvent("a", id="1"), ServerSentEvent("b", id="")]


def test_a_stream_without_ids_has_no_place() -> None:
    assert fed(b"retry: 1\n\ndata: a\n\n") == [ServerSentEvent("a")]


def test_what_a_resumed_stream_repeats_is_dropped() -> None:
    box = inbox("e-5")
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
def test_what_is_not_certainly_repeated_is_kept(after: str | None, id: str) -> None:
    assert fed(f"id: {id}\ndata: x\n\n".encode(), after) == [ServerSentEvent("x", id=id)]


def test_an_event_without_an_id_of_its_own_is_not_repeated() -> None:
    # The hub's priming block names the place again; what follows inherits it.
    for end in (b"\n", b"\r", b"\r\n"):
        data = b"id: e-5\n\nevent: note\ndata: x\n\n".replace(b"\n", end)
        assert fed(data, "e-5") == [ServerSentEvent("x", event="note", id="e-5")]


def test_a_first_connection_drops_nothing() -> None:
    data = b"id: user-7\ndata: a\n\nid: user-3\ndata: b\n\n"
    assert fed(data) == [ServerSentEvent("a", id="user-7"), ServerSentEvent("b", id="user-3")]


def test_a_place_does_not_go_back_in_a_resumed_stream() -> None:
    assert fed(b"id: e-3\n\n", "e-5") == []
    assert fed(b"id: e-5\n\n", "e-5") == []
    assert fed(b"id: e-6\n\n", "e-5") == [Place("e-6")]


def test_a_priming_place_is_not_a_delivery() -> None:
    # Were the place of a block without data taken for one, the replay that follows it would be lost.
    data = b"id: e-9\n\nid: e-6\ndata: x\n\n"
    assert fed(data, "e-5")[-1] == ServerSentEvent("x", id="e-6")


def test_a_gap_is_an_event_of_its_own_kind() -> None:
    data = '{"reason":"expired","after":"e-1","resumed":"e-7"}'
    (gap,) = fed(f"id: e-7\nevent: stream:gap\ndata: {data}\n\n".encode(), "e-9")
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.after, gap.resumed, gap.id) == ("expired", "e-1", "e-7", "e-7")
    assert gap == ServerSentEvent(data, event="stream:gap", id="e-7")
    assert repr(gap) == "Gap(reason='expired', after='e-1', resumed='e-7')"
    copy = pickle.loads(pickle.dumps(gap))
    assert isinstance(copy, Gap)
    assert copy == gap


def test_what_follows_a_gap_is_new_even_if_it_lies_behind_the_place() -> None:
    data = b"""id: e-0\n\nid: e-0\nevent: stream:gap\ndata: {"reason":"reset","after":"e-9","resumed":"e-0"}\n\n"""
    events = b"id: e-1\ndata: a\n\nid: e-2\n\nid: e-1\ndata: b\n\n"
    gap, *rest = fed(data + events, "e-9")
    assert isinstance(gap, Gap)
    assert rest == [ServerSentEvent("a", id="e-1"), Place("e-2")]
    assert fed(data.replace(b',"resumed":"e-0"', b"") + events, "e-9")[1:] == rest
    gap, *rest = fed(b'event: stream:gap\ndata: {"reason":"reset"}\n\nid: e-1\ndata: a\n\n', "e-9")
    assert rest == [ServerSentEvent("a", id="e-1")]


def test_a_gap_may_leave_the_cursors_out() -> None:
    (gap,) = fed(b'event: stream:gap\ndata: {"reason":"reset","after":null}\n\n')
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.after, gap.resumed, gap.id) == ("reset", None, None, None)


@pytest.mark.parametrize("data", ["", "lost some", "[]", "{}", '{"reason":7}', "7"])
def test_what_only_looks_like_a_gap_is_an_event(data: str) -> None:
    (event,) = fed(f"event: stream:gap\ndata: {data}\n\n".encode())
    assert not isinstance(event, Gap)
    assert event == ServerSentEvent(data, event="stream:gap")


def test_an_error_of_the_stream_ends_it_behind_what_came_before() -> None:
    box = inbox()
    box.feed(b'id: 1\ndata: a\n\nid: 2\nevent: stream:error\ndata: {"title":"oh"}\n\nid: 3\ndata: b\n\nid: 4\n\n')
    box.feed(b"data: c\n\n")
    first, failure = drain(box)
    assert first == ServerSentEvent("a", id="1")
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, ClientError)
    assert str(failure.error) == 'expected events, got stream:error: {"title":"oh"}'
    assert not failure.final


def test_an_event_too_large_comes_behind_what_came_before() -> None:
    first, failure = fed(b"id: 1\ndata: a\n\nid: 2\ndata: " + b"x" * 1000 + b"\n\n")
    assert first == ServerSentEvent("a", id="1")
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, EventTooLargeError)
    assert failure.error.limit == 1000
    assert failure.final


def test_an_unfinished_event_too_large_is_refused_at_once() -> None:
    (failure,) = fed(b"data: " + b"x" * 1000)
    assert isinstance(failure, Failure)


def test_the_largest_event_that_a_hub_takes_is_within_the_default() -> None:
    data = "\n" * DEFAULT_MAX_EVENT_SIZE
    box = Inbox(max_event_size=Policy().max_event_size)
    box.feed(ServerSentEvent(data).encode())
    assert drain(box) == [ServerSentEvent(data)]


async def test_hub_confirms_cursor() -> None:
    """The first bytes of our own hub are what the client takes for a confirmation."""
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
