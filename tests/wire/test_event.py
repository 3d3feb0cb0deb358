"""``ServerSentEvent``: validation, encoding, equality, copies."""

from __future__ import annotations

import copy
import enum
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pydantic
import pytest

from tickertape import InvalidEventError, TickertapeError
from tickertape.wire import Decoder, ReceivedEvent, ServerSentEvent
from tickertape.wire.event import MAX_RETRY


class Kind(str, enum.Enum):  # noqa: UP042  # formats as "Kind.PRICE", unlike a StrEnum
    PRICE = "price"


class NewKind(enum.StrEnum):
    PRICE = "price"


class Delay(int, enum.Enum):  # formats as "Delay.SHORT", unlike an IntEnum
    SHORT = 10


class Price(pydantic.BaseModel):
    symbol: str
    bid: Decimal
    at: datetime = datetime(2026, 7, 1, tzinfo=UTC)


class WithObject(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    thing: object


@dataclass
class Point:
    x: int
    y: int


VALID = [
    ({}, ("", None, None, None, None)),
    ({"data": "a"}, ("a", None, None, None, None)),
    ({"data": ""}, ("", None, None, None, None)),
    ({"data": None}, (None, None, None, None, None)),
    ({"data": "a", "event": "e", "id": "1", "retry": 0, "comment": "c"}, ("a", "e", "1", 0, "c")),
    ({"data": "a", "event": "", "id": "", "comment": ""}, ("a", "", "", None, "")),
    # Without data, an event may have only an id, a retry or a comment.
    ({"event": "e"}, ("", "e", None, None, None)),
    ({"event": "e", "id": "1"}, ("", "e", "1", None, None)),
    ({"id": "1"}, (None, None, "1", None, None)),
    ({"id": ""}, (None, None, "", None, None)),
    ({"retry": 0}, (None, None, None, 0, None)),
    ({"comment": ""}, (None, None, None, None, "")),
    ({"id": "1", "retry": 5, "comment": "c"}, (None, None, "1", 5, "c")),
    # Unusual characters that the format allows.
    ({"id": " 1\t", "event": " e:\x00\x0b\x85\u2028"}, ("", " e:\x00\x0b\x85\u2028", " 1\t", None, None)),
    ({"retry": MAX_RETRY}, (None, None, None, MAX_RETRY, None)),
    ({"comment": "a\r\nb\0"}, (None, None, None, None, "a\r\nb\0")),
    # Subclasses of str and int count as their values.
    ({"data": Kind.PRICE, "event": Kind.PRICE, "id": Kind.PRICE}, ("price", "price", "price", None, None)),
    ({"data": NewKind.PRICE, "event": NewKind.PRICE}, ("price", "price", None, None, None)),
    ({"retry": Delay.SHORT, "comment": Kind.PRICE}, (None, None, None, 10, "price")),
]


@pytest.mark.parametrize(("arguments", "fields"), VALID)
def test_building(arguments: dict[str, Any], fields: tuple[str | int | None, ...]) -> None:
    event = ServerSentEvent(**arguments)
    assert (event.data, event.event, event.id, event.retry, event.comment) == fields
    for value in (event.data, event.event, event.id, event.retry, event.comment):
        assert type(value) in {str, int, type(None)}


RETRY_EXPECTED = f"expected retry to be an int of milliseconds from 0 to {MAX_RETRY}"

INVALID = [
    ({"event": "a\nb"}, r"expected event without '\n', got 'a\nb'"),
    ({"event": "a\rb"}, r"expected event without '\r', got 'a\rb'"),
    ({"event": "\r\n"}, r"expected event without '\r', got '\r\n'"),
    ({"event": "a\ndata: injected"}, r"expected event without '\n', got 'a\ndata: injected'"),
    ({"event": b"e"}, "expected event to be a str, got b'e'"),
    ({"event": 5}, "expected event to be a str, got 5"),
    ({"id": "1\n"}, r"expected id without '\n', got '1\n'"),
    ({"id": "\r1"}, r"expected id without '\r', got '\r1'"),
    ({"id": "1\0"}, r"expected id without '\x00', got '1\x00'"),
    ({"id": 1}, "expected id to be a str, got 1"),
    ({"id": b"1"}, "expected id to be a str, got b'1'"),
    ({"comment": 5}, "expected comment to be a str, got 5"),
    ({"comment": b"c"}, "expected comment to be a str, got b'c'"),
    ({"retry": -1}, f"{RETRY_EXPECTED}, got -1"),
    ({"retry": MAX_RETRY + 1}, f"{RETRY_EXPECTED}, got {MAX_RETRY + 1}"),
    ({"retry": True}, f"{RETRY_EXPECTED}, got True"),
    ({"retry": 1.5}, f"{RETRY_EXPECTED}, got 1.5"),
    ({"retry": "5"}, f"{RETRY_EXPECTED}, got '5'"),
    ({"data": math.nan}, "float cannot be written as JSON: "),
    ({"data": {"bid": math.inf}}, "dict cannot be written as JSON: "),
    ({"data": object()}, "object cannot be written as JSON: "),
    ({"data": Price.__init__}, "function cannot be written as JSON: "),
    ({"data": {Point: 1}}, "dict cannot be written as JSON: "),
    ({"data": Price}, "ModelMetaclass cannot be written as JSON: "),
    ({"data": WithObject(thing=object())}, "WithObject cannot be written as JSON: "),
    ({"data": Point(1, 2), "default": lambda _: object()}, "Point cannot be written as JSON: "),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), INVALID)
def test_invalid_fields(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidEventError) as caught:
        ServerSentEvent(**arguments)
    assert str(caught.value).startswith(sentence)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TickertapeError)


def test_recursive_data() -> None:
    around: list[Any] = []
    around.append(around)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for data in (around, deep):
        with pytest.raises(InvalidEventError, match="list cannot be written as JSON: "):
            ServerSentEvent(data)


def test_error_in_default() -> None:
    def broken(_: object) -> str:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        ServerSentEvent(object(), default=broken)


BLOCKS = [
    # Text.
    (ServerSentEvent(), b"data: \n\n"),
    (ServerSentEvent("a"), b"data: a\n\n"),
    (ServerSentEvent(" a "), b"data:  a \n\n"),
    (ServerSentEvent("Grüße, 世界 🎉"), "data: Grüße, 世界 🎉\n\n".encode()),
    (ServerSentEvent("\ufeffa"), b"data: \xef\xbb\xbfa\n\n"),
    (ServerSentEvent("a\0b"), b"data: a\0b\n\n"),
    # Line breaks in it.
    (ServerSentEvent("a\nb"), b"data: a\ndata: b\n\n"),
    (ServerSentEvent("a\rb"), b"data: a\ndata: b\n\n"),
    (ServerSentEvent("a\r\nb"), b"data: a\ndata: b\n\n"),
    (ServerSentEvent("a\n\rb"), b"data: a\ndata: \ndata: b\n\n"),
    (ServerSentEvent("a\r\r\nb"), b"data: a\ndata: \ndata: b\n\n"),
    (ServerSentEvent("\n"), b"data: \ndata: \n\n"),
    (ServerSentEvent("\r\n\r\n"), b"data: \ndata: \ndata: \n\n"),
    (ServerSentEvent("a\n"), b"data: a\ndata: \n\n"),
    (ServerSentEvent("\na"), b"data: \ndata: a\n\n"),
    (ServerSentEvent("a\n\nid: 5\n\nb"), b"data: a\ndata: \ndata: id: 5\ndata: \ndata: b\n\n"),
    (ServerSentEvent("a\u2028b\u2029c\x85d\x0be\x0cf"), "data: a\u2028b\u2029c\x85d\x0be\x0cf\n\n".encode()),
    # Fields, in their order.
    (
        ServerSentEvent("a", event="e", id="1", retry=5, comment="c"),
        b": c\nid: 1\nevent: e\nretry: 5\ndata: a\n\n",
    ),
    (ServerSentEvent("a", event="", id=""), b"id: \nevent: \ndata: a\n\n"),
    (ServerSentEvent(id="1"), b"id: 1\n\n"),
    (ServerSentEvent(id="1", retry=3000), b"id: 1\nretry: 3000\n\n"),
    (ServerSentEvent(retry=0), b"retry: 0\n\n"),
    (ServerSentEvent(event="e"), b"event: e\ndata: \n\n"),
    (ServerSentEvent("a", event=Kind.PRICE, retry=Delay.SHORT), b"event: price\nretry: 10\ndata: a\n\n"),
    (ServerSentEvent(None), b"\n"),
    (ServerSentEvent(None, event="e"), b"event: e\n\n"),
    # Comments.
    (ServerSentEvent(comment="c"), b": c\n\n"),
    (ServerSentEvent(comment=""), b": \n\n"),
    (ServerSentEvent(comment="a\nb\r\nc\rd"), b": a\n: b\n: c\n: d\n\n"),
    (ServerSentEvent(comment="a\n\ndata: b"), b": a\n: \n: data: b\n\n"),
    (ServerSentEvent(None, comment="c"), b": c\n\n"),
    # Bytes are text.
    (ServerSentEvent(b"a\nb"), b"data: a\ndata: b\n\n"),
    (ServerSentEvent(bytearray("ü", "utf-8")), "data: ü\n\n".encode()),
    (ServerSentEvent(memoryview(b"abc")[1:]), b"data: bc\n\n"),
    (ServerSentEvent(b"a\xff"), "data: a\ufffd\n\n".encode()),
    # Anything else is JSON.
    (ServerSentEvent({"b": [1, 2.5, None, True], "a": "ü"}), 'data: {"b":[1,2.5,null,true],"a":"ü"}\n\n'.encode()),
    (ServerSentEvent([]), b"data: []\n\n"),
    (ServerSentEvent((1, 2)), b"data: [1,2]\n\n"),
    (ServerSentEvent(5), b"data: 5\n\n"),
    (ServerSentEvent(False), b"data: false\n\n"),
    (ServerSentEvent({"text": "a\r\nb"}), b'data: {"text":"a\\r\\nb"}\n\n'),
    (ServerSentEvent({"a\u2028": "b\u2029\x85ü"}), 'data: {"a\\u2028":"b\\u2029\\u0085ü"}\n\n'.encode()),
    (ServerSentEvent(["\u2028" * 3]), b'data: ["\\u2028\\u2028\\u2028"]\n\n'),
    (ServerSentEvent({"kind": NewKind.PRICE}), b'data: {"kind":"price"}\n\n'),
    (ServerSentEvent(Point(1, 2), default=asdict), b'data: {"x":1,"y":2}\n\n'),
    (ServerSentEvent([Point(1, 2)], default=asdict), b'data: [{"x":1,"y":2}]\n\n'),
    (ServerSentEvent({"at": Decimal("1.10")}, default=str), b'data: {"at":"1.10"}\n\n'),
    (
        ServerSentEvent(Price(symbol="ACME", bid=Decimal("1.10"))),
        b'data: {"symbol":"ACME","bid":"1.10","at":"2026-07-01T00:00:00Z"}\n\n',
    ),
    (ServerSentEvent(Price(symbol="a\u2028b", bid=Decimal(1))).encode()[:30], b'data: {"symbol":"a\\u2028b","bi'),
    # Surrogates: UTF-8 has none.
    (ServerSentEvent("a\ud800b"), "data: a\ufffdb\n\n".encode()),
    (ServerSentEvent("a\udc00b"), "data: a\ufffdb\n\n".encode()),
    (ServerSentEvent("a\ud800"), "data: a\ufffd\n\n".encode()),
    (ServerSentEvent("\ud83c\udf89"), "data: 🎉\n\n".encode()),
    (ServerSentEvent("\udf89\ud83c"), "data: \ufffd\ufffd\n\n".encode()),
    (ServerSentEvent("\ud83c\nb"), "data: \ufffd\ndata: b\n\n".encode()),
    (ServerSentEvent("ü🎉\ud800\ufeff"), "data: ü🎉\ufffd\ufeff\n\n".encode()),
    (ServerSentEvent({"a": "\ud800"}), 'data: {"a":"\ufffd"}\n\n'.encode()),
    (ServerSentEvent("a", id="\ud800", event="\udc00"), "id: \ufffd\nevent: \ufffd\ndata: a\n\n".encode()),
    (ServerSentEvent(comment="\ud800"), ": \ufffd\n\n".encode()),
]


@pytest.mark.parametrize(("event", "block"), BLOCKS)
def test_encoding(event: ServerSentEvent | bytes, block: bytes) -> None:
    assert (event if isinstance(event, bytes) else event.encode()) == block


def test_data_is_copied() -> None:
    data = {"count": 1}
    event = ServerSentEvent(data)
    data["count"] = 2
    assert event.data == '{"count":1}'


JSON = [
    (ServerSentEvent({"a": [1, None]}), {"a": [1, None]}),
    (ServerSentEvent("5"), 5),
    (ServerSentEvent(' {"a":\n1} '), {"a": 1}),
    (ServerSentEvent({"a": "b\u2028c\x85d"}), {"a": "b\u2028c\x85d"}),
]


@pytest.mark.parametrize(("event", "value"), JSON)
def test_json(event: ServerSentEvent, value: object) -> None:
    assert event.json() == value


def test_json_without_data() -> None:
    with pytest.raises(json.JSONDecodeError):
        ServerSentEvent("not JSON").json()
    with pytest.raises(ValueError, match="the event has no data"):
        ServerSentEvent(None).json()


OF = [
    ("a", ServerSentEvent("a")),
    (None, ServerSentEvent("null")),
    ({"a": 1}, ServerSentEvent('{"a":1}')),
    (b"a", ServerSentEvent("a")),
    (0, ServerSentEvent("0")),
    ("", ServerSentEvent("")),
]


@pytest.mark.parametrize(("item", "event"), OF)
def test_of(item: object, event: ServerSentEvent) -> None:
    assert ServerSentEvent.of(item) == event


FULL = ServerSentEvent("a", event="e", id="1", retry=5, comment="c")


def test_of_an_event() -> None:
    assert ServerSentEvent.of(FULL) is FULL


@pytest.mark.parametrize("name", ["data", "event", "id", "retry", "comment", "other"])
def test_frozen(name: str) -> None:
    event = ServerSentEvent("a")
    with pytest.raises(AttributeError, match=f"ServerSentEvent is immutable: cannot set '{name}'"):
        setattr(event, name, "b")
    with pytest.raises(AttributeError, match=f"ServerSentEvent is immutable: cannot delete '{name}'"):
        delattr(event, name)
    assert event == ServerSentEvent("a")
    assert not hasattr(event, "__dict__")


OTHERS = [
    ServerSentEvent("b", event="e", id="1", retry=5, comment="c"),
    ServerSentEvent(None, event="e", id="1", retry=5, comment="c"),
    ServerSentEvent("a", event="f", id="1", retry=5, comment="c"),
    ServerSentEvent("a", id="1", retry=5, comment="c"),
    ServerSentEvent("a", event="e", id="2", retry=5, comment="c"),
    ServerSentEvent("a", event="e", retry=5, comment="c"),
    ServerSentEvent("a", event="e", id="1", retry=6, comment="c"),
    ServerSentEvent("a", event="e", id="1", comment="c"),
    ServerSentEvent("a", event="e", id="1", retry=5, comment="d"),
    ServerSentEvent("a", event="e", id="1", retry=5),
]


@pytest.mark.parametrize("other", OTHERS)
def test_equality(other: ServerSentEvent) -> None:
    assert other != FULL
    assert hash(other) != hash(FULL)


def test_hash() -> None:
    again = ServerSentEvent("a", event="e", id="1", retry=5, comment="c")
    assert again == FULL
    assert {FULL, again} == {again}
    assert ServerSentEvent({"a": 1}) == ServerSentEvent('{"a":1}')


def test_equality_with_other_types() -> None:
    assert ServerSentEvent("a") != "a"
    assert ServerSentEvent("a") != ("a", None, None, None, None)


COPIES: list[Callable[[ServerSentEvent], ServerSentEvent]] = [
    copy.copy,
    copy.deepcopy,
    *(lambda event, protocol=protocol: pickle.loads(pickle.dumps(event, protocol)) for protocol in range(6)),
]


@pytest.mark.parametrize("event", [FULL, ServerSentEvent(), ServerSentEvent(None)])
@pytest.mark.parametrize("copied", COPIES)
def test_copy_and_pickle(copied: Callable[[ServerSentEvent], ServerSentEvent], event: ServerSentEvent) -> None:
    assert copied(event) == event
    assert type(copied(event)) is ServerSentEvent


REPRS = [
    (ServerSentEvent(), "ServerSentEvent('')"),
    (ServerSentEvent("a"), "ServerSentEvent('a')"),
    (ServerSentEvent(None), "ServerSentEvent(None)"),
    (ServerSentEvent(retry=0), "ServerSentEvent(None, retry=0)"),
    (ServerSentEvent({"a": 1}, id=""), "ServerSentEvent('{\"a\":1}', id='')"),
    (FULL, "ServerSentEvent('a', event='e', id='1', retry=5, comment='c')"),
]


@pytest.mark.parametrize(("event", "text"), REPRS)
def test_repr(event: ServerSentEvent, text: str) -> None:
    assert repr(event) == text
    assert eval(text) == event


def test_match_statement() -> None:
    def describe(event: ServerSentEvent) -> str:
        match event:
            case ServerSentEvent("[DONE]"):
                return "done"
            case ServerSentEvent(None, comment=str(comment)):
                return f"comment {comment}"
            case ServerSentEvent(data, event="price"):
                return f"price {data}"
            case ServerSentEvent(id=id_):
                return f"id {id_}"

    assert describe(ServerSentEvent("[DONE]")) == "done"
    assert describe(ServerSentEvent(comment="c")) == "comment c"
    assert describe(ServerSentEvent("5", event="price")) == "price 5"
    assert describe(ServerSentEvent("5", id="1")) == "id 1"


# Received events


@pytest.mark.parametrize(("event", "type"), [(None, "message"), ("", "message"), ("paid", "paid")])
def test_type(event: str | None, type: str) -> None:
    assert ServerSentEvent("x", event=event).type == type
    assert ReceivedEvent("x", event=event).type == type


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b"data: a\n\n", ReceivedEvent("a")),
        (b"id: 1\nevent: e\ndata: a\n\n", ReceivedEvent("a", id="1", event="e")),
        (b"id: 1\nretry: 5\ndata\n\n", ReceivedEvent("", id="1", retry=5)),
    ],
)
def test_received_event(wire: bytes, expected: ReceivedEvent) -> None:
    (event,) = Decoder().feed(wire)
    assert type(event) is ReceivedEvent
    assert event == expected
    copied = pickle.loads(pickle.dumps(event))
    assert (type(copied), copied) == (ReceivedEvent, expected)
    assert repr(event).startswith("ReceivedEvent(")


def test_received_event_has_data() -> None:
    with pytest.raises(InvalidEventError, match="expected data to be a str, got None"):
        ReceivedEvent(None)  # type: ignore[arg-type]


def test_comments_are_not_received_events() -> None:
    (comment,) = Decoder(comments=True).feed(b": beat\n")
    assert not isinstance(comment, ReceivedEvent)
