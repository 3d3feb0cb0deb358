"""Revocations: end the streams of a user everywhere, and refuse the credentials that were issued before."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Final

from ..broker import Record
from ..errors import UnauthorizedError
from ..hub import REVOCATIONS, Hub
from ..wire import Draft
from .verified import Verified

logger = logging.getLogger("tickertape.access")

_PAGE: Final = 1_000
_MAX_USERS: Final = 100_000
"""Users that are remembered, some 10 MiB. Beyond that the earliest revocation is forgotten, and a warning is logged."""


class Revocations:
    """The revoked users of a hub's log.

    A revocation is a record in the log. Every hub on it ends the streams of the user within a second, and refuses
    credentials of this user that were issued before it; one that does not say when it was issued is older. A
    revocation holds while the log keeps its record or the process runs: let tokens expire sooner than that.

    Arguments:
        hub: the hub.
        now: returns the time in seconds since the Unix epoch.
    """

    def __init__(self, hub: Hub, *, now: Callable[[], float] = time.time) -> None:
        self._hub = hub
        self._now = now
        self._before: dict[str, float] = {}
        self._loaded = False
        self._lock = asyncio.Lock()
        hub.watch(REVOCATIONS, self._watch)

    def __repr__(self) -> str:
        return f"<Revocations users={len(self._before)}>"

    async def revoke(self, user: str) -> None:
        """Revoke the credentials that a user has now.

        Raises:
            ValueError: the name is empty.
            BrokerError: the record was not stored.
        """
        if not user:
            raise ValueError("expected the name of a user, got ''")
        data = {"user": user, "before": self._now()}
        await self._hub.publish_many([Draft(REVOCATIONS, data, event="access:revoke")])

    async def check(self, verified: Verified) -> None:
        """Refuse a credential that was revoked.

        Raises:
            UnauthorizedError: it was issued before its user was revoked.
            BrokerError: the log cannot be read.
        """
        if not self._loaded:
            await self._load()
        self.check_now(verified)

    @property
    def loaded(self) -> bool:
        """True if the revocations in the log were read, so that :meth:`check_now` knows them."""
        return self._loaded

    def check_now(self, verified: Verified) -> None:
        """Refuse a credential that was revoked, as far as the revocations are loaded.

        Raises:
            UnauthorizedError: it was issued before its user was revoked.
        """
        before = None if verified.grant.user is None else self._before.get(verified.grant.user)
        if before is not None and (verified.issued is None or verified.issued <= before):
            raise UnauthorizedError("the credential was revoked")

    async def _load(self) -> None:
        """Read the revocations that the log keeps."""
        async with self._lock:
            after = 0
            while not self._loaded:
                page = await self._hub.read(after, _PAGE, lambda topic: topic == REVOCATIONS)
                for record in page.records:
                    self._watch(record)
                self._loaded = len(page.records) < _PAGE
                after = page.records[-1].offset if page.records else after

    def _watch(self, record: Record) -> None:
        try:
            fields = json.loads(record.data)
            user, before = str(fields["user"]), float(fields["before"])
        except (ValueError, KeyError, TypeError):
            return  # a record that only ends streams
        self._before[user] = max(before, self._before.pop(user, 0.0))  # the latest is last
        if len(self._before) > _MAX_USERS:
            del self._before[next(iter(self._before))]
            logger.warning("more than %d users are revoked: the earliest revocation is forgotten", _MAX_USERS)
