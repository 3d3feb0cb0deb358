"""``postgres_listen``: notifications of PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from ..broker.options import extra_needed, read_seconds
from ..broker.remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT
from ..errors import BrokerError

__all__ = ["PostgresNotifications", "postgres_listen"]

_LOOK: Final = 10.0
"""Seconds of silence after which the server is asked whether it is still there."""

_MAX_CHANNEL: Final = 63
"""Bytes of an identifier in PostgreSQL."""


def postgres_listen(url: str, channel: str) -> PostgresNotifications:
    """Return a source of what is notified on a channel of PostgreSQL, over a connection of its own.

    What is notified while nobody listens is gone: PostgreSQL keeps nothing for those who come
    later. So it serves best as the ``wake`` of :func:`poll`, which finds what there is, and
    asks more often while the connection is lost::

        poll(new_rows, every=30, wake=postgres_listen(url, "orders"), …)

    with a trigger on the table that calls ``pg_notify('orders', '')``. As a source by itself it gives
    the payloads as text; they have no key (``hub.feed(…, key=None)``).

    LISTEN needs a session: connect to PostgreSQL itself, not to a pooler in transaction mode.

    Arguments:
        url: ``postgresql://[user[:password]@]host[:port]/database`` with libpq's options, and
            ``?timeout=`` and ``?connect_timeout=`` in seconds; that of a hub's log will do.
        channel: its name, exactly as ``pg_notify`` has it. (``NOTIFY Orders`` without quotes is ``orders``.)

    Raises:
        BrokerError: the URL is wrong, or psycopg is missing: ``pip install 'tickertape[postgres]'``.
        ValueError: the channel is no identifier of PostgreSQL.
    """
    with extra_needed("psycopg", "postgres"):
        from ..broker.postgres.link import Link, parse_url
    if not 0 < len(channel.encode()) <= _MAX_CHANNEL or "\0" in channel:
        raise ValueError(f"expected a channel of 1 to {_MAX_CHANNEL} bytes, got {channel!r}")
    conninfo, options, where = parse_url(url, ("schema", "failover", "connect_timeout", "timeout"))
    connect_timeout = read_seconds(options, "connect_timeout", DEFAULT_CONNECT_TIMEOUT)
    timeout = read_seconds(options, "timeout", DEFAULT_TIMEOUT)
    return PostgresNotifications(lambda: Link(conninfo, where, connect_timeout, timeout), channel, where, timeout)


class PostgresNotifications:
    """A source of payloads, and what wakes a poll; made by :func:`postgres_listen`.

    A connection that is lost raises ``BrokerError``: whoever reads this listens anew then, as feeds
    and polls do.
    """

    def __init__(self, connect: Any, channel: str, where: str, timeout: float) -> None:
        self._connect = connect
        self._channel = channel
        self._where = where
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<PostgresNotifications {self._where} {self._channel!r}>"

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        async with aclosing(self._listen()) as heard:
            async for payloads in heard:
                for payload in payloads:
                    yield payload

    async def wakes(self) -> AsyncGenerator[object, None]:
        """Give something as soon as notifications would be heard, and at each of them."""
        async with aclosing(self._listen()) as heard:
            async for payloads in heard:
                yield payloads

    async def _listen(self) -> AsyncGenerator[list[str], None]:
        """Give an empty list when it listens, then the payloads that come."""
        link = self._connect()
        quoted = self._channel.replace('"', '""')
        try:
            await self._answered(link, f'LISTEN "{quoted}"')
            yield []
            while True:
                payloads: list[str] = await link.payloads(_LOOK)
                if payloads:
                    yield payloads
                else:
                    await self._answered(link, "SELECT 1")
        finally:
            await link.close()

    async def _answered(self, link: Any, statement: str) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await link.fetch(statement.encode())
        except TimeoutError:
            said = f"expected an answer of {self._where} within {self._timeout:g} s, got none while listening"
            raise BrokerError(said) from None
