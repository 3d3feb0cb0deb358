"""``postgres_listen``: notifications of PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ..broker import extra_needed


def postgres_listen(url: str, channel: str) -> PostgresNotifications:
    """Return a source of the notifications on a channel of PostgreSQL, over a separate connection.

    PostgreSQL keeps no notifications: those sent while no session listens are lost. So a source is most useful as the
    ``wake`` of :class:`Poll`, which reads the rows, and polls more often while the connection is lost::

        Poll(new_rows, every=30, wake=postgres_listen(url, "orders"), …)

    with a trigger on the table that calls ``pg_notify('orders', '')``. As a source by itself it yields
    the payloads as text; they have no key (``hub.feed(…, key=None)``).

    LISTEN needs a session: connect to PostgreSQL itself, not to a pooler in transaction mode.

    Arguments:
        url: ``postgresql://[user[:password]@]host[:port]/database`` with libpq's options, and
            ``?timeout=`` and ``?connect_timeout=`` in seconds. You can use the URL of a hub's log.
        channel: its name, exactly as ``pg_notify`` has it. (``NOTIFY Orders`` without quotes is ``orders``.)

    Raises:
        BrokerError: the URL is wrong, or psycopg is missing: ``pip install 'tickertape[postgres]'``.
        ValueError: the channel is not an identifier of PostgreSQL.
    """
    with extra_needed("psycopg", "postgres"), extra_needed("psycopg_pool", "postgres"):
        from ..broker.postgres import PostgresListener
    return PostgresNotifications(PostgresListener(url, channel))


class PostgresNotifications:
    """A source of payloads, and a wake-up for a poll; made by :func:`postgres_listen`.

    If the connection is lost, it raises ``BrokerError``. Feeds and polls listen again then.
    """

    def __init__(self, listener: Any) -> None:
        self._listener = listener

    def __repr__(self) -> str:
        return f"<PostgresNotifications {self._listener.where} {self._listener.channel!r}>"

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        async with aclosing(self._listener.listen()) as notifications:
            async for payloads in notifications:
                for payload in payloads:
                    yield payload

    async def wakes(self) -> AsyncGenerator[object, None]:
        """Yield once when the server listens, and at each notification."""
        async with aclosing(self._listener.listen()) as notifications:
            async for payloads in notifications:
                yield payloads
