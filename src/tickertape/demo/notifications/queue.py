"""Messages of a queue become rows of the table: each once, however often it is delivered."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from ...sources import NatsMessage, nats_subject
from .notification import read_draft
from .table import Table

__all__ = ["Queue"]

logger = logging.getLogger("tickertape.demo")

DURABLE: Final = "tickertape-notifications"
"""The name under which the queue remembers what has been taken from it; several servers share it."""

PAUSE: Final = 1.0
"""Seconds until the queue is asked again after it, or the table, failed."""


class Queue:
    """Store what is published to a subject of NATS, while the context is entered.

    Arguments:
        url: ``nats://host/subject``.
        table: where it is stored.
        stored: called after each.

    Raises:
        ValueError: the URL names no subject.
        BrokerError: an option of the URL is wrong, or nats-py is missing.
    """

    def __init__(self, url: str, table: Table, stored: Callable[[], None]) -> None:
        parts = urlsplit(url)
        self._subject = unquote(parts.path[1:])
        if parts.scheme != "nats" or not parts.hostname or not self._subject:
            raise ValueError(f"expected a queue as nats://host/subject, got {parts.scheme}://{parts.hostname or ''}")
        # Made if there is none that holds the subject: what is published while we are down waits in it.
        stream = re.sub(r"[^A-Za-z0-9_-]", "_", self._subject)
        server = parts._replace(path="").geturl()
        self._messages = nats_subject(server, self._subject, durable=DURABLE, stream=stream)
        self._table = table
        self._stored = stored
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Queue {self._subject}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                async with aclosing(aiter(self._messages)) as messages:
                    async for batch in messages:  # who asks for the next one acknowledges the one before
                        for message in batch:
                            await self._store(message)
            except Exception as error:
                logger.error("the queue %s, or the table, failed, again in %g s: %s", self._subject, PAUSE, error)
            await asyncio.sleep(PAUSE)

    async def _store(self, message: NatsMessage) -> None:
        try:
            fields = json.loads(message.data)
            if not isinstance(fields, dict):
                raise ValueError(f"expected a JSON object, got {fields!r:.40}")
            draft = read_draft(fields)
        except (ValueError, RecursionError) as error:
            # It would never be better: kept, it would come again for ever.
            logger.warning("a message of %s is no notification: %s", self._subject, error)
            return
        if await self._table.insert(draft, queue_key=message.key) is not None:
            self._stored()
