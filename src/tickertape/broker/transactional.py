"""Publishing inside a caller's own database transaction: what some brokers can do besides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..wire import Draft

__all__ = ["SQLConnection", "TransactionalBroker"]


class SQLConnection(Protocol):
    """A connection on which the caller's transaction is open.

    psycopg's ``AsyncConnection`` and ``Connection`` are such. Of SQLAlchemy on psycopg, take the driver's::

        raw = await (await session.connection()).get_raw_connection()
        await broker.append_with(raw.driver_connection, drafts)

    For another driver, an adapter of three lines: its ``execute`` gets one statement with ``%s`` for each
    argument, and arguments that are lists of ``bytes`` or ``None``. For asyncpg::

        class Adapter:
            def __init__(self, connection): self.connection = connection
            def execute(self, query, arguments):
                for number in range(1, len(arguments) + 1): query = query.replace("%s", f"${number}", 1)
                return self.connection.execute(query, *arguments)
    """

    def execute(self, query: str, params: Sequence[Any], /) -> Any:
        """Execute a statement; what is returned is awaited if it can be."""


@runtime_checkable
class TransactionalBroker(Protocol):
    """A broker whose log is in the database in which the caller has a transaction."""

    async def append_with(self, connection: SQLConnection, drafts: Sequence[Draft]) -> list[str]:
        """Append drafts if, and only if, the caller's transaction commits.

        Until then nothing of them is in the log, so that there are no cursors yet: what is returned are
        the keys, those of the drafts, or new ones. The drafts of one transaction stay in their order, and
        come into the log soon after the commit, behind all that was committed and moved before. Two
        transactions come in the order in which they are found committed, which is not always that of
        their commits. A transaction that stays open holds up nobody.

        Arguments:
            connection: the caller's; its transaction is left to the caller.
            drafts: what to append.

        Raises:
            BrokerError: the database refused; then the transaction has failed.
        """
