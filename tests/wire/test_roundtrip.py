"""Encoded events are decoded again; on arbitrary bytes the decoder agrees with a reference implementation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.fuzz_decoder import TOKENS
from bench.reference import decode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tickertape import EventTooLargeError
from tickertape.wire import Decoder, ServerSentEvent
from tickertape.wire.event import MAX_RETRY

ANY_TEXT = st.text(st.characters(codec=None)) | st.text("a\r\n :\0\u2028\x85\ufeff\ud800\udc00")
A_LINE = st.text(st.characters(codec=None, exclude_characters="\r\n\0")) | st.text("a: \u2028\x85\ufeff")

EVENTS = st.builds(
    ServerSentEvent,
    ANY_TEXT | st.none(),
    event=A_LINE | st.none(),
    id=A_LINE | st.none(),
    retry=st.integers(0, MAX_RETRY) | st.none(),
    comment=ANY_TEXT | st.none(),
)

LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])

STREAMS = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=3), max_size=40).map(b"".join)
"""Random sequences of tokens of streams, which reach all rules of the specification."""

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=5)
"""Lengths of chunks, used in turn."""

LEAST_LIMIT = 3
"""A part of a BOM at the start does not belong to an event."""

no_deadline = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is not an error."""


def cut(stream: bytes, lengths: Sequence[int]) -> list[bytes]:
    chunks = []
    start = turn = 0
    while start < len(stream):
        end = start + lengths[turn % len(lengths)]
        chunks.append(stream[start:end])
        start, turn = end, turn + 1
    return chunks


def run(decoder: Decoder, chunks: Sequence[bytes]) -> list[ServerSentEvent]:
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def on_the_wire(text: str) -> str:
    """Return a text as it is received: line breaks are LF, split pairs are joined, lone surrogates replaced."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub("[\ud800-\udbff][\udc00-\udfff]", lambda pair: _joined(pair[0]), text)
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _joined(pair: str) -> str:
    high, low = map(ord, pair)
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def received(sent: Sequence[ServerSentEvent], *, comments: bool) -> list[ServerSentEvent]:
    """Return the events that a client receives: no blocks without data, comments line by line, the current id."""
    events = []
    last_event_id: str | None = None
    for event in sent:
        if comments and event.comment is not None:
            lines = on_the_wire(event.comment).split("\n")
            events += [ServerSentEvent(None, comment=line) for line in lines]
        if event.id is not None:
            last_event_id = on_the_wire(event.id)
        if event.data is not None:
            type_ = on_the_wire(event.event) if event.event else None
            events.append(ServerSentEvent(on_the_wire(event.data), event=type_, id=last_event_id, retry=event.retry))
    return events


@no_deadline
@given(EVENTS)
def test_one_event(event: ServerSentEvent) -> None:
    assert Decoder().feed(event.encode()) == received([event], comments=False)


@no_deadline
@given(st.lists(EVENTS, max_size=5), LENGTHS, st.booleans())
def test_chunks(sent: list[ServerSentEvent], lengths: list[int], comments: bool) -> None:
    stream = b"".join(event.encode() for event in sent)
    decoder = Decoder(comments=comments)
    assert run(decoder, cut(stream, lengths)) == received(sent, comments=comments)
    assert decoder.last_event_id == next((on_the_wire(event.id) for event in sent[::-1] if event.id is not None), None)
    assert decoder.retry == next((event.retry for event in sent[::-1] if event.retry is not None), None)


@no_deadline
@given(st.lists(EVENTS, max_size=5), st.lists(LINE_ENDS, min_size=1), LENGTHS)
def test_line_ends(sent: list[ServerSentEvent], ends: list[bytes], lengths: list[int]) -> None:
    lines = b"".join(event.encode() for event in sent).split(b"\n")
    stream = lines[0]
    for number, line in enumerate(lines[1:]):
        end = ends[number % len(ends)]
        if end == b"\n" and stream.endswith(b"\r"):
            end = b"\r"  # an LF here would belong to the CR before it, and not end a line
        stream += end + line
    assert run(Decoder(), cut(stream, lengths)) == received(sent, comments=False)


@no_deadline
@given(st.lists(EVENTS, max_size=5), st.lists(ANY_TEXT, min_size=1), LENGTHS)
def test_comments_between_events(sent: list[ServerSentEvent], comments: list[str], lengths: list[int]) -> None:
    heartbeats = [ServerSentEvent(comment=comments[number % len(comments)]).encode() for number in range(len(sent) + 1)]
    blocks = [part for event, heartbeat in zip(sent, heartbeats, strict=False) for part in (heartbeat, event.encode())]
    assert run(Decoder(), cut(b"".join(blocks) + heartbeats[-1], lengths)) == received(sent, comments=False)


@no_deadline
@given(STREAMS, LENGTHS, st.booleans())
def test_equals_reference(stream: bytes, lengths: list[int], comments: bool) -> None:
    expected = decode(stream, comments=comments)
    for chunks in ([stream], cut(stream, [1]), cut(stream, lengths)):
        decoder = Decoder(comments=comments)
        assert run(decoder, chunks) == expected.events
        assert (decoder.last_event_id, decoder.retry) == (expected.last_event_id, expected.retry)


@no_deadline
@given(STREAMS, LENGTHS, st.integers(LEAST_LIMIT, 40))
def test_equals_reference_with_limit(stream: bytes, lengths: list[int], limit: int) -> None:
    expected = decode(stream, limit=limit)
    for chunks in ([stream], cut(stream, [1]), cut(stream, lengths)):
        decoder = Decoder(max_event_size=limit)
        events: list[ServerSentEvent] = []
        too_large = False
        try:
            for chunk in (*chunks, b""):
                events += decoder.feed(chunk)
        except EventTooLargeError:
            too_large = True
        assert (events, too_large) == (expected.events, expected.too_large)
        assert (decoder.last_event_id, decoder.retry) == (expected.last_event_id, expected.retry)


@no_deadline
@given(STREAMS, LENGTHS)
def test_decoded_events_are_valid(stream: bytes, lengths: list[int]) -> None:
    """A decoded event can be built, and its encoding is decoded to the same event."""
    for event in run(Decoder(), cut(stream, lengths)):
        again = ServerSentEvent(event.data, event=event.event, id=event.id, retry=event.retry)
        assert Decoder().feed(again.encode()) == [event]
