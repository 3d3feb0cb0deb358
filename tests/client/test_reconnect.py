"""The state machine, without a network and without time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tickertape import EventTooLargeError, ServerSentEvent
from tickertape.client import Closed, Gap, Opened, Policy, Reconnecting, State
from tickertape.client.actions import Action, Connect, Emit, Follow, Notify, Read, Save, Sleep, Stop
from tickertape.client.reconnect import Reconnector
from tickertape.client.timing import STABLE, Silence
from tickertape.errors import ClientError, ContentTypeError, GaveUpError, RedirectError, StatusError

STREAM = {"content-type": "text/event-stream"}
OOPS = ConnectionError("oops")


class Driver:
    """A machine with a clock, and shorthand for what a shell does."""

    def __init__(self, *, random: float = 1.0, last_event_id: str | None = None, **policy: Any) -> None:
        self.now = 1000.0
        self.machine = Reconnector(Policy(**policy), headers=[("A", b"1")], random=lambda: random)
        self.machine.last_event_id = last_event_id

    # Methods, since a type checker takes attributes for unchanged by calls.

    def state(self) -> State:
        return self.machine.state

    def last_event_id(self) -> str | None:
        return self.machine.last_event_id

    def next(self) -> Action:
        return self.machine.next(self.now)

    def do(self) -> list[Action]:
        """Take actions up to one that waits for something; commit what is emitted, let sleeps pass."""
        actions = []
        while True:
            action = self.next()
            actions.append(action)
            if isinstance(action, Emit) and (save := self.machine.commit()):
                actions.append(save)
            elif isinstance(action, Sleep):
                self.now += action.seconds
            elif isinstance(action, (Connect, Follow, Read, Stop)):
                return actions

    def respond(self, status: int = 200, headers: Mapping[str, str] = STREAM) -> list[Action]:
        self.machine.responded(status, headers, now=self.now, wall=0.0, url="http://h/", detail="because")
        return self.do()

    def receive(self, data: bytes, after: float = 0.0) -> list[Action]:
        self.now += after
        self.machine.received(data, self.now)
        return self.do()

    def end(self) -> list[Action]:
        self.machine.ended(self.now)
        return self.do()

    def fail(self, error: Exception = OOPS) -> list[Action]:
        self.machine.failed(error, self.now)
        return self.do()

    def open(self) -> Driver:
        self.do()
        self.respond()
        return self


def slept(actions: list[Action]) -> list[float]:
    return [action.seconds for action in actions if isinstance(action, Sleep)]


def place(actions: list[Action]) -> bytes | None:
    """The ``Last-Event-ID`` of the request at the end."""
    assert isinstance(actions[-1], Connect)
    return dict(actions[-1].headers).get("Last-Event-ID")


def stopped(actions: list[Action]) -> Exception | None:
    """The error of a stop, which the user was told of before."""
    closed, stop = actions[-2:]
    assert isinstance(stop, Stop)
    assert closed == Notify(Closed(stop.error))
    return stop.error


# The life of a stream.


def test_a_stream_from_beginning_to_end() -> None:
    driver = Driver()
    assert driver.state() is State.CONNECTING
    assert driver.do() == [Connect((("A", b"1"),), Silence.UNLEARNED)]
    assert driver.respond() == [Notify(Opened("http://h/", STREAM, 1)), Read(Silence.UNLEARNED)]
    assert driver.state() is State.OPEN
    one, two = ServerSentEvent("a", id="1"), ServerSentEvent("b", id="2")
    assert driver.receive(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n") == [
        Emit(one),
        Save("1"),
        Emit(two),
        Save("2"),
        Read(Silence.UNLEARNED),
    ]
    assert driver.end() == [
        Notify(Reconnecting("the stream ended", 3.0, 0, None)),
        Sleep(3.0),
        Connect((("A", b"1"), ("Last-Event-ID", b"2")), Silence.UNLEARNED),
    ]
    assert driver.state() is State.CONNECTING
    assert driver.respond(204) == [Notify(Closed(None)), Stop(None)]
    assert driver.state() is State.CLOSED
    assert driver.do() == [Stop(None)]
    assert driver.machine.statistics() == (2, 1, 1, 2, 0, 0, 0)


def test_half_an_event_is_dropped() -> None:
    driver = Driver().open()
    assert driver.receive(b"id: 1\ndata: a") == [Read(Silence.UNLEARNED)]
    assert place(driver.end()) is None
    driver.respond()
    assert driver.receive(b"\n\n") == [Read(Silence.UNLEARNED)]


def test_a_sleep_that_was_cut_short_goes_on() -> None:
    driver = Driver()
    driver.do()
    driver.machine.failed(OOPS, driver.now)
    assert isinstance(driver.next(), Notify)
    assert driver.next() == Sleep(3.0)
    driver.now += 1.0
    assert driver.next() == Sleep(2.0)
    driver.now += 2.0
    assert isinstance(driver.next(), Connect)


def test_asking_for_more_than_there_is_to_do_is_a_mistake() -> None:
    driver = Driver()
    driver.do()
    with pytest.raises(RuntimeError, match="expected a report on the request"):
        driver.next()


# The place.


def test_the_place_moves_when_the_loop_is_done_with_the_event() -> None:
    driver = Driver().open()
    driver.machine.received(b"id: 1\ndata: a\n\nid: 2\n\n", driver.now)
    assert driver.next() == Emit(ServerSentEvent("a", id="1"))
    assert driver.last_event_id() is None
    assert driver.machine.commit() == Save("1")
    assert driver.last_event_id() == "1"
    assert driver.machine.commit() is None
    assert driver.next() == Save("2")
    assert driver.last_event_id() == "2"


def test_an_event_with_the_same_id_needs_no_saving() -> None:
    driver = Driver(last_event_id="1").open()
    assert not any(isinstance(action, Save) for action in driver.receive(b"id: 1\ndata: a\n\ndata: b\n\n"))


def test_an_event_without_an_id_leaves_the_place() -> None:
    driver = Driver(last_event_id="7").open()
    driver.receive(b"data: a\n\n")
    assert place(driver.end()) == b"7"


@pytest.mark.parametrize(
    ("id", "header"),
    [
        ("7", b"7"),
        ("Ω-1", b"\xce\xa9-1"),
        ("日本", "日本".encode()),
        ("", None),
        (" a b ", b"a b"),
        (" ", None),
        ("a\x0bb", None),
        ("a\x0cb", None),
        ("\x1f\x7f", b"\x1f\x7f"),
        (None, None),
    ],
)
def test_the_header_is_the_place_in_utf_8(id: str | None, header: bytes | None) -> None:
    assert place(Driver(last_event_id=id).do()) == header


def test_an_empty_id_takes_the_header_away() -> None:
    driver = Driver(last_event_id="7").open()
    assert driver.receive(b"id\ndata: a\n\n")[:2] == [Emit(ServerSentEvent("a", id="")), Save("")]
    assert place(driver.end()) is None


def test_priming_moves_the_place_without_an_event() -> None:
    driver = Driver().open()
    assert driver.receive(b"id: e-9\nretry: 1000\n\n") == [Save("e-9"), Read(Silence.UNLEARNED)]
    actions = driver.end()
    assert slept(actions) == [1]
    assert place(actions) == b"e-9"


def test_repeated_events_are_dropped_after_a_resume() -> None:
    driver = Driver().open()
    driver.receive(b"id: e-1\ndata: a\n\nid: e-2\ndata: b\n\n")
    driver.end()
    driver.respond()
    actions = driver.receive(b"id: e-1\ndata: a\n\nid: e-2\ndata: b\n\nid: e-3\ndata: c\n\n")
    assert actions[:-1] == [Emit(ServerSentEvent("c", id="e-3")), Save("e-3")]
    assert driver.machine.statistics().duplicates == 2


def test_repeated_events_are_kept_if_the_user_wants_them() -> None:
    driver = Driver(last_event_id="e-1", deduplicate=False).open()
    assert driver.receive(b"id: e-1\ndata: a\n\n")[0] == Emit(ServerSentEvent("a", id="e-1"))


# Delays.


def test_failures_in_a_row_wait_longer_and_longer() -> None:
    driver = Driver()
    driver.do()
    assert [slept(driver.fail()) for _ in range(6)] == [[3], [6], [12], [24], [30], [30]]


def test_a_stable_minute_starts_the_delays_over() -> None:
    driver = Driver()
    driver.do()
    driver.fail()
    driver.fail()
    driver.respond()
    driver.now += STABLE - 1
    assert slept(driver.fail()) == [12]
    driver.respond()
    driver.now += STABLE
    assert slept(driver.fail()) == [3]


def test_a_clean_end_after_an_event_is_no_failure_and_one_without_is() -> None:
    driver = Driver().open()
    for _ in range(4):
        driver.receive(b"data: a\n\n")
        assert slept(driver.end()) == [3]
        driver.respond()
    delays = []
    for _ in range(3):
        delays += slept(driver.end())
        driver.respond()
    assert delays == [3, 6, 12]


def test_a_retry_is_kept_over_connections() -> None:
    driver = Driver().open()
    driver.receive(b"retry: 1000\n\n")
    assert slept(driver.fail()) == [1]
    driver.respond()
    driver.receive(b"retry: soon\n\n")
    assert slept(driver.fail()) == [2]
    driver.respond(503, {})
    driver.respond()
    driver.receive(b"retry: 2000\n\ndata: a\n\n")
    assert slept(driver.end()) == [2]


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(status: int) -> None:
    driver = Driver()
    driver.do()
    told, *rest = driver.respond(status, {"retry-after": "7"})
    assert isinstance(told, Notify)
    assert isinstance(told.notice, Reconnecting)
    assert told.notice[:3] == (f"status {status}", 7.0, 1)
    assert isinstance(told.notice.error, StatusError)
    assert (told.notice.error.status, told.notice.error.detail) == (status, "because")
    assert slept(rest) == [7]


# What ends it.


@pytest.mark.parametrize("status", [201, 205, 206, 300, 304, 305, 400, 401, 403, 404, 408, 410, 418, 451])
def test_what_will_not_pass_is_an_error(status: int) -> None:
    driver = Driver()
    driver.do()
    error = stopped(driver.respond(status))
    assert isinstance(error, StatusError)
    assert (error.status, error.url) == (status, "http://h/")
    assert str(error) == f"expected status 200 from http://h/, got {status}: because"


@pytest.mark.parametrize("content_type", ["", "text/html", "text/event-stream2", "application/json", "text/plain; x"])
def test_another_content_type_is_an_error(content_type: str) -> None:
    driver = Driver()
    driver.do()
    error = stopped(driver.respond(200, {"content-type": content_type} if content_type else {}))
    assert isinstance(error, ContentTypeError)
    assert error.content_type == content_type
    assert str(error) == f"expected content type 'text/event-stream' from http://h/, got {content_type!r}"


@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream", "text/event-stream ; charset=x"])
def test_parameters_and_case_of_the_content_type_do_not_matter(content_type: str) -> None:
    driver = Driver()
    driver.do()
    assert isinstance(driver.respond(200, {"content-type": content_type})[-1], Read)


def test_an_event_too_large_is_an_error_behind_what_came_before() -> None:
    driver = Driver(max_event_size=100).open()
    actions = driver.receive(b"id: 1\ndata: a\n\ndata: " + b"x" * 100 + b"\n\n")
    assert actions[:2] == [Emit(ServerSentEvent("a", id="1")), Save("1")]
    assert isinstance(stopped(actions), EventTooLargeError)


def test_closing_it() -> None:
    driver = Driver().open()
    driver.machine.received(b"data: a\n\n", driver.now)
    driver.machine.close()
    driver.machine.close()
    assert driver.state() is State.CLOSED
    assert driver.do() == [Notify(Closed(None)), Stop(None)]
    driver.machine.interrupted()
    assert driver.do() == [Stop(None)]


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int) -> None:
    driver = Driver()
    driver.do()
    assert driver.respond(status, {"location": "/x"}) == [Follow(Silence.UNLEARNED)]
    assert isinstance(driver.respond()[-1], Read)
    assert driver.machine.statistics().attempts == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("headers", [{}, {"location": ""}, {"location": "  "}])
def test_a_redirect_to_nowhere_is_an_error(status: int, headers: Mapping[str, str]) -> None:
    driver = Driver()
    driver.do()
    error = stopped(driver.respond(status, headers))
    assert isinstance(error, RedirectError)
    assert (error.status, error.location, error.redirects) == (status, "", 1)
    assert str(error) == f"expected a Location with status {status}, got none"


def test_too_many_redirects_are_an_error_and_each_attempt_counts_anew() -> None:
    driver = Driver(max_redirects=2)
    driver.do()
    for _ in range(3):
        driver.respond(302, {"location": "/x"})
        driver.respond(302, {"location": "/y"})
        assert isinstance(driver.fail()[-1], Connect)
    driver.respond(302, {"location": "/x"})
    driver.respond(302, {"location": "/y"})
    error = stopped(driver.respond(302, {"location": "/z"}))
    assert isinstance(error, RedirectError)
    assert (error.status, error.location, error.redirects) == (302, "/z", 3)
    assert str(error) == "expected at most 2 redirects in a row, got another one to '/z'"


# Giving up.


def test_no_limit_is_the_default() -> None:
    driver = Driver()
    driver.do()
    assert all(isinstance(driver.fail()[-1], Connect) for _ in range(1000))


def test_it_gives_up_after_so_many_attempts_without_an_event() -> None:
    driver = Driver(max_attempts=3)
    driver.do()
    driver.fail()
    driver.respond()
    driver.end()
    error = stopped(driver.fail())
    assert isinstance(error, GaveUpError)
    assert (error.attempts, error.seconds, error.reason) == (3, 9.0, "ConnectionError: oops")
    assert error.__cause__ is OOPS
    assert str(error) == "gave up after 3 attempts in 9.0 s, the last one: ConnectionError: oops"


def test_an_event_or_a_stable_minute_makes_good_for_failed_attempts() -> None:
    driver = Driver(max_attempts=2)
    driver.do()
    for data, seconds in ((b"data: a\n\n", 0.0), (b": beat\n\n", STABLE)) * 3:
        assert isinstance(driver.fail()[-1], Connect)
        driver.respond()
        driver.receive(data, after=seconds)
        assert isinstance(driver.fail()[-1], Connect)
    assert isinstance(stopped(driver.fail() and driver.fail()), GaveUpError)


def test_it_gives_up_before_a_wait_that_goes_beyond_the_time() -> None:
    driver = Driver(give_up_after=20.0)
    driver.do()
    assert slept(driver.fail()) == [3]
    assert slept(driver.fail()) == [6]
    driver.now += 1.0
    error = stopped(driver.fail())
    assert isinstance(error, GaveUpError)
    assert (error.attempts, error.seconds) == (3, 10.0)


def test_the_time_is_counted_from_the_last_good_connection() -> None:
    driver = Driver(give_up_after=20.0).open()
    driver.now += 10 * STABLE
    assert slept(driver.fail()) == [3]
    assert slept(driver.fail()) == [6]
    assert isinstance(stopped(driver.fail()), GaveUpError)


# Silence.


def test_the_deadline_for_silence_is_learned() -> None:
    driver = Driver().open()
    assert driver.receive(b": beat\n\n", after=20.0) == [Read(60.0)]
    assert driver.receive(b": beat\n\n", after=25.0) == [Read(75.0)]
    assert driver.machine.statistics().heartbeats == 2


def test_the_time_that_a_handler_takes_is_no_silence() -> None:
    driver = Driver().open()
    driver.machine.received(b": beat\n\ndata: a\n\n", driver.now)
    assert isinstance(driver.next(), Emit)
    driver.now += 1000.0
    assert driver.next() == Read(30.0)


def test_silence_is_a_lost_connection() -> None:
    driver = Driver(silence=7.0).open()
    driver.receive(b"id: 1\n\n")
    driver.machine.silent(driver.now)
    told, *rest = driver.do()
    assert isinstance(told, Notify)
    assert isinstance(told.notice, Reconnecting)
    assert told.notice.reason == "silence for 7 s"
    assert isinstance(told.notice.error, ClientError)
    assert str(told.notice.error) == "expected bytes within 7 s, got none"
    assert place(rest) == b"1"
    assert rest[-1] == Connect((("A", b"1"), ("Last-Event-ID", b"1")), 7.0)


def test_a_learned_deadline_that_was_broken_is_learned_again() -> None:
    driver = Driver().open()
    driver.receive(b": beat\n\n", after=10.0)
    driver.machine.silent(driver.now)
    assert driver.do()[-1] == Connect((("A", b"1"),), Silence.UNLEARNED)


# What is told.


GAP = b'id: f-3\nevent: stream:gap\ndata: {"reason":"reset","after":"e-9","resumed":"f-3"}\n\n'


def test_a_gap_is_told_and_moves_the_place() -> None:
    driver = Driver(last_event_id="e-9").open()
    told, *rest = driver.receive(GAP + b"id: f-4\ndata: a\n\n")
    assert isinstance(told, Notify)
    assert isinstance(told.notice, Gap)
    assert told.notice.reason == "reset"
    assert rest[:3] == [Save("f-3"), Emit(ServerSentEvent("a", id="f-4")), Save("f-4")]
    assert driver.machine.statistics()[3:6] == (1, 0, 1)


def test_a_gap_is_given_among_the_events_if_the_user_wants_it() -> None:
    driver = Driver(yield_gaps=True).open()
    told, emitted, saved, *_ = driver.receive(GAP)
    assert isinstance(told, Notify)
    assert emitted == Emit(told.notice)  # type: ignore[arg-type]
    assert saved == Save("f-3")


def test_an_error_of_the_stream_is_a_failed_connection() -> None:
    driver = Driver().open()
    actions = driver.receive(b"id: 1\ndata: a\n\nid: 2\nevent: stream:error\ndata: {}\n\nid: 3\ndata: b\n\n")
    assert actions[:2] == [Emit(ServerSentEvent("a", id="1")), Save("1")]
    assert isinstance(actions[2], Notify)
    assert isinstance(actions[2].notice, Reconnecting)
    assert actions[2].notice.reason == "expected events, got stream:error: {}"
    assert place(actions) == b"1"


def test_an_interruption_by_the_user_costs_no_wait() -> None:
    driver = Driver().open()
    driver.machine.interrupted()
    assert isinstance(driver.next(), Connect)
    driver.machine.interrupted()
    assert isinstance(driver.next(), Connect)
    assert driver.machine.statistics().reconnects == 0


# The policy.


@pytest.mark.parametrize(
    ("name", "value"),
    [
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
def test_a_limit_out_of_its_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"expected {name} to be"):
        Policy(**{name: value})  # type: ignore[arg-type]
