"""Delays, ``Retry-After`` and the deadline for silence, as tables."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tickertape.client.timing import (
    MAX_RETRY,
    MAX_RETRY_AFTER,
    MIN_RETRY,
    Backoff,
    Silence,
    retry_after,
)


def delays(random: float, *, retry: int | None = None, initial: float = 3.0, cap: float = 30.0) -> list[float]:
    backoff = Backoff(initial, cap, lambda: random)
    if retry is not None:
        backoff.honour(retry)
    return [backoff.delay(failures) for failures in range(6)]


def test_the_delays_double_up_to_the_cap() -> None:
    assert delays(1.0) == [3, 6, 12, 24, 30, 30]


def test_the_jitter_is_full_where_the_server_has_said_nothing() -> None:
    assert delays(0.0) == [MIN_RETRY] * 6
    assert delays(0.5) == [0.5 + (ceiling - 0.5) / 2 for ceiling in (3, 6, 12, 24, 30, 30)]


def test_a_retry_of_the_server_is_waited_in_full_and_exactly_when_nothing_failed() -> None:
    assert delays(0.0, retry=2000) == [2] * 6
    assert delays(1.0, retry=2000) == [2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [(0, MIN_RETRY), (499, MIN_RETRY), (500, 0.5), (60_000, 60.0), (10**9, MAX_RETRY), (10**4000, MAX_RETRY)],
)
def test_a_retry_of_the_server_is_clamped(milliseconds: int, seconds: float) -> None:
    assert delays(1.0, retry=milliseconds)[0] == seconds


def test_a_retry_over_the_cap_is_still_honoured() -> None:
    assert delays(1.0, retry=120_000) == [120] * 6


def test_a_short_initial_delay_of_the_user_is_taken_as_it_is() -> None:
    assert delays(0.0, initial=0.01)[0] == 0.01


def test_a_thousand_failures_overflow_nothing() -> None:
    assert Backoff(3.0, 30.0, lambda: 1.0).delay(1000) == 30


def test_what_a_response_asks_for_is_the_least() -> None:
    backoff = Backoff(3.0, 30.0, lambda: 1.0)
    assert backoff.delay(0, at_least=120.0) == 120
    assert backoff.delay(0, at_least=1.0) == 3


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
        # The server's own clock goes wrong, and its two dates still say ten seconds.
        ({"retry-after": "Sat, 01 Jan 2000 00:00:10 GMT", "date": "Sat, 01 Jan 2000 00:00:00 GMT"}, 10),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT", "date": "garbage"}, 30),
    ],
)
def test_retry_after_in_seconds_and_as_a_date(headers: Mapping[str, str], seconds: float) -> None:
    assert retry_after(headers, wall=1_700_000_000.0) == seconds  # Tue, 14 Nov 2023 22:13:20 GMT


def test_silence_is_given_or_unlimited() -> None:
    for given in (7.5, None):
        silence = Silence(given)
        silence.saw(1000.0, heartbeat=True)
        assert silence.deadline() == given


def test_silence_is_learned_from_the_longest_gap_once_there_are_heartbeats() -> None:
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


def test_frequent_heartbeats_do_not_make_for_haste() -> None:
    silence = Silence("learned")
    silence.saw(0.5, heartbeat=True)
    assert silence.deadline() == Silence.LEAST


def test_a_broken_deadline_is_learned_again() -> None:
    silence = Silence("learned")
    silence.saw(15.0, heartbeat=True)
    silence.forget()
    assert silence.deadline() == Silence.UNLEARNED
