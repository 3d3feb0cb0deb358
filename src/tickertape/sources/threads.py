"""Calls of functions that may or may not be async."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..threads import call_in_thread

__all__ = ["call"]


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, on a thread of its own unless it is async, and await its result if that is awaitable."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    result = await call_in_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result
