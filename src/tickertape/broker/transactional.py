"""``TransactionalBroker``, the capability to publish inside a caller's own database transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ..wire import Draft


class SQLConnection(Protocol):
    """A connection on which the caller's transaction is open.

    You can pass psycopg's ``AsyncConnection`` or ``Connection``. With SQLAlchemy on psycopg, pass the driver's::

        raw = await (await session.connection()).get_raw_connection()
        await broker.append_with(raw.driver_connection, drafts)

    For another driver, write an adapter of three lines. Its ``execute`` receives one statement with ``%s`` for each
    argument, and arguments that are lists of ``bytes`` or ``None``. For asyncpg::

        class Adapter:
            def __init__(self, connection): self.connection = connection
            def execute(self, query, arguments):
                for number in range(1, len(arguments) + 1): query = query.replace("%s", f"${number}", 1)
                return self.connection.execute(query, *arguments)
    """

    def execute(self, query: str, params: Sequence[Any], /) -> Any:
        """Execute a statement. If the result is awaitable, it is awaited."""


@runtime_checkable
class TransactionalBroker(Protocol):
    """A broker whose log is in the database in which the caller has a transaction."""

    async def append_with(self, connection: SQLConnection, drafts: Sequence[Draft]) -> list[str]:
        """Append drafts if, and only if, the caller's transaction commits.

        Until the commit, nothing is in the log, so there are no cursors yet. Return the keys instead: those of the
        drafts, or new ones. The drafts of one transaction keep their order, and enter the log soon after the commit.
        Two transactions enter it in the order in which a hub finds them committed, which is not always the order of
        their commits. A transaction that stays open does not delay others.

        Arguments:
            connection: the caller's connection. The caller ends its transaction.
            drafts: the events to append.

        Raises:
            BrokerError: the database refused; the transaction has failed.
        """
