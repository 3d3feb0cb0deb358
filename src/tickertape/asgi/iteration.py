"""Pull items from any iterable: an asynchronous one, or a blocking one on a separate thread."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any, TypeVar

from ..threads import BlockingIterator

T = TypeVar("T")


def check_iterable(items: object) -> None:
    """Raise TypeError unless ``items`` is a stream of items.

    A single item that happens to be iterable, such as a str or a dict, is not one.
    """
    one_item = isinstance(items, (str, bytes, bytearray, memoryview, Mapping)) or hasattr(items, "model_dump_json")
    if isinstance(items, (AsyncIterable, Iterable)) and not one_item:
        return
    if inspect.iscoroutine(items):
        items.close()  # the warning that it was never awaited would only repeat the error
        hint = "await it"
    elif callable(items):
        hint = "call it"
    else:
        hint = "for a stream of one event, put it into a list"
    raise TypeError(f"expected an async or sync iterable of events, got {type(items).__name__}: {hint}")


def iterate(items: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    """Return an asynchronous iterator over ``items``."""
    if isinstance(items, AsyncIterable):
        return aiter(items)
    if isinstance(items, (list, tuple)):
        return _iterate_sequence(items)
    return BlockingIterator(items)


async def close_iterator(iterator: AsyncIterator[Any]) -> None:
    """Finalise a generator now, not when the garbage collector finds it."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


async def _iterate_sequence(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
