"""The fuzz target, for a bounded number of rounds without a fuzzer, and for some seconds with one."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench.fuzz_decoder import HEADER, SEEDS, TOKENS, check
from bench.meter import Meter

from tickertape.wire import decoder

ROOT = Path(__file__).parents[2]

ROUNDS = 1500
"""Random inputs of each kind; they take a few seconds."""


@pytest.mark.parametrize("seed", SEEDS)
def test_seeds(seed: bytes) -> None:
    check(seed)


def test_short_inputs() -> None:
    for length in range(HEADER + 1):
        check(b"\xff" * length)
        check(b"\0" * length)


def test_random_tokens() -> None:
    randomness = random.Random(1)
    for _ in range(ROUNDS):
        check(_header(randomness, 0x7F) + b"".join(randomness.choices(TOKENS, k=randomness.randrange(40))))


def test_changed_seeds() -> None:
    randomness = random.Random(2)
    for _ in range(ROUNDS):
        changed = bytearray(randomness.choice(SEEDS)[HEADER:])
        for _ in range(randomness.randrange(1, 5)):
            changed[randomness.randrange(len(changed))] = randomness.choice(b"\r\n:\0 d\xff" + randomness.randbytes(1))
        check(_header(randomness, 0x7F) + changed)


def test_work_on_random_tokens() -> None:
    randomness = random.Random(3)
    for _ in range(ROUNDS // 10):
        pattern = b"".join(randomness.choices(TOKENS, k=randomness.randrange(1, 8)))
        check(bytes([0x80]) + _header(randomness, 0xFF)[1:] + pattern)


def _header(randomness: random.Random, greatest: int) -> bytes:
    return bytes([randomness.randrange(greatest + 1)]) + randomness.randbytes(HEADER - 1)


SHAPES = [
    *(b"x", b"\n", b"\r", b":\n", b"data: a\n", b"data: a\r\n", b"id: 1\n", b"retry: 10\n"),
    *(b"id: 1\nevent: e\ndata: x\n\n", b"event: e\ndata: x\nid: 1\n\n", b"data: \xff\n\n", b"id: \0\ndata:\n\n"),
]


@pytest.mark.parametrize("pattern", SHAPES)
@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_work_is_linear(pattern: bytes, length: int) -> None:
    check(bytes([0x80, length - 1, length - 1, length - 1]) + pattern)


SLOW = [
    ("bytes", "self.held = self.held + data"),
    ("bytes", "self.held += data"),
    ("bytes", "self.held = b''.join([self.held, data])"),
    ("str", "self.held = f'{self.held}{data.decode()}'"),
    ("bytearray", "self.held += data; self.held.find(b'y')"),
    ("bytearray", "self.held += data; b'y' in self.held"),
    ("bytearray", "self.held += data; self.held[1:]"),
]

SLOW_DECODER = """
class Decoder:
    def __init__(self):
        self.held = {kind}()

    def feed(self, data):
        {line}
"""


@pytest.mark.parametrize(("kind", "line"), SLOW)
def test_meter_finds_quadratic_work(kind: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_decoder.py").write_text(SLOW_DECODER.format(kind=kind, line=line))
    monkeypatch.syspath_prepend(tmp_path)
    meter = Meter("slow_decoder")

    def work(size: int) -> int:
        before, slow = meter.work, meter.module.Decoder()
        for _ in range(size):
            slow.feed(b"x")
        return meter.work - before

    assert work(1000) / work(500) > 3.5
    assert work(1000) == work(1000)


def test_possessive_repeats() -> None:
    """A repeat that backtracks could take quadratic time, which the meter would not notice."""
    patterns = [value.pattern for value in vars(decoder).values() if isinstance(value, re.Pattern)]
    assert len(patterns) == 3
    for pattern in patterns:
        text = pattern.decode() if isinstance(pattern, bytes) else pattern
        repeats = re.findall(r"(?<!\()[*+?]+", text)
        assert repeats
        assert set(repeats) <= {"?+", "*+", "++"} | {"?"}, text


def test_fuzzer(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("atheris is not installed, although CI needs it")
        pytest.skip("atheris is not installed")
    fuzzer = [
        sys.executable,
        "-m",
        "bench.fuzz_decoder",
        "-max_total_time=3",
        "-seed=1",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(fuzzer, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Done \d{3,} runs", done.stderr), done.stderr
