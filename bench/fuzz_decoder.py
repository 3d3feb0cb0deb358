"""A fuzz target for the decoder: ``python -m bench.fuzz_decoder -max_total_time=60``.

For any bytes in any chunks, and with any limit, the decoder must return the same as the naive
reference, raise nothing but ``EventTooLargeError``, and do work in proportion to the bytes.
All options are libFuzzer's. The tests run the same target on its seeds and on random input.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from types import FunctionType

from tickertape import EventTooLargeError, ServerSentEvent
from tickertape.wire import Decoder

from .meter import Meter
from .reference import Outcome, decode

__all__ = ["SEEDS", "TOKENS", "check", "fuzz"]

HEADER = 4
"""Bytes at the start of an input that configure the run: the options, and three lengths of chunks."""

LEAST_LIMIT = 3
"""A limit in this target is no less: the bytes of a partial BOM do not belong to an event."""

LONGEST_CHUNK = 40
WHOLE = 1 << 20

LONGEST_PATTERN = 64
METERED_BYTES = 512
"""Length of the shorter of two streams whose work is compared: a few times the longest pattern."""

GROWTH = 2.3
"""Greatest growth of the work when the bytes double. It is 2.0 if linear, 4 if quadratic; the rest is rounding."""

TOKENS = (
    *(b"data", b"data:", b"data: ", b"id", b"id:", b"id: ", b"event: ", b"event:", b"retry: ", b"retry:", b":", b": "),
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b" ", b"\0", b"x", b"0", b"3000", b"1_0"),
    *(b"\xef\xbb\xbf", b"\xef\xbb", b"\xff", b"\xe2\x82\xac", b"\xe2\x82", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b"),
    *(b"data: a\n", b"data:b\ndata: c\n", b"id: 1\n", b"event: e\n", b"retry: 5\n", b": comment\n", b"other: x\n"),
)
"""Tokens of streams: a fuzzer that must find ``retry: `` byte by byte makes no progress in a minute."""

SEEDS = (
    b"\0\0\0\0data: hello\n\n",
    b"\1\1\2\3\xef\xbb\xbf: comment\nid: 1\nevent: e\ndata: x\n\n",
    b"\2\0\7\7id: 1\nevent: price\ndata: {}\n\nid: 2\nevent: price\ndata: {}\n\ndata: unfin",
    b"\0\5\0\5event: e\r\ndata: a\r\ndata: b\r\nid: 7\r\n\r\n",
    b"\3\1\1\1data: a\r\rdata: b\r\rretry: 10\r\r",
    b"\0\2\3\4data\ndata:\ndata: \n\nid\n\nid: \0\ndata: x\n\n",
    b"\0\2\3\4retry: 99999999999999999999\nretry: +5\nretry: \xd9\xa1\n\ndata: \xff\xe2\x82\n\n",
    b"\x80\0\0\0data: never ending",
    b"\x80\0\3\7data: line\r\n",
    b"\x80\6\3\7id: 1\nevent: e\ndata: x\n\n",
    b"\x3e\2\3\4data: exactly\n\ndata: too large an event\n\n",
)

_meter = Meter("tickertape.wire.decoder")


def check(raw: bytes) -> None:
    """Run one input; an exception is a finding."""
    header, stream = raw[:HEADER].ljust(HEADER, b"\0"), raw[HEADER:]
    lengths = [byte % LONGEST_CHUNK + 1 for byte in header[1:]]
    if header[0] & 0x80:
        _check_work(stream[:LONGEST_PATTERN], lengths)
        return
    comments = bool(header[0] & 1)
    limit = LEAST_LIMIT + (header[0] >> 2) if header[0] & 2 else None
    for chunks in ([stream], list(_cut(stream, [1])), list(_cut(stream, lengths))):
        _check_outcome(chunks, limit, comments)


def _cut(stream: bytes, lengths: list[int]) -> Iterator[bytes]:
    start = 0
    for length in cycle(lengths):
        if start >= len(stream):
            return
        yield stream[start : start + length]
        start += length


def _check_outcome(chunks: list[bytes], limit: int | None, comments: bool) -> None:
    decoder = Decoder(max_event_size=limit, comments=comments)
    events: list[ServerSentEvent] = []
    too_large = False
    try:
        for chunk in (*chunks, b""):  # an error after finished events is raised by the next call
            events += decoder.feed(chunk)
    except EventTooLargeError:
        too_large = True
    expected = decode(b"".join(chunks), limit=limit, comments=comments)
    got = Outcome(events, decoder.last_event_id, decoder.retry, too_large)
    if got != expected:
        raise AssertionError(f"expected {expected}, got {got} from {chunks}")


def _check_work(pattern: bytes, lengths: list[int]) -> None:
    """Compare the work for a stream that repeats ``pattern`` and for one twice as long."""
    if not pattern:
        return
    times = METERED_BYTES // len(pattern)
    for cut in (lengths, [WHOLE]):
        once, twice = _work(pattern * times, cut), _work(pattern * times * 2, cut)
        if twice > GROWTH * once:
            raise AssertionError(f"expected linear work, got {once} and then {twice} for {pattern!r} cut by {cut}")


def _work(stream: bytes, lengths: list[int]) -> int:
    decoder = _meter.module.Decoder(max_event_size=None)
    before = _meter.work
    for chunk in _cut(stream + b"\n\n", lengths):
        decoder.feed(chunk)
    return _meter.work - before


def fuzz() -> None:
    """Fuzz until libFuzzer's options say to stop, and exit as it does."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()  # libFuzzer ends its process itself; the parent removes the folder
        if not child:
            _fuzz(Path(folder))
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _fuzz(folder: Path) -> None:
    import atheris  # here, because the tests import this module without atheris, too

    dictionary = folder / "tokens"
    dictionary.write_text("".join(f'"{_escaped(token)}"\n' for token in TOKENS))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(seed)
    for function in vars(Decoder).values():
        if isinstance(function, FunctionType):
            atheris.instrument_func(function)
    atheris.Setup([*sys.argv, f"-dict={dictionary}", str(corpus)], check)
    atheris.Fuzz()


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


if __name__ == "__main__":
    fuzz()
