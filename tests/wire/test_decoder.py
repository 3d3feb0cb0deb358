"""The decoder against the event stream algorithm of the HTML standard, rule by rule, for all ways to cut the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from tickertape import EventTooLargeError
from tickertape.wire import Decoder
from tickertape.wire import ServerSentEvent as Event
from tickertape.wire.event import MAX_RETRY

# The clauses, in the words of the standard's sections "Parsing an event stream" and "Interpreting an event stream".
UTF_8 = "Streams must be decoded using the UTF-8 decode algorithm."
ONE_BOM = "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
LINE_ENDS = "Lines must be separated by either a CR LF pair, a single LF, or a single CR."
BLANK = "If the line is empty (a blank line): dispatch the event."
COMMENT = "If the line starts with a colon character: ignore the line."
COLON = "If the line contains a colon character: the field is what is before the first, the value what is after it."
SPACE = "If value starts with a space character, remove it from value."
NO_COLON = "Otherwise the whole line is the field name, and the field value is the empty string."
EVENT = "If the field name is 'event': set the event type buffer to the field value."
DATA = "If the field name is 'data': append the field value to the data buffer, then a single LF."
ID = "If the field name is 'id': if the value has no NULL, set the last event ID buffer to it; otherwise ignore it."
RETRY = (
    "If the field name is 'retry': if the value is only ASCII digits, set the reconnection time; otherwise ignore it."
)
OTHER = "Otherwise: the field is ignored."
EXACT_NAMES = "Field names must be compared literally, with no case folding performed."
END = "Once the end of the file is reached, any pending data must be discarded."
SET_ID = "Dispatching sets the last event ID string to the last event ID buffer; the buffer does not get reset."
NO_DATA = "If the data buffer is an empty string, set the data and event type buffers to the empty string and return."
LAST_LF = "If the data buffer's last character is a LF, remove it."
TYPE = "If the event type buffer is not the empty string, the event's type is it; both buffers are then emptied."
LIMITS = "User agents may impose implementation-specific limits on otherwise unconstrained inputs."


@dataclass(frozen=True)
class Case:
    """A stream and its result: the events, and ``last_event_id`` and ``retry`` after the whole stream."""

    clause: str
    name: str
    stream: bytes
    events: tuple[Event, ...] = ()
    last_event_id: str | None = None
    retry: int | None = None


A = Event("a")
A1 = Event("a", id="1")
B = Event("b")

CASES = [
    # The encoding.
    Case(UTF_8, "text beyond ASCII", "data: Grüße, 世界 🎉\n\n".encode(), (Event("Grüße, 世界 🎉"),)),
    Case(UTF_8, "a byte that is never UTF-8", b"data: a\xffb\n\n", (Event("a\ufffdb"),)),
    Case(UTF_8, "each of them is replaced", b"data: \xff\xfe\xc0\n\n", (Event("\ufffd" * 3),)),
    Case(UTF_8, "a sequence cut off by the end of its line", b"data: \xe2\x82\ndata: b\n\n", (Event("\ufffd\nb"),)),
    Case(UTF_8, "a sequence cut off by the start of another", b"data: \xe2\x82\xe2\x82\xac\n\n", (Event("\ufffd€"),)),
    Case(UTF_8, "a longer sequence cut off", b"data: \xf0\x9f\x8e\n\n", (Event("\ufffd"),)),
    Case(UTF_8, "a surrogate in UTF-8", b"data: \xed\xa0\x80\n\n", (Event("\ufffd" * 3),)),
    Case(UTF_8, "an overlong form", b"data: \xc0\xaf\n\n", (Event("\ufffd" * 2),)),
    Case(UTF_8, "over the last code point", b"data: \xf4\x90\x80\x80\n\n", (Event("\ufffd" * 4),)),
    Case(UTF_8, "in an id", b"id: \xff\ndata: a\n\n", (Event("a", id="\ufffd"),), "\ufffd"),
    Case(UTF_8, "in an event type", b"event: \xff\ndata: a\n\n", (Event("a", event="\ufffd"),)),
    Case(UTF_8, "in a field name", b"data\xff: a\ndata: b\n\n", (B,)),
    Case(UTF_8, "one bad event between good ones", b"data: a\n\ndata: \xff\n\ndata: b\n\n", (A, Event("\ufffd"), B)),
    Case(UTF_8, "NUL is text as any other", b"data: a\0b\n\n", (Event("a\0b"),)),
    # The byte order mark.
    Case(ONE_BOM, "a BOM", b"\xef\xbb\xbfdata: a\n\n", (A,)),
    Case(ONE_BOM, "a BOM and nothing", b"\xef\xbb\xbf"),
    Case(ONE_BOM, "a BOM before a comment", b"\xef\xbb\xbf:\n\ndata: a\n\n", (A,)),
    Case(ONE_BOM, "a BOM before a blank line", b"\xef\xbb\xbf\ndata: a\n\n", (A,)),
    Case(ONE_BOM, "two: the second is part of a name", b"\xef\xbb\xbf\xef\xbb\xbfdata: a\ndata: b\n\n", (B,)),
    Case(ONE_BOM, "one before a later line", b"data: a\n\xef\xbb\xbfdata: b\n\n", (A,)),
    Case(ONE_BOM, "one before a later event", b"data: a\n\n\xef\xbb\xbfdata: b\n\n", (A,)),
    Case(ONE_BOM, "one in a value", b"data: \xef\xbb\xbfa\n\n", (Event("\ufeffa"),)),
    Case(ONE_BOM, "one after a blank line", b"\n\xef\xbb\xbfdata: a\n\ndata: b\n\n", (B,)),
    Case(ONE_BOM, "two thirds of a BOM", b"\xef\xbbdata: a\ndata: b\n\n", (B,)),
    Case(ONE_BOM, "one third of a BOM", b"\xefdata: a\ndata: b\n\n", (B,)),
    Case(ONE_BOM, "a BOM that ends otherwise", b"\xef\xbb\xbedata: a\ndata: b\n\n", (B,)),
    # The ends of lines.
    Case(LINE_ENDS, "LF", b"data: a\ndata: b\n\n", (Event("a\nb"),)),
    Case(LINE_ENDS, "CR", b"data: a\rdata: b\r\r", (Event("a\nb"),)),
    Case(LINE_ENDS, "CR LF", b"data: a\r\ndata: b\r\n\r\n", (Event("a\nb"),)),
    Case(LINE_ENDS, "CR then LF CR is a line and a blank one", b"data: a\r\n\rdata: b\n\n", (A, B)),
    Case(LINE_ENDS, "LF CR is a line and a blank one", b"data: a\n\rdata: b\n\n", (A, B)),
    Case(LINE_ENDS, "LF CR LF is a line and a blank one", b"data: a\n\r\ndata: b\n\n", (A, B)),
    Case(LINE_ENDS, "CR CR LF is a line and a blank one", b"data: a\r\r\ndata: b\n\n", (A, B)),
    Case(LINE_ENDS, "all three in one event", b"data: a\rdata: b\ndata: c\r\n\n", (Event("a\nb\nc"),)),
    Case(LINE_ENDS, "all three, each after an event", b"data: a\r\rdata: b\n\ndata: a\r\n\r\n", (A, B, A)),
    Case(LINE_ENDS, "one CR ends no event", b"data: a\r", ()),
    Case(LINE_ENDS, "one CR LF ends no event", b"data: a\r\n", ()),
    Case(LINE_ENDS, "LINE SEPARATOR is text", "data: a\u2028b\n\n".encode(), (Event("a\u2028b"),)),
    Case(LINE_ENDS, "PARAGRAPH SEPARATOR is text", "data: a\u2029b\n\n".encode(), (Event("a\u2029b"),)),
    Case(LINE_ENDS, "NEXT LINE is text", "data: a\x85b\n\n".encode(), (Event("a\x85b"),)),
    Case(LINE_ENDS, "VT and FF are text", b"data: a\x0bb\x0cc\n\n", (Event("a\x0bb\x0cc"),)),
    Case(LINE_ENDS, "the separators of ASCII are text", b"data: a\x1c\x1d\x1eb\n\n", (Event("a\x1c\x1d\x1eb"),)),
    Case(LINE_ENDS, "blank lines alone", b"\n\r\r\n\n"),
    Case(LINE_ENDS, "nothing", b""),
    # Blank lines.
    Case(BLANK, "one event", b"data: a\n\n", (A,)),
    Case(BLANK, "two events", b"data: a\n\ndata: b\n\n", (A, B)),
    Case(BLANK, "more blank lines than needed", b"\n\ndata: a\n\n\n\ndata: b\n\n\n", (A, B)),
    Case(BLANK, "a line of one space is not blank", b"data: a\n \ndata: b\n\n", (Event("a\nb"),)),
    # Comments.
    Case(COMMENT, "alone", b": hello\n\n"),
    Case(COMMENT, "before an event", b": hello\n\ndata: a\n\n", (A,)),
    Case(COMMENT, "at the start of an event", b":hello\ndata: a\n\n", (A,)),
    Case(COMMENT, "within an event", b"data: a\n:\ndata: b\n\n", (Event("a\nb"),)),
    Case(COMMENT, "at the end of an event", b"data: a\n: hello\n\n", (A,)),
    Case(COMMENT, "that looks like a field", b":data: a\n:data\n\ndata: b\n\n", (B,)),
    Case(COMMENT, "a heartbeat after an id is no event", b"id: 1\ndata: a\n\n:\n\n", (A1,), "1"),
    Case(COMMENT, "a heartbeat within an id's block", b"id: 1\n\n: heartbeat\n\n", (), "1"),
    Case(COMMENT, "a space before the colon is no comment", b" : a\ndata: b\n\n", (B,)),
    # Names and values.
    Case(COLON, "further colons are part of the value", b"data: a: b\n\n", (Event("a: b"),)),
    Case(COLON, "even at once", b"data::\n\n", (Event(":"),)),
    Case(COLON, "even after a space", b"data: :\n\n", (Event(":"),)),
    Case(COLON, "a value that looks like a field", b"data: data: a\ndata:data: b\n\n", (Event("data: a\ndata: b"),)),
    Case(COLON, "a colon and a space later in the value", b"data:a: b\n\n", (Event("a: b"),)),
    Case(COLON, "no value", b"data:\n\n", (Event(""),)),
    Case(SPACE, "no space", b"data:a\n\n", (A,)),
    Case(SPACE, "two spaces", b"data:  a\n\n", (Event(" a"),)),
    Case(SPACE, "one space and nothing", b"data: \n\n", (Event(""),)),
    Case(SPACE, "two spaces and nothing", b"data:  \n\n", (Event(" "),)),
    Case(SPACE, "a space at the end stays", b"data: a \n\n", (Event("a "),)),
    Case(SPACE, "a tab is no space", b"data:\ta\n\n", (Event("\ta"),)),
    Case(SPACE, "a no-break space is no space", "data:\xa0a\n\n".encode(), (Event("\xa0a"),)),
    Case(SPACE, "in the lines of one event", b"data: a\ndata:b\ndata:  c\n\n", (Event("a\nb\n c"),)),
    Case(SPACE, "in an id", b"id:  1 \ndata:a\n\n", (Event("a", id=" 1 "),), " 1 "),
    Case(SPACE, "in an event type", b"event:  e \ndata:a\n\n", (Event("a", event=" e "),)),
    Case(SPACE, "in a retry: two are not digits", b"retry:  5\n\n"),
    Case(NO_COLON, "data", b"data\n\n", (Event(""),)),
    Case(NO_COLON, "data twice", b"data\ndata\n\n", (Event("\n"),)),
    Case(NO_COLON, "event", b"event: e\nevent\ndata: a\n\n", (A,)),
    Case(NO_COLON, "id", b"id: 1\n\nid\ndata: a\n\n", (Event("a", id=""),), ""),
    Case(NO_COLON, "retry", b"retry: 5\nretry\n\n", (), None, 5),
    Case(NO_COLON, "a name that starts like a known one", b"database\nidle\ndata: a\n\n", (A,)),
    # The fields.
    Case(EVENT, "before the data", b"event: e\ndata: a\n\n", (Event("a", event="e"),)),
    Case(EVENT, "after the data", b"data: a\nevent: e\n\n", (Event("a", event="e"),)),
    Case(EVENT, "the last one counts", b"event: e\nevent: f\ndata: a\n\n", (Event("a", event="f"),)),
    Case(EVENT, "an empty one is none", b"event:\ndata: a\n\n", (A,)),
    Case(EVENT, "an empty one clears another", b"event: e\nevent: \ndata: a\n\n", (A,)),
    Case(EVENT, "message is a type as any other", b"event: message\ndata: a\n\n", (Event("a", event="message"),)),
    Case(DATA, "an empty line among them", b"data: a\ndata:\ndata: b\n\n", (Event("a\n\nb"),)),
    Case(DATA, "an empty line at the end", b"data: a\ndata:\n\n", (Event("a\n"),)),
    Case(DATA, "an empty line at the start", b"data:\ndata: a\n\n", (Event("\na"),)),
    Case(DATA, "with an id between", b"data: a\nid: 1\ndata: b\n\n", (Event("a\nb", id="1"),), "1"),
    Case(DATA, "with an event type between", b"data: a\nevent: e\ndata: b\n\n", (Event("a\nb", event="e"),)),
    Case(DATA, "with another field between", b"data: a\nother: x\ndata: b\n\n", (Event("a\nb"),)),
    Case(ID, "before the data", b"id: 1\ndata: a\n\n", (A1,), "1"),
    Case(ID, "after the data", b"data: a\nid: 1\n\n", (A1,), "1"),
    Case(ID, "then an event type", b"id: 1\nevent: e\ndata: a\n\n", (Event("a", event="e", id="1"),), "1"),
    Case(ID, "after an event type", b"event: e\nid: 1\ndata: a\n\n", (Event("a", event="e", id="1"),), "1"),
    Case(ID, "after an event type and data", b"event: e\ndata: a\nid: 1\n\n", (Event("a", event="e", id="1"),), "1"),
    Case(ID, "around an event type", b"id: 1\nevent: e\nid: 2\ndata: a\n\n", (Event("a", event="e", id="2"),), "2"),
    Case(ID, "before and after data", b"id: 1\ndata: a\nid: 2\n\n", (Event("a", id="2"),), "2"),
    Case(ID, "twice before data", b"id: 1\nid: 2\ndata: a\n\n", (Event("a", id="2"),), "2"),
    Case(ID, "three times", b"id: 1\nid: 2\ndata: a\nid: 3\n\n", (Event("a", id="3"),), "3"),
    Case(ID, "empty: there is an id, and it is empty", b"id:\ndata: a\n\n", (Event("a", id=""),), ""),
    Case(ID, "empty after another in its block", b"id: 1\nid:\ndata: a\n\n", (Event("a", id=""),), ""),
    Case(ID, "empty after data", b"id: 1\ndata: a\nid:\n\n", (Event("a", id=""),), ""),
    Case(ID, "with NUL is ignored", b"id: 1\x002\ndata: a\n\n", (A,)),
    Case(ID, "of NUL alone is ignored", b"id: \0\ndata: a\n\n", (A,)),
    Case(ID, "with NUL leaves the one before", b"id: 1\nid: 2\0\ndata: a\n\n", (A1,), "1"),
    Case(ID, "with NUL leaves that of an earlier event", b"id: 1\n\nid: \0\ndata: a\n\n", (A1,), "1"),
    Case(ID, "with NUL before a good one", b"id: \0\nid: 1\ndata: a\n\n", (A1,), "1"),
    Case(RETRY, "digits", b"retry: 3000\n\n", (), None, 3000),
    Case(RETRY, "no space", b"retry:3000\n\n", (), None, 3000),
    Case(RETRY, "zero", b"retry: 0\n\n", (), None, 0),
    Case(RETRY, "zeros in front", b"retry: 0010\n\n", (), None, 10),
    Case(RETRY, "in an event", b"retry: 10\ndata: a\n\n", (Event("a", retry=10),), None, 10),
    Case(RETRY, "of that event only", b"retry: 10\ndata: a\n\ndata: b\n\n", (Event("a", retry=10), B), None, 10),
    Case(RETRY, "the last one counts", b"retry: 10\nretry: 20\ndata: a\n\n", (Event("a", retry=20),), None, 20),
    Case(RETRY, "a bad one changes nothing", b"retry: 10\nretry: x\ndata: a\n\n", (Event("a", retry=10),), None, 10),
    Case(RETRY, "counts without the end of its block", b"retry: 10\n", (), None, 10),
    Case(RETRY, "does not count without the end of its line", b"retry: 10"),
    Case(RETRY, "empty", b"retry:\n\n"),
    Case(RETRY, "empty after a space", b"retry: \n\n"),
    Case(RETRY, "underscores", b"retry: 1_000\n\n"),
    Case(RETRY, "a sign", b"retry: +5\nretry: -5\n\n"),
    Case(RETRY, "a space in front", b"retry:  5\n\n"),
    Case(RETRY, "a space after", b"retry: 5 \n\n"),
    Case(RETRY, "a point", b"retry: 5.0\n\n"),
    Case(RETRY, "a power", b"retry: 1e3\n\n"),
    Case(RETRY, "hexadecimal", b"retry: 0x10\n\n"),
    Case(RETRY, "Arabic-Indic digits", "retry: ١٢٣\n\n".encode()),
    Case(RETRY, "full-width digits", "retry: １２３\n\n".encode()),
    Case(RETRY, "a superscript", "retry: 5²\n\n".encode()),
    Case(RETRY, "NUL", b"retry: 5\0\n\n"),
    Case(LIMITS, "the greatest reconnection time", b"retry: %d\n\n" % MAX_RETRY, (), None, MAX_RETRY),
    Case(LIMITS, "one over the greatest", b"retry: %d\n\n" % (MAX_RETRY + 1), (), None, MAX_RETRY),
    Case(LIMITS, "a huge reconnection time", b"retry: " + b"9" * 100 + b"\n\n", (), None, MAX_RETRY),
    Case(LIMITS, "thousands of zeros", b"retry: " + b"0" * 5000 + b"7\n\n", (), None, 7),
    Case(OTHER, "a name we do not know", b"other: x\ndata: a\n\n", (A,)),
    Case(OTHER, "after the data", b"data: a\nother: x\n\n", (A,)),
    Case(OTHER, "alone is no event", b"other: x\n\n"),
    Case(OTHER, "without a colon", b"other\ndata: a\n\n", (A,)),
    Case(OTHER, "longer and shorter names", b"dat: x\ndata2: x\ndataa: x\ndata: a\n\n", (A,)),
    Case(EXACT_NAMES, "upper case", b"DATA: x\nData: x\nID: 1\nEvent: e\nRETRY: 5\n\n"),
    Case(EXACT_NAMES, "a space in front", b" data: x\ndata: a\n\n", (A,)),
    Case(EXACT_NAMES, "a space after", b"data : x\ndata: a\n\n", (A,)),
    Case(EXACT_NAMES, "a tab in front", b"\tdata: x\ndata: a\n\n", (A,)),
    # Dispatching.
    Case(SET_ID, "it stays", b"id: 1\ndata: a\n\ndata: b\n\n", (A1, Event("b", id="1")), "1"),
    Case(SET_ID, "or another", b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", (A1, Event("b", id="2")), "2"),
    Case(SET_ID, "or empty", b"id: 1\ndata: a\n\nid\ndata: b\n\n", (A1, Event("b", id="")), ""),
    Case(SET_ID, "by a block without data", b"id: 1\n\ndata: a\n\n", (A1,), "1"),
    Case(SET_ID, "by one of several such blocks", b"id: 1\n\nid: 2\n\ndata: a\n\n", (Event("a", id="2"),), "2"),
    Case(SET_ID, "not before there is one", b"data: a\n\nid: 1\ndata: b\n\n", (A, Event("b", id="1")), "1"),
    Case(NO_DATA, "an id alone", b"id: 1\n\n", (), "1"),
    Case(NO_DATA, "an event type alone", b"event: e\n\n"),
    Case(NO_DATA, "a retry alone", b"retry: 10\n\n", (), None, 10),
    Case(NO_DATA, "all but data", b"id: 1\nevent: e\nretry: 10\n\n", (), "1", 10),
    Case(NO_DATA, "the event type is forgotten", b"event: e\n\ndata: a\n\n", (A,)),
    Case(NO_DATA, "empty data is data", b"data\n\ndata:\n\ndata: \n\n", (Event(""),) * 3),
    Case(LAST_LF, "only one", b"data\ndata\ndata\n\n", (Event("\n\n"),)),
    Case(TYPE, "of one event only", b"event: e\ndata: a\n\ndata: b\n\n", (Event("a", event="e"), B)),
    Case(TYPE, "data of one event only", b"data: a\n\nevent: e\n\ndata: b\n\n", (A, B)),
    # The end.
    Case(END, "within a line", b"data: a\n\ndata: b", (A,)),
    Case(END, "after a line", b"data: a\n\ndata: b\n", (A,)),
    Case(END, "the id of what is unfinished", b"id: 1\ndata: a\n\nid: 2\ndata: b\n", (A1,), "1"),
    Case(END, "an id that never got its blank line", b"id: 1\n"),
    Case(END, "within a character", b"data: a\n\ndata: \xe2\x82", (A,)),
    Case(END, "within a comment", b"data: a\n\n: b", (A,)),
    Case(END, "within a BOM", b"\xef\xbb"),
]  # fmt: skip

IDS = [f"{case.clause.split('.')[0][:40]}: {case.name}" for case in CASES]
every_case = pytest.mark.parametrize("case", CASES, ids=IDS)


def run(chunks: Iterable[bytes], decoder: Decoder | None = None) -> tuple[tuple[Event, ...], str | None, int | None]:
    decoder = decoder or Decoder()
    events = tuple(event for chunk in chunks for event in decoder.feed(chunk))
    return events, decoder.last_event_id, decoder.retry


def expected_of(case: Case) -> tuple[tuple[Event, ...], str | None, int | None]:
    return case.events, case.last_event_id, case.retry


def cut(stream: bytes, length: int) -> list[bytes]:
    return [stream[at : at + length] for at in range(0, len(stream), length)]


def splits(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return all ways to cut a stream in two; for a very long stream, those near its ends."""
    return ((stream[:at], stream[at:]) for at in range(len(stream) + 1) if at < 100 or at > len(stream) - 100)


def chunkings(stream: bytes) -> Iterator[list[bytes]]:
    """Yield a stream whole, cut in two anywhere, in short pieces of each length, and with empty chunks between."""
    yield [stream]
    yield [chunk for byte in cut(stream, 1) for chunk in (byte, b"", b"")]
    yield from map(list, splits(stream))
    yield from (cut(stream, length) for length in range(1, 12))


@every_case
def test_whole(case: Case) -> None:
    assert run([case.stream]) == expected_of(case)


@every_case
def test_byte_by_byte(case: Case) -> None:
    assert run(cut(case.stream, 1)) == expected_of(case)


@every_case
def test_split_in_two(case: Case) -> None:
    for chunks in splits(case.stream):
        assert run(chunks) == expected_of(case), chunks


@every_case
def test_before_unfinished_event(case: Case) -> None:
    after = b"id: never\nevent: never\ndata: never\n" if case.stream.endswith((b"\n", b"\r")) else b"never"
    for chunks in ([case.stream + after], cut(case.stream + after, 1), [case.stream, after]):
        assert run(chunks) == expected_of(case), chunks


@every_case
@pytest.mark.parametrize("end", [b"\r", b"\r\n"], ids=["CR", "CRLF"])
def test_other_line_ends(case: Case, end: bytes) -> None:
    stream = case.stream if b"\r" in case.stream else case.stream.replace(b"\n", end)
    for chunks in chunkings(stream):
        assert run(chunks) == expected_of(case), chunks


def test_all_cases_as_one_stream() -> None:
    """The events of one stream do not depend on the stream before it, except for its last event id."""
    cases = [case for case in CASES if case.stream.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")) and case.clause != ONE_BOM]
    assert len(cases) > 100
    last_event_id: str | None = None
    expected = []
    for case in cases:
        for event in case.events:
            current = last_event_id if event.id is None else event.id
            expected.append(Event(event.data, event=event.event, id=current, retry=event.retry))
        last_event_id = last_event_id if case.last_event_id is None else case.last_event_id
    stream = b"".join(case.stream for case in cases)
    for size in (1, 2, 3, 7, 100, 4096, len(stream)):
        assert run(cut(stream, size))[0] == tuple(expected)


AT_ONCE = [
    (b"data: a\n\n", b""),
    (b"data: a\r\r", b""),
    (b"data: a\r\r", b"\n"),
    (b"data: a\n\r", b"\n"),
    (b"data: a\r\n\r", b"\n"),
    (b"data: a\r\n\n", b""),
    (b": comment\r\rid: 1\r\rdata: a\r\r", b"\n"),
]


@pytest.mark.parametrize(("stream", "after"), AT_ONCE)
def test_event_with_its_last_byte(stream: bytes, after: bytes) -> None:
    """An event that ends in CR CR is returned at once, not with the next byte, which may come hours later."""
    for length in (1, len(stream)):
        decoder = Decoder()
        before = [decoder.feed(chunk) for chunk in cut(stream[:-1], length)]
        assert not any(before)
        assert [event.data for event in decoder.feed(stream[-1:])] == ["a"]
        assert decoder.feed(after) == []
    assert [event.data for event in Decoder().feed(stream)] == ["a"]


def test_lf_after_cr_of_blank_line() -> None:
    """An LF after the CR that ended an event is not a line."""
    decoder = Decoder()
    assert decoder.feed(b"data: a\r\n\r") == [A]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\n") == []
    assert decoder.feed(b"data: b\r") == []
    assert decoder.feed(b"\ndata: c\r") == []
    assert decoder.feed(b"\r") == [Event("b\nc")]
    assert decoder.feed(b"\n\n") == []


def test_retry_before_id() -> None:
    """``retry`` takes effect with its line, ``id`` with its event."""
    decoder = Decoder()
    decoder.feed(b"id: 1\nretry: 10")
    assert (decoder.last_event_id, decoder.retry) == (None, None)
    decoder.feed(b"\n")
    assert (decoder.last_event_id, decoder.retry) == (None, 10)
    decoder.feed(b"\n")
    assert (decoder.last_event_id, decoder.retry) == ("1", 10)


COMMENTS = [
    (b":\n", [Event(None, comment="")]),
    (b": \n", [Event(None, comment="")]),
    (b":a\n", [Event(None, comment="a")]),
    (b": a\n", [Event(None, comment="a")]),
    (b":  a \n", [Event(None, comment=" a ")]),
    (b"::\n", [Event(None, comment=":")]),
    (b":a: b\n", [Event(None, comment="a: b")]),
    (b": \xff\n", [Event(None, comment="\ufffd")]),
    (b": a\n: b\n", [Event(None, comment="a"), Event(None, comment="b")]),
    (b": a\rdata: b\r\r", [Event(None, comment="a"), B]),
    (b"data: a\n\n: b\n\ndata: b\n\n", [A, Event(None, comment="b"), B]),
    (b"id: 1\ndata: a\n: within\ndata: b\n\n", [Event(None, comment="within"), Event("a\nb", id="1")]),
    (b"id: 1\n\n: heartbeat\n\n", [Event(None, comment="heartbeat")]),
    (b": unfinished", []),
]


@pytest.mark.parametrize(("stream", "events"), COMMENTS)
def test_comments(stream: bytes, events: list[Event]) -> None:
    for chunks in chunkings(stream):
        assert run(chunks, Decoder(comments=True))[0] == tuple(events), chunks
        assert run(chunks)[0] == tuple(event for event in events if event.comment is None), chunks


# Limits: a limit, a stream, and the events that are returned before the error.
TOO_LARGE = [
    ("a line of data", 10, b"data: 12345\n\n", []),
    ("a line that has not ended", 10, b"data: 12345", []),
    ("lines of data together", 10, b"data:1\ndata:2\n\n", []),
    ("the last byte of several lines", 11, b"data:1\ndata:2\n\n", []),
    ("after finished events", 10, b"data: a\n\ndata: b\n\ndata: 12345\n\n", [A, B]),
    ("before further events", 10, b"data: a\n\ndata: 12345\n\ndata: b\n\n", [A]),
    ("after finished events, not ended", 10, b"data: a\n\ndata: 12345", [A]),
    ("an id", 10, b"data: a\n\nid: 12345678\n\n", [A]),
    ("a field that is ignored", 10, b"data: a\n\nother: 12345\n\n", [A]),
    ("a comment", 10, b"data: a\n\n: 123456789\n", [A]),
    ("a comment that has not ended", 10, b"data: a\n\n: 123456789", [A]),
    ("bytes count, not characters", 10, "data: a\n\ndata: €€\n\n".encode(), [A]),
    ("bytes count before replacement", 10, b"data: \xff\n\ndata: \xff\xff\xff\xff\xff\n\n", [Event("\ufffd")]),
    ("with CR LF", 10, b"data: a\r\n\r\ndata: 12345\r\n\r\n", [A]),
    ("without the BOM", 7, b"\xef\xbb\xbfdata: a\n\ndata: ab\n\n", [A]),
]  # fmt: skip

NOT_TOO_LARGE = [
    ("exactly at the limit", 10, b"data: 1234\n\ndata: 1234\n\n"),
    ("exactly at the limit, not ended", 10, b"data: 1234"),
    ("lines exactly at the limit", 12, b"data:1\ndata:2\n\n"),
    ("ends of lines do not count", 12, b"data:1\r\ndata:2\r\n\r\n"),
    ("a BOM does not count", 7, b"\xef\xbb\xbfdata: a\n\n"),
    ("blank lines do not count", 7, b"\n" * 20 + b"data: a\n\n" + b"\n" * 20),
    ("comments count one by one", 10, b": 12345678\n" * 20),
    ("comments between do not add up", 10, b"data: a\n: 1\n: 1\n: 1\n: 1\n\n"),
    ("no limit", None, b"data: " + b"1" * 2000 + b"\n\n"),
]


@pytest.mark.parametrize(("name", "limit", "stream", "events"), TOO_LARGE, ids=[row[0] for row in TOO_LARGE])
def test_over_the_limit(name: str, limit: int, stream: bytes, events: list[Event]) -> None:
    for chunks in chunkings(stream):
        decoder = Decoder(max_event_size=limit)
        given: list[Event] = []
        with pytest.raises(EventTooLargeError, match=f"expected an event of at most {limit} bytes, got ") as caught:
            given.extend(event for chunk in (*chunks, b"") for event in decoder.feed(chunk))
        assert given == events, chunks
        assert caught.value.limit == limit
        assert limit < caught.value.size <= len(stream)
        for chunk in (b"", b"\n\n", b"data: b\n\n"):
            with pytest.raises(EventTooLargeError) as again:
                decoder.feed(chunk)
            assert again.value is caught.value
        assert decoder.last_event_id is None


@pytest.mark.parametrize(("name", "limit", "stream"), NOT_TOO_LARGE, ids=[row[0] for row in NOT_TOO_LARGE])
def test_within_the_limit(name: str, limit: int | None, stream: bytes) -> None:
    expected = run([stream], Decoder(max_event_size=None))
    for chunks in chunkings(stream):
        assert run(chunks, Decoder(max_event_size=limit)) == expected, chunks


def test_state_after_limit_error() -> None:
    decoder = Decoder(max_event_size=20)
    assert decoder.feed(b"id: 1\ndata: a\n\nid: 2\nretry: 5\ndata: " + b"x" * 20) == [Event("a", id="1")]
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"\n\n")
    assert (decoder.last_event_id, decoder.retry) == ("1", 5)
    assert repr(decoder) == "<Decoder last_event_id='1' retry=5 held=13 bytes>"


@pytest.mark.parametrize("limit", [0, -1])
def test_invalid_limit(limit: int) -> None:
    with pytest.raises(ValueError, match=f"expected max_event_size to be a positive int or None, got {limit}"):
        Decoder(max_event_size=limit)


def test_repr() -> None:
    decoder = Decoder()
    assert repr(decoder) == "<Decoder last_event_id=None retry=None held=0 bytes>"
    decoder.feed(b"id: 7\nretry: 10\n\ndata: a\nda")
    assert repr(decoder) == "<Decoder last_event_id='7' retry=10 held=9 bytes>"
    decoder.feed(b"ta: b\n\n")
    assert repr(decoder) == "<Decoder last_event_id='7' retry=10 held=0 bytes>"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
@pytest.mark.parametrize("length", [1, 10, 1000, 4096, 65536])
def test_long_stream(length: int, end: bytes) -> None:
    block = 'id: {0}\nevent: price\ndata: {{"n": {0}}}\n\n: heartbeat\n\ndata: one\ndata: two {0}\n\n'
    count = 300 if length == 1 else 2000
    stream = "".join(block.format(number) for number in range(count)).encode().replace(b"\n", end)
    expected = []
    for number in range(count):
        expected.append(Event(f'{{"n": {number}}}', event="price", id=str(number)))
        expected.append(Event(f"one\ntwo {number}", id=str(number)))
    assert run(cut(stream, length)) == (tuple(expected), str(count - 1), None)


@pytest.mark.parametrize("length", [1000, 65536, 2**30])
def test_large_events(length: int) -> None:
    """Events of nearly the greatest size that the default limit allows."""
    texts = ["x" * 1_000_000, "line\n" * 80_000, "\n" * 150_000, "€" * 300_000, ""]
    stream = b"".join(Event(text, id="1").encode() for text in texts)
    assert run(cut(stream, length))[0] == tuple(Event(text, id="1") for text in texts)


def test_two_decoders() -> None:
    one, other = Decoder(), Decoder()
    one.feed(b"id: 1\n\nevent: e\ndata: a\n")
    assert other.feed(b"data: b\n\n") == [B]
    assert one.feed(b"\n") == [Event("a", event="e", id="1")]
    assert (one.last_event_id, other.last_event_id) == ("1", None)
