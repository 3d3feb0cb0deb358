"""Stores that keep a client's last event id between runs: ``CursorStore``, and ``FileCursor`` for a file."""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

from ..wire import ServerSentEvent


class CursorStore(Protocol):
    """A store for the id of the last event that the user has handled.

    :class:`~tickertape.client.EventSource` calls it in a worker thread, one call at a time, so that
    a slow disk does not block the event loop.
    """

    def load(self) -> str | None:
        """Return the id saved last, ``None`` if there is none."""

    def save(self, id: str, /) -> None:
        """Store the id. When this returns, a crash must not undo it. ``""`` means that there is none."""


class AsyncCursorStore(Protocol):
    """The same with coroutines, for :class:`~tickertape.client.EventSource` only."""

    def load(self) -> Awaitable[str | None]:
        """Return the id saved last, ``None`` if there is none."""

    def save(self, id: str, /) -> Awaitable[None]:
        """Store the id. When this returns, a crash must not undo it. ``""`` means that there is none."""


class FileCursor:
    """Keep the last event id in a file.

    Each save replaces the file in one step, so that a crash leaves either the old id or the new one. The
    file keeps its permissions. If the path is a symbolic link, the file that it points to is replaced.

    Arguments:
        path: of the file; its directory must exist.
        fsync: wait for the disk on each save. Without it a save is several times faster and still survives a
            crash of the process. A power cut may undo it: then some events are delivered again.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = True) -> None:
        self.path = Path(path)
        self.fsync = fsync

    def __repr__(self) -> str:
        return f"FileCursor({str(self.path)!r})"

    def load(self) -> str | None:
        """Return the id in the file, ``None`` if there is no file.

        Raises:
            FileNotFoundError: the directory does not exist. This is checked here, before the first event.
            ValueError: the content cannot be an event id: it is not UTF-8, or has a line break or NUL in it.
        """
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"no such directory for the cursor file: {self.path.parent}")
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        # An editor may have added a line break at the end.
        return self._checked(content.removesuffix(b"\n").removesuffix(b"\r").decode())

    def save(self, id: str, /) -> None:
        """Replace the content of the file by this id.

        Raises:
            OSError: the file cannot be written. The old file is then unchanged.
            ValueError: the id has a line break or NUL in it.
        """
        content = self._checked(id).encode()
        path = Path(os.path.realpath(self.path))
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if self.fsync:
                    file.flush()
                    os.fsync(file.fileno())
            with suppress(FileNotFoundError):  # without an old file, the one made here is for its owner alone
                temporary.chmod(path.stat().st_mode & 0o7777)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if self.fsync:
            _sync_directory(path.parent)

    def _checked(self, id: str) -> str:
        try:
            ServerSentEvent(id=id)
        except ValueError:
            raise ValueError(f"{self.path} holds no event id: there is a line break or NUL in it") from None
        return id


def in_threads(store: CursorStore | AsyncCursorStore) -> AsyncCursorStore:
    """Return a store with coroutines: the given one, or a wrapper that calls its plain methods in worker threads."""
    return cast("AsyncCursorStore", store) if inspect.iscoroutinefunction(store.save) else _InThreads(store)


class _InThreads:
    def __init__(self, store: CursorStore | AsyncCursorStore) -> None:
        self._store = cast("CursorStore", store)

    async def load(self) -> str | None:
        return await asyncio.to_thread(self._store.load)

    async def save(self, id: str, /) -> None:
        await asyncio.to_thread(self._store.save, id)


def _sync_directory(path: Path) -> None:
    """Make a rename durable. Windows cannot, and does not let a directory be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
