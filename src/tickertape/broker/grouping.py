"""Group commit: appends that wait for the server are stored together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from typing import Final, NamedTuple, TypeAlias

from ..errors import BrokerError
from ..wire import Cursor, Draft

__all__ = ["DEFAULT_GROUP", "GroupCommit"]

DEFAULT_GROUP: Final = 500
"""Drafts stored together at most: a few milliseconds of the server's time, in which it serves nobody else."""

DEFAULT_GROUP_SIZE: Final = 1024 * 1024
"""Bytes stored together, for the same reason. A larger append is stored alone."""

_OVERHEAD: Final = 100
"""Bytes that a store adds to a record, with the digest of its key."""

Commit: TypeAlias = Callable[[Sequence[Draft]], Awaitable[list[Cursor]]]


class _Waiting(NamedTuple):
    drafts: Sequence[Draft]
    size: int
    done: asyncio.Future[list[Cursor]]


class GroupCommit:
    """Store what many callers append, one group after the other.

    While a group is on its way, the appends that come in wait and make up the next one: alone, an
    append waits for nobody; a thousand at once cost two or three trips to the server. Each of them
    stays whole, since a group is stored whole.

    Arguments:
        commit: stores drafts, all or none, and returns their cursors. It is never cancelled on
            behalf of one caller.
        most: drafts stored together; an append of more goes alone.

    Attributes:
        max_size: bytes stored together, about; an append of more is stored alone.
    """

    def __init__(self, commit: Commit, most: int = DEFAULT_GROUP) -> None:
        self._commit = commit
        self._most = most
        self.max_size = DEFAULT_GROUP_SIZE
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def append(self, drafts: Sequence[Draft]) -> list[Cursor]:
        """Return the cursors of ``drafts`` when they are stored.

        A caller that is cancelled before its group is on its way has appended nothing.

        Raises:
            BrokerError: the group could not be stored, or that is not known.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Cursor]] = loop.create_future()
        size = sum(_OVERHEAD + len(draft.topic) + len(draft.event or "") + draft.size for draft in drafts)
        self._waiting.append(_Waiting(drafts, size, done))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await done

    async def finish(self) -> None:
        """Wait until no append waits or is on its way."""
        while self._worker is not None:
            await asyncio.wait([self._worker])

    async def close(self) -> None:
        """Fail what waits, and what is on its way; may be called twice."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        self._fail(())  # a worker that was cancelled before it began has failed nobody

    async def _work(self) -> None:
        group: list[_Waiting] = []
        try:
            while group := self._take():
                await self._store(group)
        finally:
            self._fail(group)

    def _fail(self, group: Sequence[_Waiting]) -> None:
        self._worker = None
        for waiting in (*group, *self._waiting):
            if not waiting.done.done():
                waiting.done.set_exception(BrokerError("broker is closed"))
        self._waiting.clear()

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
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

    async def _store(self, group: list[_Waiting]) -> None:
        try:
            cursors = iter(await self._commit([draft for waiting in group for draft in waiting.drafts]))
        except Exception as error:
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(_copy(error))
            return
        for waiting in group:
            stored = [next(cursors) for _ in waiting.drafts]
            if not waiting.done.done():
                waiting.done.set_result(stored)


def _copy(error: Exception) -> Exception:
    """An error of its own for each caller: a traceback that is shared grows with every one that raises it."""
    copied = copy(error) if isinstance(error, BrokerError) else BrokerError(f"cannot append: {error!r}")
    copied.__cause__ = error
    return copied
