"""The watchdog of the synchronous clock."""

from __future__ import annotations

import threading

from tickertape.client.clock import SystemAsyncClock, SystemSyncClock, Watchdog


def watchdogs() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tickertape-watchdog"]


def test_it_calls_when_the_deadline_passes_and_its_thread_ends() -> None:
    watchdog = Watchdog()
    expired = threading.Event()
    before = watchdogs()
    watchdog.set(0.0, expired.set)
    new = [thread for thread in watchdogs() if thread not in before]
    assert expired.wait(30.0)
    for thread in new:
        thread.join(30.0)
        assert not thread.is_alive()
    assert repr(watchdog) == "<Watchdog deadline=None wakes_at=None>"
    expired.clear()
    watchdog.set(0.0, expired.set)
    assert expired.wait(30.0)


def test_an_earlier_deadline_is_not_slept_over() -> None:
    watchdog = Watchdog()
    expired = threading.Event()
    watchdog.set(1000.0, lambda: None)
    watchdog.set(0.01, expired.set)
    assert expired.wait(30.0)


def test_a_deadline_that_was_cleared_does_not_pass() -> None:
    watchdog = Watchdog()
    expired = threading.Event()
    passed = threading.Event()
    watchdog.set(0.01, expired.set)
    watchdog.clear()
    watchdog.set(0.02, passed.set)
    assert passed.wait(30.0)
    assert not expired.is_set()


def test_a_deadline_that_never_comes_is_no_error() -> None:
    watchdog = Watchdog()
    watchdog.set(float("inf"), lambda: None)
    expired = threading.Event()
    watchdog.set(0.0, expired.set)
    assert expired.wait(30.0)


def test_resting_ends_the_thread() -> None:
    watchdog = Watchdog()
    before = watchdogs()
    watchdog.set(1000.0, lambda: None)
    (thread,) = (thread for thread in watchdogs() if thread not in before)
    watchdog.rest()
    watchdog.rest()
    thread.join(30.0)
    assert not thread.is_alive()


def test_a_watch_without_a_deadline_starts_no_thread() -> None:
    before = watchdogs()
    with SystemSyncClock().watch(None, lambda: None):
        assert watchdogs() == before


def test_a_sleep_can_be_cut_short() -> None:
    wake = threading.Event()
    wake.set()
    SystemSyncClock().sleep(1000.0, wake)
    wake.clear()
    SystemSyncClock().sleep(0.001, wake)


async def test_the_clocks_of_the_system() -> None:
    clock = SystemAsyncClock()
    assert clock.now() <= SystemSyncClock().now()
    assert clock.wall() > 1_700_000_000
    await clock.sleep(0.0)
    async with clock.timeout(None):
        pass
