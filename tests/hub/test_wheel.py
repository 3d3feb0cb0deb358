"""``Wheel``: one timer of the clock for all of a hub's."""

from __future__ import annotations

import pytest

from tickertape.hub.wheel import Wheel
from tickertape.testing import FakeClock


def wheel_of(now: float = 1000.0) -> tuple[FakeClock, Wheel]:
    clock = FakeClock(now)
    wheel = Wheel(clock)
    wheel.start()
    return clock, wheel


@pytest.mark.parametrize("start", [0.0, 1000.0, 1000.1, 12345.678])
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.25, 0.3, 1.0, 14.99, 60.0])
def test_callback_in_time(start: float, delay: float) -> None:
    clock, wheel = wheel_of(start)
    moments: list[float] = []
    wheel.call_at(start + delay, lambda: moments.append(wheel.time()))
    clock.advance(delay + 1.0)
    [moment] = moments
    assert delay <= moment - start <= delay + 0.501
    clock.advance(10.0)
    assert len(moments) == 1


def test_overdue_callback() -> None:
    clock, wheel = wheel_of()
    calls: list[str] = []
    wheel.call_at(0.0, calls.append, "late")
    assert calls == []
    clock.advance(0.3)
    assert calls == ["late"]


def test_one_timer_of_the_clock() -> None:
    clock, wheel = wheel_of()
    calls: list[int] = []
    for number in range(100):
        wheel.call_at(1000.0 + number / 10, calls.append, number)
    assert repr(clock).endswith(" timers=1>")
    clock.advance(30)
    assert calls == list(range(100))
    assert repr(clock).endswith(" timers=1>")


def test_late_turn() -> None:
    # A loop that was busy for seconds turns the wheel once, past many spokes.
    clock, wheel = wheel_of()
    calls: list[int] = []
    clock._timers.clear()
    for number in (3, 1, 2):
        wheel.call_at(1000.0 + number, calls.append, number)
    clock.advance(10)
    assert calls == []
    wheel._turn()
    assert calls == [1, 2, 3]


def test_cancel() -> None:
    clock, wheel = wheel_of()
    calls: list[str] = []
    timer = wheel.call_at(1001.0, calls.append, "never")
    other = wheel.call_at(1001.0, calls.append, "comes")
    timer.cancel()
    timer.cancel()
    clock.advance(5)
    other.cancel()  # it was called already
    assert calls == ["comes"]


def test_callback_raises(caplog: pytest.LogCaptureFixture) -> None:
    clock, wheel = wheel_of()
    calls: list[str] = []

    def explode() -> None:
        raise RuntimeError("boom")

    wheel.start(explode)
    wheel.call_at(1000.1, explode)
    wheel.call_at(1000.1, calls.append, "next")
    wheel.call_at(1001.0, calls.append, "later")
    clock.advance(2)
    assert calls == ["next", "later"]
    assert "a timer failed" in caplog.text
    assert "RuntimeError: boom" in caplog.text


def test_callbacks_of_each_turn() -> None:
    clock = FakeClock()
    wheel = Wheel(clock)
    turns: list[float] = []
    wheel.start(lambda: turns.append(clock.time()))
    clock.advance(1.1)
    assert turns == [1000.25, 1000.5, 1000.75, 1001.0]
    wheel.stop()
    clock.advance(5)
    assert len(turns) == 4


def test_callback_in_callback() -> None:
    clock, wheel = wheel_of()
    moments: list[float] = []

    def again() -> None:
        moments.append(clock.time())
        if len(moments) < 3:
            wheel.call_at(clock.time() + 1.0, again)

    wheel.call_at(1001.0, again)
    clock.advance(10)
    assert len(moments) == 3
    assert moments == sorted(moments)
    assert moments[2] - moments[0] <= 3.0


def test_stop() -> None:
    """A stopped wheel runs the pending callbacks first."""
    clock, wheel = wheel_of()
    calls: list[str] = []
    wheel.call_at(1002.0, calls.append, "last")
    wheel.stop()
    clock.advance(3)
    assert calls == ["last"]
    assert repr(clock).endswith(" timers=0>")
