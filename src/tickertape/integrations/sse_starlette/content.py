"""The items of a response's content."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from ...threads import BlockingIterator

__all__ = ["ContentItems"]

logger = logging.getLogger("tickertape.sse_starlette")


class ContentItems:
    """Iterate over content; closing it has a time limit.

    Arguments:
        content: an async or sync iterable.
        cleanup_timeout: seconds that closing it may take; ``None`` for no limit.
    """

    def __init__(self, content: AsyncIterable[Any] | Iterable[Any], cleanup_timeout: float | None) -> None:
        self._items: Any = aiter(content) if isinstance(content, AsyncIterable) else BlockingIterator(content)
        self._cleanup_timeout = cleanup_timeout

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._items)

    async def athrow(self, error: BaseException) -> Any:
        throw = getattr(self._items, "athrow", None)
        if throw is None:
            raise error
        return await throw(error)

    async def aclose(self) -> None:
        close = getattr(self._items, "aclose", None)
        if close is None:
            return
        try:
            async with asyncio.timeout(self._cleanup_timeout) as limit:
                await close()
        except TimeoutError:
            if not limit.expired():
                raise
            logger.warning("the content was not closed within %g s", self._cleanup_timeout)
