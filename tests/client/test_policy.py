"""The policy: its limits, delays, ``Retry-After`` and the deadline for silence, as tables."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tickertape.client import Policy
from tickertape.client.policy import MAX_RETRY, MAX_RETRY_AFTER, MIN_RETRY, Delays, Silence, retry_after


def delays(random: float, *, retry: int | None = None, initial: float = 3.0, cap: float = 30.0) -> list[float]:
    computed = Delays(initial, cap, lambda: random)
    if retry is not None:
        computed.set_retry(retry)
    return [computed.delay(failures) for failures in range(6)]


def test_delays_double() -> None:
    assert delays(1.0) == [3, 6, 12, 24, 30, 30]


def test_full_jitter_without_retry() -> None:
    assert delays(0.0) == [MIN_RETRY] * 6
    assert delays(0.5) == [0.5 + (ceiling - 0.5) / 2 for ceiling in (3, 6, 12, 24, 30, 30)]


def test_retry_is_shortest_delay() -> None:
    assert delays(0.0, retry=2000) == [2] * 6
    assert delays(1.0, retry=2000) == [2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [(0, MIN_RETRY), (499, MIN_RETRY), (500, 0.5), (60_000, 60.0), (10**9, MAX_RETRY), (10**4000, MAX_RETRY)],
)
def test_retry_is_clamped(milliseconds: int, seconds: float) -> None:
    assert delays(1.0, retry=milliseconds)[0] == seconds


def test_retry_over_cap() -> None:
    assert delays(1.0, retry=120_000) == [120] * 6


def test_short_initial_delay() -> None:
    assert delays(0.0, initial=0.01)[0] == 0.01


def test_many_failures() -> None:
    assert Delays(3.0, 30.0, lambda: 1.0).delay(1000) == 30


def test_at_least() -> None:
    computed = Delays(3.0, 30.0, lambda: 1.0)
    assert computed.delay(0, at_least=120.0) == 120
    assert computed.delay(0, at_least=1.0) == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-7"}, 0),
        ({"retry-after": "7.5"}, 0),
        ({"retry-after": "1_000"}, 0),
        ({"retry-after": "٧"}, 0),
        ({"retry-after": "9" * 5000}, MAX_RETRY_AFTER),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30),
        ({"retry-after": "Tuesday, 14-Nov-23 22:13:50 GMT"}, 30),
        ({"retry-after": "Tue Nov 14 22:13:50 2023"}, 30),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0),
        ({"retry-after": "Tue, 14 Nov 2033 22:13:50 GMT"}, MAX_RETRY_AFTER),
        ({"retry-after": "Tue, 99 Nov 2023 22:13:50 GMT"}, 0),
        # The server's clock is wrong, but its two dates are ten seconds apart.
        ({"retry-after": "Sat, 01 Jan 2000 00:00:10 GMT", "date": "Sat, 01 Jan 2000 00:00:00 GMT"}, 10),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT", "date": "garbage"}, 30),
    ],
)
def test_retry_after(headers: Mapping[str, str], seconds: float) -> None:
    assert retry_after(headers, wall=1_700_000_000.0) == seconds  # Tue, 14 Nov 2023 22:13:20 GMT


def test_given_silence() -> None:
    for given in (7.5, None):
        silence = Silence(given)
        silence.saw(1000.0, heartbeat=True)
        assert silence.deadline() == given


def test_learned_silence() -> None:
    silence = Silence("learned")
    assert silence.deadline() == Silence.UNLEARNED
    silence.saw(20.0, heartbeat=False)  # events come when they like: no heartbeat, no deadline
    assert silence.deadline() == Silence.UNLEARNED
    silence.saw(5.0, heartbeat=True)
    assert silence.deadline() == 60
    silence.saw(40.0, heartbeat=True)
    assert silence.deadline() == 120
    silence.saw(1.0, heartbeat=True)
    assert silence.deadline() == 120


def test_frequent_heartbeats() -> None:
    silence = Silence("learned")
    silence.saw(0.5, heartbeat=True)
    assert silence.deadline() == Silence.LEAST


def test_forget_silence() -> None:
    silence = Silence("learned")
    silence.saw(15.0, heartbeat=True)
    silence.forget()
    assert silence.deadline() == Silence.UNLEARNED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reconnect", "sometimes"),
        ("retry", 0),
        ("retry", -1.0),
        ("retry", None),
        ("retry", "3"),
        ("retry", float("nan")),
        ("max_delay", 0),
        ("silence", 0),
        ("silence", "forever"),
        ("max_attempts", 0),
        ("max_attempts", True),
        ("give_up_after", -1),
        ("max_event_size", 0),
        ("max_redirects", -1),
    ],
)
def test_limit_out_of_range(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"expected {name} to be"):
        Policy(**{name: value})  # type: ignore[arg-type]
