"""The notices between events: gaps, heartbeats, and the blocks of records."""

from __future__ import annotations

import copy
import pickle

import pytest

from tickertape import Decoder, ServerSentEvent
from tickertape.errors import InvalidEventError
from tickertape.wire import HEARTBEAT, STREAM_ERROR, Cursor, Draft, End, Gap, encode_fields

GAP = Gap.create("expired", "e-3", Cursor("e", 7))


def test_gap_on_the_wire() -> None:
    assert GAP.encode() == (
        b'id: e-7\nevent: stream:gap\ndata: {"reason": "expired", "after": "e-3", "resumed": "e-7"}\n\n'
    )
    [event] = Decoder().feed(GAP.encode())
    gap = Gap.parse(event)
    assert gap == GAP
    assert gap is not None
    assert (gap.reason, gap.after, gap.resumed, gap.id) == ("expired", "e-3", "e-7", "e-7")
    assert repr(gap) == "Gap(reason='expired', after='e-3', resumed='e-7')"
    assert copy.copy(gap) == pickle.loads(pickle.dumps(gap)) == gap
    assert type(copy.copy(gap)) is Gap


def test_foreign_id_is_cut() -> None:
    assert Gap.create("reset", "x" * 5000, Cursor("e", 0)).after == "x" * 200


@pytest.mark.parametrize(
    "event",
    [
        ServerSentEvent(GAP.data),
        ServerSentEvent("", event="stream:gap"),
        ServerSentEvent("[]", event="stream:gap"),
        ServerSentEvent('{"reason": 5}', event="stream:gap"),
        ServerSentEvent(None, event="stream:gap"),
    ],
)
def test_no_gap(event: ServerSentEvent) -> None:
    assert Gap.parse(event) is None


def test_gap_without_positions() -> None:
    gap = Gap.parse(ServerSentEvent('{"reason": "reset"}', event="stream:gap"))
    assert gap is not None
    assert (gap.reason, gap.after, gap.resumed) == ("reset", None, None)


def test_end_on_the_wire() -> None:
    end = End.create(Draft.end("a/1", "done").data, "e-7", final=True)
    assert end.encode() == b'id: e-7\nevent: stream:end\ndata: {"topic":"a/1","reason":"done"}\n\n'
    [event] = Decoder().feed(end.encode())
    parsed = End.parse(event)
    assert parsed == end
    assert parsed is not None
    assert (parsed.topic, parsed.reason, parsed.message, parsed.final) == ("a/1", "done", None, True)
    assert repr(end) == "End(topic='a/1', reason='done', final=True)"
    assert type(copy.copy(end)) is End
    assert copy.copy(end) == pickle.loads(pickle.dumps(end)) == end
    other = End.create(end.data, "e-7", final=False)
    assert (other.event, other.final) == ("stream:topic-end", False)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (ServerSentEvent('{"reason": "done"}'), None),
        (ServerSentEvent(None, event="stream:end"), None),
        (ServerSentEvent("", event="stream:end"), ("", "", None)),
        (ServerSentEvent('{"reason": 5, "topic": []}', event="stream:end"), ("", "", None)),
        (
            ServerSentEvent('{"reason": "error", "run": "e-1", "message": "no"}', event="stream:end"),
            ("", "error", "no"),
        ),
    ],
)
def test_parse_end(event: ServerSentEvent, expected: tuple[str, str, str | None] | None) -> None:
    """The stream ends at the notice, whatever its data are."""
    end = End.parse(event)
    assert (None if end is None else (end.topic, end.reason, end.message)) == expected


def test_heartbeat_ends_with_a_blank_line() -> None:
    """Without it, several clients dispatch an empty event for the comment."""
    assert HEARTBEAT.endswith(b"\n\n")
    assert Decoder().feed(b"id: 1\ndata: x\n\n" + HEARTBEAT) == [ServerSentEvent("x", id="1")]


def test_stream_error() -> None:
    [event] = Decoder().feed(STREAM_ERROR)
    assert event.event == "stream:error"
    assert "failed on the server" in event.json()["message"]


@pytest.mark.parametrize(
    ("data", "event", "block"),
    [
        ("x", None, b"id: e-1\ndata: x\n\n"),
        ("x", "tick", b"id: e-1\nevent: tick\ndata: x\n\n"),
        ("a\r\nb\rc\n", "", b"id: e-1\nevent: \ndata: a\ndata: b\ndata: c\ndata: \n\n"),
        ("\ud800", None, "id: e-1\ndata: \ufffd\n\n".encode()),
    ],
)
def test_fields(data: str, event: str | None, block: bytes) -> None:
    assert encode_fields(data, event, "e-1") == block
    if "\ud800" not in data:
        assert block == ServerSentEvent(data, event=event, id="e-1").encode()


@pytest.mark.parametrize("event", ["a\nb", "a\rb", "\n"])
def test_event_type_with_line_breaks(event: str) -> None:
    with pytest.raises(InvalidEventError, match="expected event without line breaks"):
        encode_fields("x", event, "e-1")
