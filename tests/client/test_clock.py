"""``ThreadClock`` and ``Sleeper``."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tickertape.client.clock import Sleeper, ThreadClock
from tickertape.testing import FakeClock


def clock_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "tickertape-clock"}


@pytest.fixture
def clock() -> Iterator[ThreadClock]:
    clock = ThreadClock()
    yield clock
    clock.close()


def test_callback_runs_and_thread_ends(clock: ThreadClock) -> None:
    called = threading.Event()
    before = clock_threads()
    clock.call_at(clock.time(), called.set)
    new = clock_threads() - before
    assert called.wait(30.0)
    for thread in new:
        thread.join(30.0)
        assert not thread.is_alive()
    assert repr(clock) == "<ThreadClock timers=0 wakes_at=None>"
    called.clear()
    clock.call_at(clock.time(), called.set)
    assert called.wait(30.0)


def test_earlier_timer_wakes_thread(clock: ThreadClock) -> None:
    called = threading.Event()
    late = clock.call_at(clock.time() + 1000.0, lambda: None)
    clock.call_at(clock.time() + 0.01, called.set)
    assert called.wait(30.0)
    late.cancel()


def test_order_and_arguments(clock: ThreadClock) -> None:
    calls: list[str] = []
    done = threading.Event()
    start = clock.time() + 0.01
    clock.call_at(start + 0.02, done.set)
    clock.call_at(start + 0.01, calls.append, "b")
    clock.call_at(start, calls.append, "a")
    assert done.wait(30.0)
    assert calls == ["a", "b"]


def test_cancelled_timer(clock: ThreadClock) -> None:
    called, done = threading.Event(), threading.Event()
    timer = clock.call_at(clock.time() + 0.01, called.set)
    timer.cancel()
    timer.cancel()
    clock.call_at(clock.time() + 0.02, done.set)
    assert done.wait(30.0)
    assert not called.is_set()


def test_callback_sets_timer(clock: ThreadClock) -> None:
    called = threading.Event()
    clock.call_at(clock.time(), lambda: clock.call_at(clock.time(), called.set))
    assert called.wait(30.0)


def test_infinite_time(clock: ThreadClock) -> None:
    called = threading.Event()
    never = clock.call_at(float("inf"), lambda: None)
    clock.call_at(clock.time(), called.set)
    assert called.wait(30.0)
    never.cancel()


def test_close_ends_thread(clock: ThreadClock) -> None:
    before = clock_threads()
    timer = clock.call_at(clock.time() + 1000.0, lambda: None)
    (thread,) = clock_threads() - before
    timer.cancel()
    clock.close()
    clock.close()
    thread.join(30.0)
    assert not thread.is_alive()


def test_close_before_last_timer_is_cancelled(clock: ThreadClock) -> None:
    before = clock_threads()
    timer = clock.call_at(clock.time() + 1000.0, lambda: None)
    (thread,) = clock_threads() - before
    clock.close()
    timer.cancel()
    thread.join(30.0)
    assert not thread.is_alive()


def test_time(clock: ThreadClock) -> None:
    assert clock.time() <= time.monotonic()


def test_sleep(clock: ThreadClock) -> None:
    sleeper = Sleeper(clock)
    sleeper.sleep_until(clock.time() + 0.001)
    sleeper.sleep_until(clock.time() - 1.0)
    sleeper.wake()
    sleeper.sleep_until(clock.time() + 1000.0)


def test_wake_from_another_thread(clock: ThreadClock) -> None:
    sleeper = Sleeper(clock)
    sleeping = threading.Thread(target=sleeper.sleep_until, args=(clock.time() + 1000.0,), daemon=True)
    sleeping.start()
    sleeper.wake()
    sleeping.join(30.0)
    assert not sleeping.is_alive()


def test_sleep_on_fake_clock() -> None:
    clock = FakeClock()
    sleeper = Sleeper(clock)
    threads = [threading.Thread(target=sleeper.sleep_until, args=(clock.time() + 9.0,), daemon=True) for _ in range(9)]
    for thread in threads:
        thread.start()
    clock.advance(9.0)
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive()
