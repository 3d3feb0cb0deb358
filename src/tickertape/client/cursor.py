"""Where a client keeps its place between runs: ``CursorStore``, and ``FileCursor`` for a file."""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Protocol, cast

__all__ = ["AsyncCursorStore", "CursorStore", "FileCursor", "in_threads"]


class CursorStore(Protocol):
    """Keep the id of the last event that the user is done with.

    :class:`~tickertape.client.EventSource` calls it in a worker thread, one call at a time, so that
    a slow disk holds nobody else up.
    """

    def load(self) -> str | None:
        """Return the id last saved, ``None`` if there is none."""

    def save(self, id: str, /) -> None:
        """Store the id; when this returns, a crash must not undo it. ``""`` means: no place."""


class AsyncCursorStore(Protocol):
    """The same with coroutines, for :class:`~tickertape.client.EventSource` only."""

    def load(self) -> Awaitable[str | None]:
        """Return the id last saved, ``None`` if there is none."""

    def save(self, id: str, /) -> Awaitable[None]:
        """Store the id; when this returns, a crash must not undo it. ``""`` means: no place."""


class FileCursor:
    """Keep a place in a file; each save replaces the file in one step, so a crash leaves the old or the new.

    Arguments:
        path: of the file; its directory must exist.
        fsync: whether a save waits for the disk. Without it a save is several times faster, still
            survives the crash of the process, and may be undone by a power cut: then events come again.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = True) -> None:
        self.path = Path(path)
        self.fsync = fsync

    def __repr__(self) -> str:
        return f"FileCursor({str(self.path)!r})"

    def load(self) -> str | None:
        """Return the id in the file, ``None`` if there is no file.

        Raises:
            FileNotFoundError: the directory does not exist. It is said now, not after the first event.
            ValueError: the file is not UTF-8.
        """
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"expected a directory for the cursor at {self.path.parent}, got none")
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        # An editor may have left a line end; an id has none.
        return content.removesuffix(b"\n").removesuffix(b"\r").decode()

    def save(self, id: str, /) -> None:
        """Replace the file by one with this id.

        Raises:
            OSError: the file cannot be written. The old one is then still there.
        """
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(id.encode())
                if self.fsync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if self.fsync:
            _sync_directory(self.path.parent)


def in_threads(store: CursorStore | AsyncCursorStore) -> AsyncCursorStore:
    """Return a store with coroutines: itself, or one that calls its plain methods in worker threads."""
    return cast("AsyncCursorStore", store) if inspect.iscoroutinefunction(store.save) else _InThreads(store)


class _InThreads:
    def __init__(self, store: CursorStore | AsyncCursorStore) -> None:
        self._store = cast("CursorStore", store)

    async def load(self) -> str | None:
        return await asyncio.to_thread(self._store.load)

    async def save(self, id: str, /) -> None:
        await asyncio.to_thread(self._store.save, id)


def _sync_directory(path: Path) -> None:
    """Make a rename durable. Windows has no such thing, and does not let a directory be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
