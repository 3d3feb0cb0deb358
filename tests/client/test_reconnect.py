"""The state machine, without a network and without time."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tickertape import EventTooLargeError
from tickertape.client import Closed, End, Gap, Opened, Policy, ReceivedEvent, Reconnecting, State
from tickertape.client.inbox import Comment
from tickertape.client.policy import STABLE, Silence
from tickertape.client.reconnect import (
    MAX_ID_SIZE,
    Action,
    Connect,
    Emit,
    Follow,
    Notify,
    Read,
    Reconnector,
    Save,
    Sleep,
    Stop,
    Warn,
)
from tickertape.errors import ClientError, ContentTypeError, GaveUpError, RedirectError, StatusError

STREAM = {"content-type": "text/event-stream"}
OOPS = ConnectionError("oops")


class Driver:
    """A machine with a clock, and short forms of a shell's work."""

    def __init__(
        self,
        *,
        random: float = 1.0,
        last_event_id: str | None = None,
        renews: bool = False,
        until: Callable[[ReceivedEvent], bool] | None = None,
        mark: str | None = None,
        comments: bool = False,
        **policy: Any,
    ) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.machine = Reconnector(
            Policy(**policy),
            headers=[("A", b"1")],
            renews_credentials=renews,
            until=until,
            mark=mark,
            comments=comments,
            random=lambda: random,
        )
        self.machine.last_event_id = last_event_id

    # Methods, because a type checker assumes that a call leaves attributes unchanged.

    def state(self) -> State:
        return self.machine.state

    def last_event_id(self) -> str | None:
        return self.machine.last_event_id

    def next(self) -> Action:
        return self.machine.next(self.now)

    def do(self) -> list[Action]:
        """Return the actions up to one that waits. Commit emitted events, and let sleeps pass."""
        actions = []
        self.slept = []
        while True:
            action = self.next()
            actions.append(action)
            if isinstance(action, Emit) and (save := self.machine.commit()):
                actions.append(save)
            elif isinstance(action, Sleep):
                self.slept.append(action.until - self.now)
                self.now = action.until
            elif isinstance(action, (Connect, Follow, Read, Stop)):
                return actions

    def respond(
        self, status: int = 200, headers: Mapping[str, str] = STREAM, target: str = "http://h/x"
    ) -> list[Action]:
        self.machine.responded(
            status, headers, now=self.now, wall=0.0, url="http://h/", target=target, detail="because"
        )
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


def sent_id(actions: list[Action]) -> bytes | None:
    """The ``Last-Event-ID`` of the request at the end."""
    assert isinstance(actions[-1], Connect)
    return dict(actions[-1].headers).get("Last-Event-ID")


def stopped(actions: list[Action]) -> Exception | None:
    """The error of a stop, which was also in the notice before it."""
    closed, stop = actions[-2:]
    assert isinstance(stop, Stop)
    assert closed == Notify(Closed(stop.error))
    return stop.error


# The life of a stream.


def test_life_of_a_stream() -> None:
    driver = Driver()
    assert driver.state() is State.CONNECTING
    assert driver.do() == [Connect((("A", b"1"),), Silence.UNLEARNED)]
    assert driver.respond() == [Notify(Opened("http://h/", STREAM, 1)), Read(Silence.UNLEARNED)]
    assert driver.state() is State.OPEN
    one, two = ReceivedEvent("a", id="1"), ReceivedEvent("b", id="2")
    assert driver.receive(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n") == [
        Emit(one),
        Save("1"),
        Emit(two),
        Save("2"),
        Read(Silence.UNLEARNED),
    ]
    assert driver.end() == [
        Notify(Reconnecting("the stream ended", 3.0, 0, None)),
        Sleep(1003.0),
        Connect((("A", b"1"), ("Last-Event-ID", b"2")), Silence.UNLEARNED),
    ]
    assert driver.state() is State.CONNECTING
    assert driver.respond(204) == [Notify(Closed(None)), Stop(None)]
    assert driver.state() is State.CLOSED
    assert driver.do() == [Stop(None)]
    assert driver.machine.statistics() == (2, 1, 1, 2, 0, 0, 0)


def test_half_event() -> None:
    driver = Driver().open()
    assert driver.receive(b"id: 1\ndata: a") == [Read(Silence.UNLEARNED)]
    assert sent_id(driver.end()) is None
    driver.respond()
    assert driver.receive(b"\n\n") == [Read(Silence.UNLEARNED)]


def test_interrupted_sleep() -> None:
    driver = Driver()
    driver.do()
    driver.machine.failed(OOPS, driver.now)
    assert isinstance(driver.next(), Notify)
    assert driver.next() == Sleep(1003.0)
    driver.now += 1.0
    assert driver.next() == Sleep(1003.0)
    driver.now += 2.0
    assert isinstance(driver.next(), Connect)


def test_next_without_report() -> None:
    driver = Driver()
    driver.do()
    with pytest.raises(RuntimeError, match="before the result of the request was reported"):
        driver.next()


# The last event id.


def test_commit() -> None:
    driver = Driver().open()
    driver.machine.received(b"id: 1\ndata: a\n\nid: 2\n\n", driver.now)
    assert driver.next() == Emit(ReceivedEvent("a", id="1"))
    assert driver.last_event_id() is None
    assert driver.machine.commit() == Save("1")
    assert driver.last_event_id() == "1"
    assert driver.machine.commit() is None
    assert driver.next() == Save("2")
    assert driver.last_event_id() == "2"


def test_same_id() -> None:
    driver = Driver(last_event_id="1").open()
    assert not any(isinstance(action, Save) for action in driver.receive(b"id: 1\ndata: a\n\ndata: b\n\n"))


def test_event_without_id() -> None:
    driver = Driver(last_event_id="7").open()
    driver.receive(b"data: a\n\n")
    assert sent_id(driver.end()) == b"7"


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
def test_last_event_id_header(id: str | None, header: bytes | None) -> None:
    assert sent_id(Driver(last_event_id=id).do()) == header


def test_empty_id() -> None:
    driver = Driver(last_event_id="7").open()
    assert driver.receive(b"id\ndata: a\n\n")[:2] == [Emit(ReceivedEvent("a", id="")), Save("")]
    assert sent_id(driver.end()) is None


def test_priming_block() -> None:
    driver = Driver().open()
    assert driver.receive(b"id: e-9\nretry: 1000\n\n") == [Save("e-9"), Read(Silence.UNLEARNED)]
    actions = driver.end()
    assert driver.slept == [1]
    assert sent_id(actions) == b"e-9"


def test_repeated_events() -> None:
    driver = Driver().open()
    driver.receive(b"id: e-1\ndata: a\n\nid: e-2\ndata: b\n\n")
    driver.end()
    driver.respond()
    actions = driver.receive(b"id: e-2\n\nid: e-1\ndata: a\n\nid: e-2\ndata: b\n\nid: e-3\ndata: c\n\n")
    assert actions[:-1] == [Emit(ReceivedEvent("c", id="e-3")), Save("e-3")]
    assert driver.machine.statistics().duplicates == 2


def test_keep_repeated_events() -> None:
    driver = Driver(last_event_id="e-1", deduplicate=False).open()
    assert driver.receive(b"id: e-1\n\nid: e-1\ndata: a\n\n")[0] == Emit(ReceivedEvent("a", id="e-1"))


# Delays.


def test_delays_grow() -> None:
    driver = Driver()
    driver.do()
    assert [driver.fail() and driver.slept for _ in range(6)] == [[3], [6], [12], [24], [30], [30]]


def test_stable_connection_resets_delays() -> None:
    driver = Driver()
    driver.do()
    driver.fail()
    driver.fail()
    driver.respond()
    driver.now += STABLE - 1
    driver.fail()
    assert driver.slept == [12]
    driver.respond()
    driver.now += STABLE
    driver.fail()
    assert driver.slept == [3]


def test_clean_end() -> None:
    driver = Driver().open()
    for _ in range(4):
        driver.receive(b"data: a\n\n")
        driver.end()
        assert driver.slept == [3]
        driver.respond()
    delays = []
    for _ in range(3):
        driver.end()
        delays += driver.slept
        driver.respond()
    assert delays == [3, 6, 12]


EXPIRED = b'event: stream:expired\ndata: {"reason": "expired"}\n\n'


@pytest.mark.parametrize(("renews", "reconnect"), [(True, "always"), (True, "errors"), (False, "always")])
def test_expired_credentials(renews: bool, reconnect: str) -> None:
    """The notice is not an event; the next attempt brings other credentials and resumes after the last event."""
    driver = Driver(renews=renews, reconnect=reconnect).open()
    actions = driver.receive(b"id: 7\ndata: x\n\n" + EXPIRED)
    assert [action.event.data for action in actions if isinstance(action, Emit)] == ["x"]
    actions = driver.end()
    connect = actions[-1]
    assert isinstance(connect, Connect)
    assert connect.refused is renews
    assert sent_id(actions) == b"7"
    assert isinstance(stopped(driver.respond(401)), StatusError)


def test_expired_credentials_without_reconnect() -> None:
    driver = Driver(renews=True, reconnect="never").open()
    driver.receive(EXPIRED)
    assert stopped(driver.end()) is None


def test_end_of_the_topic() -> None:
    """The stream stops at the end, without another request, and is resumed from there by a later run."""
    driver = Driver()
    driver.do()
    driver.machine.responded(200, STREAM, now=driver.now, wall=0.0)
    driver.machine.received(
        b"id: e-1\ndata: x\n\nid: e-2\nevent: stream:topic-end\ndata: {}\n\n"
        b'id: e-3\nevent: stream:end\ndata: {"reason":"done"}\n\n',
        driver.now,
    )
    actions = driver.do()
    emitted = [action.event for action in actions if isinstance(action, Emit)]
    assert [event.event for event in emitted] == [None, "stream:topic-end"]
    assert isinstance(emitted[1], End)
    end = driver.machine.end
    assert end is not None
    assert end.reason == "done"
    assert actions[-3:] == [Save("e-3"), Notify(Closed(None, end)), Stop(None)]
    assert driver.last_event_id() == "e-3"
    assert driver.state() is State.CLOSED


def test_retry_is_kept() -> None:
    driver = Driver().open()
    driver.receive(b"retry: 1000\n\n")
    driver.fail()
    assert driver.slept == [1]
    driver.respond()
    driver.receive(b"retry: soon\n\n")
    driver.fail()
    assert driver.slept == [2]
    driver.respond(503, {})
    driver.respond()
    driver.receive(b"retry: 2000\n\ndata: a\n\n")
    driver.end()
    assert driver.slept == [2]


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 599])
def test_transient_status(status: int) -> None:
    driver = Driver()
    driver.do()
    notify, *_ = driver.respond(status, {"retry-after": "7"})
    assert isinstance(notify, Notify)
    assert isinstance(notify.notice, Reconnecting)
    assert notify.notice[:3] == (f"status {status}", 7.0, 1)
    assert isinstance(notify.notice.error, StatusError)
    assert (notify.notice.error.status, notify.notice.error.detail) == (status, "because")
    assert driver.slept == [7]


# Final errors.


@pytest.mark.parametrize("status", [201, 205, 206, 300, 304, 305, 400, 401, 403, 404, 408, 410, 418, 451])
def test_final_status(status: int) -> None:
    driver = Driver()
    driver.do()
    error = stopped(driver.respond(status))
    assert isinstance(error, StatusError)
    assert (error.status, error.url) == (status, "http://h/")
    assert str(error) == f"expected status 200 from http://h/, got {status}: because"


@pytest.mark.parametrize("content_type", ["", "text/html", "text/event-stream2", "application/json", "text/plain; x"])
def test_other_content_type(content_type: str) -> None:
    driver = Driver()
    driver.do()
    error = stopped(driver.respond(200, {"content-type": content_type} if content_type else {}))
    assert isinstance(error, ContentTypeError)
    assert error.content_type == content_type
    assert str(error) == f"expected content type 'text/event-stream' from http://h/, got {content_type!r}"


@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream", "text/event-stream ; charset=x"])
def test_content_type_variants(content_type: str) -> None:
    driver = Driver()
    driver.do()
    assert isinstance(driver.respond(200, {"content-type": content_type})[-1], Read)


def test_event_too_large() -> None:
    driver = Driver(max_event_size=100).open()
    actions = driver.receive(b"id: 1\ndata: a\n\ndata: " + b"x" * 100 + b"\n\n")
    assert actions[:2] == [Emit(ReceivedEvent("a", id="1")), Save("1")]
    assert isinstance(stopped(actions), EventTooLargeError)


def test_close() -> None:
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
def test_redirect(status: int) -> None:
    driver = Driver()
    driver.do()
    assert driver.respond(status, {"location": "/x"}) == [Follow(Silence.UNLEARNED)]
    assert isinstance(driver.respond()[-1], Read)
    assert driver.machine.statistics().attempts == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("headers", [{}, {"location": ""}, {"location": "  "}])
def test_redirect_without_location(status: int, headers: Mapping[str, str]) -> None:
    driver = Driver()
    driver.do()
    error = stopped(driver.respond(status, headers, target=""))
    assert isinstance(error, RedirectError)
    assert (error.status, error.location, error.redirects) == (status, "", 1)
    assert str(error) == f"the redirect with status {status} has no Location"


def test_too_many_redirects() -> None:
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
    assert str(error) == "more than 2 redirects in a row, the last one to '/z'"


# Giving up.


def test_no_limit_by_default() -> None:
    driver = Driver()
    driver.do()
    assert all(isinstance(driver.fail()[-1], Connect) for _ in range(1000))


def test_max_attempts() -> None:
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


def test_success_resets_attempts() -> None:
    driver = Driver(max_attempts=2)
    driver.do()
    for data, seconds in ((b"data: a\n\n", 0.0), (b": beat\n\n", STABLE)) * 3:
        assert isinstance(driver.fail()[-1], Connect)
        driver.respond()
        driver.receive(data, after=seconds)
        assert isinstance(driver.fail()[-1], Connect)
    assert isinstance(stopped(driver.fail() and driver.fail()), GaveUpError)


def test_give_up_after() -> None:
    driver = Driver(give_up_after=20.0)
    driver.do()
    driver.fail()
    assert driver.slept == [3]
    driver.fail()
    assert driver.slept == [6]
    driver.now += 1.0
    error = stopped(driver.fail())
    assert isinstance(error, GaveUpError)
    assert (error.attempts, error.seconds) == (3, 10.0)


def test_give_up_after_last_success() -> None:
    driver = Driver(give_up_after=20.0).open()
    driver.now += 10 * STABLE
    driver.fail()
    assert driver.slept == [3]
    driver.fail()
    assert driver.slept == [6]
    assert isinstance(stopped(driver.fail()), GaveUpError)


# Silence.


def test_learned_silence() -> None:
    driver = Driver().open()
    assert driver.receive(b": beat\n\n", after=20.0) == [Read(60.0)]
    assert driver.receive(b": beat\n\n", after=25.0) == [Read(75.0)]
    assert driver.machine.statistics().heartbeats == 2


def test_slow_handler_is_no_silence() -> None:
    driver = Driver().open()
    driver.machine.received(b": beat\n\ndata: a\n\n", driver.now)
    assert isinstance(driver.next(), Emit)
    driver.now += 1000.0
    assert driver.next() == Read(30.0)


def test_silence() -> None:
    driver = Driver(silence=7.0).open()
    driver.receive(b"id: 1\n\n")
    driver.machine.silent(driver.now)
    notify, *rest = driver.do()
    assert isinstance(notify, Notify)
    assert isinstance(notify.notice, Reconnecting)
    assert notify.notice.reason == "no bytes for 7 s"
    assert isinstance(notify.notice.error, ClientError)
    assert str(notify.notice.error) == "no bytes for 7 s"
    assert sent_id(rest) == b"1"
    assert rest[-1] == Connect((("A", b"1"), ("Last-Event-ID", b"1")), 7.0)


def test_silence_is_learned_again() -> None:
    driver = Driver().open()
    driver.receive(b": beat\n\n", after=10.0)
    driver.machine.silent(driver.now)
    assert driver.do()[-1] == Connect((("A", b"1"),), Silence.UNLEARNED)


# Notices.


GAP = b'id: f-3\nevent: stream:gap\ndata: {"reason":"reset","after":"e-9","resumed":"f-3"}\n\n'


def test_gap() -> None:
    driver = Driver(last_event_id="e-9").open()
    notify, *rest = driver.receive(GAP + b"id: f-4\ndata: a\n\n")
    assert isinstance(notify, Notify)
    assert isinstance(notify.notice, Gap)
    assert notify.notice.reason == "reset"
    assert rest[:3] == [Save("f-3"), Emit(ReceivedEvent("a", id="f-4")), Save("f-4")]
    assert driver.machine.statistics()[3:6] == (1, 0, 1)


def test_yield_gaps() -> None:
    driver = Driver(yield_gaps=True).open()
    notify, emitted, saved, *_ = driver.receive(GAP)
    assert isinstance(notify, Notify)
    assert emitted == Emit(notify.notice)  # type: ignore[arg-type]
    assert saved == Save("f-3")


def test_stream_error() -> None:
    driver = Driver().open()
    actions = driver.receive(b"id: 1\ndata: a\n\nid: 2\nevent: stream:error\ndata: {}\n\nid: 3\ndata: b\n\n")
    assert actions[:2] == [Emit(ReceivedEvent("a", id="1")), Save("1")]
    assert isinstance(actions[2], Notify)
    assert isinstance(actions[2].notice, Reconnecting)
    assert actions[2].notice.reason == "the stream failed on the server: {}"
    assert sent_id(actions) == b"1"


def test_interruption() -> None:
    driver = Driver().open()
    driver.machine.interrupted()
    assert isinstance(driver.next(), Connect)
    driver.machine.interrupted()
    assert isinstance(driver.next(), Connect)
    assert driver.machine.statistics().reconnects == 0


# Ids that are too long.


@pytest.mark.parametrize(
    ("id", "is_kept"),
    [
        ("x" * MAX_ID_SIZE, True),
        ("x" * (MAX_ID_SIZE + 1), False),
        ("é" * (MAX_ID_SIZE // 2), True),
        ("é" * 2049, False),
    ],
)
@pytest.mark.parametrize("data", ["data: a\n", ""])
def test_long_id(id: str, is_kept: bool, data: str) -> None:
    driver = Driver(last_event_id="1").open()
    actions = driver.receive(f"id: {id}\n{data}\n".encode())
    assert (Save(id) in actions) is is_kept
    assert len([action for action in actions if isinstance(action, Warn)]) == (not is_kept)
    assert sent_id(driver.end()) == (id.encode() if is_kept else b"1")


# When to reconnect.


def test_reconnect_after_errors_only() -> None:
    driver = Driver(reconnect="errors").open()
    assert isinstance(driver.fail()[-1], Connect)
    driver.respond(503, {})
    driver.respond()
    assert driver.end() == [Notify(Closed(None)), Stop(None)]


def test_never_reconnect() -> None:
    driver = Driver(reconnect="never").open()
    error = stopped(driver.fail())
    assert isinstance(error, GaveUpError)
    assert (error.attempts, error.__cause__) == (1, OOPS)
    assert Driver(reconnect="never").open().end() == [Notify(Closed(None)), Stop(None)]


def test_renewed_credentials() -> None:
    driver = Driver(renews=True).open()
    for _ in range(2):
        driver.end()
        notify, connect = driver.respond(401)
        assert isinstance(notify, Notify)
        assert isinstance(notify.notice, Reconnecting)
        assert (notify.notice.reason, notify.notice.delay) == ("status 401", 0.0)
        assert isinstance(connect, Connect)
        driver.respond()
    driver.end()
    driver.respond(401)
    assert isinstance(stopped(driver.respond(401)), StatusError)


@pytest.mark.parametrize("renews", [True, False])
def test_first_credentials_are_not_renewed(renews: bool) -> None:
    driver = Driver(renews=renews)
    driver.do()
    assert isinstance(stopped(driver.respond(401)), StatusError)


@pytest.mark.parametrize("target", ["", "ftp://h/", "file:///x", "data:,x", "httpx://h/"])
def test_redirect_to_other_scheme(target: str) -> None:
    driver = Driver()
    driver.do()
    error = stopped(driver.respond(302, {"location": "somewhere"}, target=target))
    assert isinstance(error, RedirectError)
    assert str(error) == "cannot follow the redirect to 'somewhere': it is not an http or https URL"
    assert pickle.loads(pickle.dumps(error)).args == error.args


# Driven from outside.


@pytest.mark.parametrize("comments", [True, False])
def test_comments_in_their_place(comments: bool) -> None:
    driver = Driver(comments=comments).open()
    actions = driver.receive(b": one\ndata: a\n\n: two\n")
    notices = [action.notice for action in actions if isinstance(action, Notify)]
    assert notices == ([Comment("one"), Comment("two")] if comments else [])
    assert driver.machine.statistics().heartbeats == 2


@pytest.mark.parametrize(
    ("options", "data"),
    [({"until": lambda event: event.type == "done"}, ["a", "[DONE]"]), ({"mark": "[DONE]"}, ["a"])],
    ids=["function", "mark"],
)
def test_until(options: Any, data: list[str]) -> None:
    driver = Driver(**options).open()
    actions = driver.receive(b"data: a\n\nid: 7\nevent: done\ndata: [DONE]\n\ndata: after\n\n")
    assert [action.event.data for action in actions if isinstance(action, Emit)] == data
    assert stopped(actions) is None
    assert driver.last_event_id() == "7"
    assert driver.do() == [Stop(None)]


def test_until_that_raises_keeps_the_event() -> None:
    def until(event: ReceivedEvent) -> bool:
        raise ZeroDivisionError

    driver = Driver(until=until).open()
    driver.machine.received(b"data: a\n\n", driver.now)
    with pytest.raises(ZeroDivisionError):
        driver.next()
    assert driver.next() == Emit(ReceivedEvent("a"))


def test_restart_resumes_at_once() -> None:
    driver = Driver().open()
    driver.receive(b"id: 1\ndata: a\n\n")
    driver.machine.received(b"id: 2\ndata: b\n\n", driver.now)  # not emitted, so it is asked for again
    driver.machine.restart(driver.now, "restart() was called")
    actions = driver.do()
    assert actions[0] == Notify(Reconnecting("restart() was called", 0.0, 0, None))
    assert sent_id(actions) == b"1"
    assert driver.slept in ([], [driver.now])
    assert driver.machine.statistics().reconnects == 1


def test_restart_ends_the_wait_for_an_attempt() -> None:
    driver = Driver(retry=100.0, max_delay=1000.0).open()
    driver.machine.failed(OOPS, driver.now)
    driver.next()
    then = driver.now
    driver.machine.restart(driver.now, "restart() was called")
    assert isinstance(driver.do()[-1], Connect)
    assert driver.now == then


def test_restart_without_effect() -> None:
    driver = Driver()
    driver.machine.restart(driver.now, "restart() was called")
    assert driver.do() == [Connect((("A", b"1"),), Silence.UNLEARNED)]
    driver.respond(204)
    driver.machine.restart(driver.now, "restart() was called")
    assert driver.do() == [Stop(None)]
