"""Token buckets, the counts of a guard, and the names of clients."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import Any

import pytest

from support.http import site
from tickertape.hub import Grant
from tickertape.server import limits
from tickertape.server.limits import USER, Guard, LimitCounts, Limits, TokenBucket, client_name, is_in, who
from tickertape.server.problems import Problem


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rate", "taken", "seconds"),
    [
        (10.0, 9, 0.0),
        (10.0, 10, 0.1),
        (10.0, 25, 1.6),  # a batch may exceed the level; the debt is paid off by waiting
        (0.5, 1, 2.0),
        (1000.0, 1000, 0.001),
    ],
)
def test_token_bucket(rate: float, taken: int, seconds: float) -> None:
    bucket = TokenBucket(rate, 0.0)
    assert bucket.wait(0.0) == 0.0
    bucket.take(taken, 0.0)
    assert bucket.wait(0.0) == pytest.approx(seconds)
    assert bucket.wait(seconds + 0.001) == 0.0
    assert not bucket.is_full(0.0)
    assert bucket.is_full(100.0)


def refusal(guard: Guard, client: str) -> Problem | None:
    try:
        guard.check_publisher(client)
    except Problem as problem:
        return problem
    return None


@pytest.mark.parametrize("name", ["publish_rate", "client_publish_rate", "publish_bytes", "client_publish_bytes"])
def test_rates_of_publishing(name: str) -> None:
    clock = Clock()
    values: dict[str, Any] = {name: 10}
    guard = Guard(Limits(**values), clock)
    assert refusal(guard, "a") is None
    guard.published("a", events=40 if "rate" in name else 1, size=40)
    problem = refusal(guard, "a")
    assert problem is not None
    assert (problem.status, problem.headers) == (HTTPStatus.TOO_MANY_REQUESTS, [(b"retry-after", b"4")])
    assert (refusal(guard, "b") is None) is name.startswith("client")
    clock.now += 3.2
    assert refusal(guard, "a") is None
    assert sum(guard.statistics()) >= 1


def test_rate_of_streams() -> None:
    clock = Clock()
    guard = Guard(Limits(client_stream_rate=2), clock)
    for _ in range(2):
        assert guard.may_stream("a", 0)
        guard.open_stream("a", 0)
    assert not guard.may_stream("a", 0)
    with pytest.raises(Problem) as caught:
        guard.open_stream("a", 0)
    assert caught.value.status == HTTPStatus.TOO_MANY_REQUESTS
    assert guard.may_stream("b", 0)
    clock.now += 0.5
    guard.open_stream("a", 0)
    assert guard.statistics() == LimitCounts(stream_rate=1)


def test_number_of_streams() -> None:
    guard = Guard(Limits(max_streams=3, client_streams=2), Clock())
    closers = [guard.open_stream("a", number) for number in range(2)]
    for client, streams in (("a", 2), ("b", 3)):
        with pytest.raises(Problem):
            guard.open_stream(client, streams)
    assert closers[0] is not None
    closers[0]()
    closers[0]()  # does nothing
    assert guard.may_stream("a", 1)
    guard.open_stream("a", 1)
    assert not guard.may_stream("a", 2)


def test_clients_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buckets of invented clients take no more memory than those of the last few."""
    monkeypatch.setattr(limits, "_MAX_CLIENTS", 10)
    clock = Clock()
    guard = Guard(Limits(client_publish_rate=1), clock)
    for number in range(100):
        guard.published(f"client {number}", 50, 0)
        clock.now += 0.1
    assert refusal(guard, "client 99") is not None
    assert refusal(guard, "client 1") is None
    assert len(guard._publish_rate._clients) == 10


def test_memory_of_bodies() -> None:
    """One client gets a quarter, and all together the whole; small bodies always fit."""
    guard = Guard(Limits(max_body_memory=4_000_000), Clock())
    first, second, other = ({"client": (name, 1)} for name in "aab")
    guard.receive(first, 900_000)
    guard.receive(first, 1_000_000)
    with pytest.raises(Problem):
        guard.receive(first, 1_000_001)
    guard.receive(second, 64 * 1024)
    with pytest.raises(Problem):
        guard.receive(second, 70_000)
    guard.receive(other, 1_000_000)
    guard.release(first)
    guard.release(first)  # does nothing
    guard.receive(second, 1_000_000)
    guard.release(second)
    guard.release(other)
    assert guard._body_bytes == Counter()
    assert guard.statistics().body_memory == 2


class Reader:
    """A connection with an answer of which some bytes are unread."""

    received = 0

    def __init__(self, address: str, unread: int) -> None:
        self.address = address
        self.unread = unread
        self.late: list[str] = []

    def overdue(self, limit: str) -> None:
        self.late.append(limit)


def answers(guard: Guard, client: str, size: int) -> bool:
    try:
        guard.check_answer(client, size)
    except Problem as problem:
        return (problem.status, problem.limit) != (HTTPStatus.SERVICE_UNAVAILABLE, "answer_memory")
    return True


async def test_memory_of_answers() -> None:
    """One client gets a quarter, and all together the whole. A small answer, and the only one, are always sent."""
    guard = Guard(Limits(max_answer_memory=4_000_000), Clock())
    assert answers(guard, "a", 9_000_000)
    first, second, other = Reader("a", 500_000), Reader("a", 400_000), Reader("b", 2_900_000)
    for reader in (first, second, Reader("c", 0)):
        guard.watch_answer(reader)
    assert answers(guard, "a", 100_000)
    assert not answers(guard, "a", 100_001)
    assert answers(guard, "a", 64 * 1024)
    assert answers(guard, "b", 3_000_000)
    guard.watch_answer(other)
    assert answers(guard, "c", 200_000)
    assert not answers(guard, "c", 200_001)
    first.unread = 1
    assert answers(guard, "a", 500_000)
    guard.forget_answer(other)
    guard.forget_answer(other)  # does nothing
    assert answers(guard, "c", 3_000_000)


@pytest.mark.parametrize(
    ("rate", "read", "late"),
    [
        (1000, [0, 0, 0], 3),
        (1000, [1, 1, 1], 4),
        (1000, [500, 500, 500, 500, 500, 500], 6),  # half of the least rate gains half of the time
        (1000, [1000] * 9, None),
        (None, [1000] * 9, 3),
        (1000, [10_000], None),  # everything
    ],
)
async def test_time_of_answers(rate: int | None, read: list[int], late: int | None) -> None:
    """An answer has three seconds, and those in which its bytes come at the least rate."""
    clock = Clock()
    guard = Guard(Limits(send_timeout=3.0, body_rate=rate), clock)
    reader = Reader("a", 10_000)
    guard.watch_answer(reader)
    found = None
    for second, size in enumerate([*read, 0, 0], 1):
        clock.now += 1
        reader.unread -= size
        guard._check()
        if reader.late and found is None:
            found = second
    assert found == late
    assert guard.statistics() == LimitCounts(send_timeout=0 if late is None else 1)


@pytest.mark.parametrize(
    ("scope", "client"),
    [
        ({"client": ("192.0.2.1", 5)}, "192.0.2.1"),
        ({"client": ("2001:db8:1:2:3::4", 5)}, "2001:db8:1:2::/64"),
        ({"client": ("::ffff:192.0.2.1", 5)}, "192.0.2.1"),
        ({"client": ("fe80::1%eth0", 5)}, "fe80::/64"),
        ({"client": ("testclient", 5)}, "testclient"),
        ({"client": None}, ""),
        ({"client": ("192.0.2.1", 5), USER: "ann"}, "user ann"),
    ],
)
def test_who(scope: dict[str, Any], client: str) -> None:
    assert who(scope) == client


@pytest.mark.parametrize(
    ("address", "networks", "expected"),
    [
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("11.1.2.3", ("10.0.0.0/8", "::/0"), False),
        ("127.0.0.1", ("127.0.0.1",), True),
        ("2001:db8::1", ("2001:db8::/32",), True),
        ("2001:db8::1", ("2001:db8::1",), True),
        ("", ("0.0.0.0/0",), False),
        ("10.1.2.3", (), False),
    ],
)
def test_networks(address: str, networks: tuple[str, ...], expected: bool) -> None:
    assert is_in(client_name(address), networks) is expected


async def test_each_user_has_a_quota() -> None:
    """Users at one address do not share theirs."""

    async def access(request: Any) -> Grant:
        return Grant(publish=("**",), subscribe=("**",), user=dict(request.scope["headers"])[b"x-user"].decode())

    guard = Guard(Limits(client_publish_rate=1, client_stream_rate=1), Clock())
    async with site(guard=guard, access=access) as at:
        for user, status in (("ann", 201), ("ann", 429), ("bob", 201)):
            assert (await at.ask("POST", "/events/a", b"x", {"x-user": user})).status == status
        for user, status in (("ann", 200), ("ann", 429), ("bob", 200)):
            assert (await at.ask("HEAD", "/events?topic=a", headers={"x-user": user})).status == status
