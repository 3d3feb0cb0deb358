"""Decoding and encoding speed: the time of others over ours, on the same bytes and the same values."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import fastapi.sse
import sse_starlette
from httpx2._sse import _SSEParser
from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from tickertape import ServerSentEvent
from tickertape.wire import Decoder

KIB: Final = 1024
MIB: Final = 1024 * KIB

ROUNDS: Final = 7
"""Turns of each contender; its best counts, because disturbances only make a run slower."""

PRICE: Final = {"symbol": "ACME", "bid": 101.25, "ask": 101.5, "volume": 1234}
LINES: Final = "\n".join(f"line {number} of a longer text" for number in range(20))

Chunks = Sequence[bytes]


# Decoding: every contender gets the same chunks of bytes and returns the number of events in them.


def decode_tickertape(chunks: Chunks) -> int:
    decoder = Decoder(max_event_size=None)
    return sum(len(decoder.feed(chunk)) for chunk in chunks)


def decode_httpx2(chunks: Chunks) -> int:
    text = codecs.getincrementaldecoder("utf-8")("replace")
    parser = _SSEParser()
    return sum(1 for chunk in chunks for _ in parser.decode(text.decode(chunk)))


def decode_httpx_sse(chunks: Chunks) -> int:
    text = codecs.getincrementaldecoder("utf-8")("replace")
    lines, decoder = SSELineDecoder(), SSEDecoder()
    return sum(decoder.decode(line) is not None for chunk in chunks for line in lines.decode(text.decode(chunk)))


def price(number: int) -> bytes:
    return b'id: %d\nevent: price\ndata: {"symbol":"ACME","bid":101.25,"ask":101.50,"volume":%d}\n\n' % (number, number)


def fastapi_price(number: int) -> bytes:
    return b'event: price\ndata: {"symbol":"ACME","bid":101.25,"ask":101.50,"volume":%d}\nid: %d\n\n' % (number, number)


def crlf_price(number: int) -> bytes:
    return price(number).replace(b"\n", b"\r\n")


def text_of_lines(number: int) -> bytes:
    return b"id: %d\nevent: log\n" % number + b"data: one line of a text of several\n" * 20 + b"\n"


def many(event: Callable[[int], bytes], count: int, chunk: int | None) -> Callable[[int], Chunks]:
    """Streams of ``count`` events, cut into chunks of ``chunk`` bytes, or one for each event."""

    def chunks(scale: int) -> Chunks:
        events = [event(number) for number in range(count * scale)]
        return cut(b"".join(events), chunk) if chunk else events

    return chunks


def large(size: int, count: int, chunk: int) -> Callable[[int], Chunks]:
    """Streams of a few large events, each of them twice as large at twice the scale."""
    return lambda scale: cut((b"id: 1\nevent: file\ndata: " + b"x" * (size * scale) + b"\n\n") * count, chunk)


def cut(stream: bytes, length: int) -> Chunks:
    return [stream[start : start + length] for start in range(0, len(stream), length)]


@dataclass(frozen=True)
class Shape:
    name: str
    chunks: Callable[[int], Chunks]
    rounds: int = ROUNDS


SHAPES: Final = (
    Shape("100-byte events, 4 KiB chunks", many(price, 5000, 4 * KIB)),
    Shape("100-byte events, 64 KiB chunks", many(price, 5000, 64 * KIB)),
    Shape("100-byte events, one a chunk", many(price, 5000, None)),
    Shape("100-byte events, one byte a chunk", many(price, 1000, 1)),
    Shape("the same with CRLF, 4 KiB chunks", many(crlf_price, 5000, 4 * KIB)),
    Shape("the same with CRLF, 64 KiB chunks", many(crlf_price, 5000, 64 * KIB)),
    Shape("the same with CRLF, one a chunk", many(crlf_price, 5000, None)),
    Shape("data before id, 4 KiB chunks", many(fastapi_price, 5000, 4 * KIB)),
    Shape("20 lines of data, 4 KiB chunks", many(text_of_lines, 500, 4 * KIB)),
    Shape("16 KiB events, 64 KiB chunks", large(16 * KIB, 200, 64 * KIB)),
    Shape("1 MiB events, 64 KiB chunks", large(MIB, 8, 64 * KIB)),
    Shape("1 MiB event, one byte a chunk", large(MIB, 1, 1), rounds=3),
)


# Encoding: every contender builds an event of the same values and returns its bytes.


def encode_tickertape(data: Any) -> bytes:
    return ServerSentEvent(data, event="price", id="12345").encode()


def encode_sse_starlette(data: Any) -> bytes:
    kind = sse_starlette.ServerSentEvent if isinstance(data, str) else sse_starlette.JSONServerSentEvent
    return kind(data, event="price", id="12345").encode()


def encode_fastapi(data: Any) -> bytes:
    # As FastAPI's routing does with an event that a path operation yields.
    if isinstance(data, str):
        event = fastapi.sse.ServerSentEvent(raw_data=data, event="price", id="12345")
        text = event.raw_data
    else:
        event = fastapi.sse.ServerSentEvent(data=data, event="price", id="12345")
        text = json.dumps(event.data)
    return fastapi.sse.format_sse_event(
        data_str=text, event=event.event, id=event.id, retry=event.retry, comment=event.comment
    )


PAYLOADS: Final = (("text", json.dumps(PRICE)), ("JSON", PRICE), ("text of 20 lines", LINES))

ENCODINGS: Final = 5000
"""Events of each kind that are encoded in a turn."""


def main() -> None:
    decoders = (decode_tickertape, decode_httpx2, decode_httpx_sse)
    print(f"{'decoding':36}{'httpx2':>14}{'httpx-sse':>14}{'ours, 2N over N':>18}")
    for shape in SHAPES:
        chunks, twice = shape.chunks(1), shape.chunks(2)
        counts = [decode(chunks) for decode in decoders]
        if len(set(counts)) > 1:
            raise AssertionError(f"expected the same number of events from all decoders, got {counts}")
        turns = [partial(decode, chunks) for decode in decoders]
        ours, httpx2, httpx_sse, ours_twice = best([*turns, partial(decode_tickertape, twice)], shape.rounds)
        print(f"{shape.name:36}{httpx2 / ours:13.2f}x{httpx_sse / ours:13.2f}x{ours_twice / ours:18.2f}")
    print()

    encoders = (encode_tickertape, encode_sse_starlette, encode_fastapi)
    print(f"{'building and encoding':36}{'sse-starlette':>14}{'FastAPI':>14}")
    for name, data in PAYLOADS:
        ours, starlette, fast = best([partial(repeat, encode, data) for encode in encoders], ROUNDS)
        print(f"{name:36}{starlette / ours:13.2f}x{fast / ours:13.2f}x")


def repeat(encode: Callable[[Any], bytes], data: Any) -> None:
    for _ in range(ENCODINGS):
        encode(data)


def best(contenders: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Run all contenders in turns; return the shortest time of each, in seconds."""
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, own in zip(contenders, times, strict=True):
            start = time.perf_counter()
            contender()
            own.append(time.perf_counter() - start)
    return [min(own) for own in times]
