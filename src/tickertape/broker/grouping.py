"""``GroupCommit``: appends that wait for the store are stored together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import Final, NamedTuple, TypeAlias

from ..errors import BrokerError
from ..wire import Cursor, Draft

DEFAULT_GROUP: Final = 500
"""The greatest number of drafts stored together: a few milliseconds in which the server does nothing else."""

DEFAULT_GROUP_SIZE: Final = 1024 * 1024
"""The greatest number of bytes stored together, for the same reason. A larger append is stored alone."""

_OVERHEAD: Final = 100
"""Bytes that a store adds to a record, with the digest of its key."""

Commit: TypeAlias = Callable[[Sequence[Draft]], Awaitable[list[Cursor]]]


class _Append(NamedTuple):
    drafts: Sequence[Draft]
    size: int
    done: asyncio.Future[list[Cursor]]


class GroupCommit:
    """Store the appends of many callers, one group after the other.

    Appends that arrive while a group is being stored form the next group. A single append does not wait, and a
    thousand concurrent ones cost two or three requests. A group is stored as a whole, and so is each append.

    Arguments:
        commit: stores all drafts or none, and returns their cursors. It is never cancelled because one caller is.
        most: the greatest number of drafts stored together; a larger append is stored alone.

    Attributes:
        max_size: the greatest number of bytes stored together, estimated; a larger append is stored alone.
    """

    def __init__(self, commit: Commit, most: int = DEFAULT_GROUP) -> None:
        self._commit = commit
        self._most = most
        self.max_size = DEFAULT_GROUP_SIZE
        self._waiting: deque[_Append] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Return the cursors of ``drafts`` when they are stored.

        If the caller is cancelled before its group is sent, nothing is appended.

        Raises:
            BrokerError: the group was not stored, or the result is unknown.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Cursor]] = loop.create_future()
        size = sum(_OVERHEAD + len(draft.topic) + len(draft.event or "") + draft.size for draft in drafts)
        self._waiting.append(_Append(drafts, size, done))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await done

    async def finish(self) -> None:
        """Wait until all appends are stored, or have failed."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def close(self) -> None:
        """Fail all appends that are not stored yet; may be called twice."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        self._fail(())  # a worker that is cancelled before its first step fails nothing

    async def _work(self) -> None:
        group: list[_Append] = []
        try:
            while group := self._take():
                await self._store(group)
        finally:
            self._fail(group)

    def _fail(self, group: Sequence[_Append]) -> None:
        self._worker = None
        for append in (*group, *self._waiting):
            if not append.done.done():
                append.done.set_exception(BrokerError("broker is closed"))
        self._waiting.clear()

    def _take(self) -> list[_Append]:
        group: list[_Append] = []
        drafts = size = 0
        while self._waiting:
            first = self._waiting[0]
            if first.done.done():
                self._waiting.popleft()
                continue
            drafts += len(first.drafts)
            size += first.size
            if group and (drafts > self._most or size > self.max_size):
                break
            group.append(self._waiting.popleft())
        return group

    async def _store(self, group: list[_Append]) -> None:
        try:
            cursors = await self._commit([draft for append in group for draft in append.drafts])
        except Exception as error:
            for append in group:
                if not append.done.done():
                    append.done.set_exception(_copy(error))
            return
        start = 0
        for append in group:
            end = start + len(append.drafts)
            if not append.done.done():
                append.done.set_result(cursors[start:end])
            start = end


def _copy(error: Exception) -> Exception:
    """Return an error for one caller: the traceback of a shared one would grow with every caller that raises it."""
    copied = copy(error) if isinstance(error, BrokerError) else BrokerError(f"cannot append: {error!r}")
    copied.__cause__ = error
    return copied
