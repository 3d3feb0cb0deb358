"""Tickets: one use, on any process; signed URLs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from support.access import SECRET
from support.hub import settle
from tickertape.access import Tickets
from tickertape.errors import ForbiddenError, UnauthorizedError
from tickertape.hub import Grant, Hub
from tickertape.testing import FakeClock, ScriptedBroker

ALICE = Grant(user="alice", subscribe=("a/**",), publish=("b",), admin=False, until=5000.0)


@asynccontextmanager
async def two_nodes(clock: FakeClock) -> AsyncIterator[tuple[Tickets, Tickets]]:
    broker = ScriptedBroker()
    async with Hub(broker) as here, Hub(broker) as there:
        yield Tickets(SECRET, here, now=clock.time), Tickets(SECRET, there, now=clock.time)


async def test_one_use() -> None:
    """The ticket is good on any node, once: also at the same time, and after the log has dropped its record."""
    clock = FakeClock()
    async with two_nodes(clock) as (here, there):
        ticket = here.issue(ALICE, "a/*")
        verified = await there.redeem(ticket)
        assert verified.grant == Grant(user="alice", subscribe=("a/*",), until=5000.0)
        assert verified.issued == 1000.0
        for node in (here, there):
            with pytest.raises(UnauthorizedError, match="was used before"):
                await node.redeem(ticket)
        other = here.issue(ALICE, "a/*")
        results = await asyncio.gather(
            *(node.redeem(other) for node in (here, there, here, there)), return_exceptions=True
        )
        assert sum(not isinstance(result, BaseException) for result in results) == 1


async def test_dropped_record() -> None:
    clock = FakeClock()
    broker = ScriptedBroker()
    async with Hub(broker) as here, Hub(broker) as there:
        ticket = Tickets(SECRET, now=clock.time).issue(ALICE, "a/*")
        second = Tickets(SECRET, there, now=clock.time)
        await Tickets(SECRET, here, now=clock.time).redeem(ticket)
        await settle()  # the other hub has the record
        broker.trim(keep=0)
        with pytest.raises(UnauthorizedError, match="was used before"):
            await second.redeem(ticket)


async def test_expired() -> None:
    clock = FakeClock()
    async with two_nodes(clock) as (here, there):
        ticket = here.issue(ALICE, "a/*")
        clock.advance(29.9)
        late = here.issue(ALICE, "a/*")
        await there.redeem(ticket)
        clock.advance(30)
        with pytest.raises(UnauthorizedError, match="the ticket has expired"):
            await there.redeem(late)


async def test_forgotten_after_its_time() -> None:
    clock = FakeClock()
    async with two_nodes(clock) as (here, _):
        for _ in range(5):
            await here.redeem(here.issue(ALICE, "a/*"))
        clock.advance(31)
        await here.redeem(here.issue(ALICE, "a/*"))
        assert len(here._used) == 1


@pytest.mark.parametrize("topics", [["b"], ["a/*", "**"]])
def test_topics_beyond_the_grant(topics: list[str]) -> None:
    with pytest.raises(ForbiddenError):
        Tickets(SECRET).issue(ALICE, topics)


async def test_forged() -> None:
    clock = FakeClock()
    async with two_nodes(clock) as (here, _):
        ticket = here.issue(ALICE, "a/*")
        body, _, signature = ticket.partition(".")
        other = Tickets(b"another secret of thirty-two bytes or more", now=clock.time).issue(ALICE, "a/*")
        for text in (
            "",
            ".",
            body,
            f"{body}.",
            f"{body}.AAAA",
            f"A{ticket}",
            f"{signature}.{body}",
            other,
            "ü.ü",
            "a.*",
        ):
            with pytest.raises(UnauthorizedError, match="the ticket is invalid"):
                await here.redeem(text)
        await here.redeem(ticket)


async def test_signed_url() -> None:
    """The URL works again until it expires, and so long its streams last."""
    clock = FakeClock()
    async with two_nodes(clock) as (here, there):
        url = Tickets(SECRET, now=clock.time).sign_url(
            "https://hub.example/events?last=5", ["a/**", "b"], user="alice", valid=100
        )
        query = parse_qs(urlsplit(url).query)
        assert url.startswith("https://hub.example/events?last=5&topic=")
        assert query["topic"] == ["a/**", "b"]
        for node in (here, there, here):
            grant = (await node.redeem(query["ticket"][0])).grant
            assert grant == Grant(user="alice", subscribe=("a/**", "b"), until=1100.0)
        clock.advance(100)
        with pytest.raises(UnauthorizedError, match="has expired"):
            await here.redeem(query["ticket"][0])


def test_options() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes, got 5"):
        Tickets(b"short")
    for valid in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="valid"):
            Tickets(SECRET, valid=valid)


async def test_without_a_hub() -> None:
    tickets = Tickets(SECRET)
    with pytest.raises(UnauthorizedError, match="cannot be used here"):
        await tickets.redeem(tickets.issue(ALICE, "a/*"))
