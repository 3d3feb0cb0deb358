"""Disks that a test can fill."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import pytest

__all__ = ["DISKS", "Disk", "Limit", "Tmpfs", "tmpfs"]

SIZE: Final = 2 * 1024 * 1024
"""Bytes of the disk: enough for a log of a few hundred events of 1 KiB, with its journal."""


class Disk(Protocol):
    """A folder for a log."""

    folder: Path

    def fill(self, pid: int) -> None:
        """Make writes of a process fail."""

    def free(self, pid: int) -> None:
        """Make them succeed again."""


class Tmpfs:
    """A file system in memory, filled with a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, pid: int) -> None:
        with self._filler.open("ab", buffering=0) as filler:
            for size in (65536, 4096, 1):
                with suppress(OSError):
                    while True:
                        filler.write(b"x" * size)

    def free(self, pid: int) -> None:
        self._filler.unlink()

    def remount(self, *options: str) -> None:
        """Mount it with other options, for example read-only."""
        subprocess.run(["mount", "-o", ",".join(("remount", *options)), self.folder], check=True)


class Limit:
    """A folder in which no file of a process may grow; needs no right to mount."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        # The output of the process is also a file, but a small one.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SIZE // 2, resource.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def tmpfs(folder: Path) -> Iterator[Tmpfs]:
    """Mount a small file system, or skip the test if that is not permitted."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    place = folder / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tickertape", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a file system: {mounted.stderr.strip()}")
    try:
        yield Tmpfs(place)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def limit(folder: Path) -> Iterator[Limit]:
    """Return a folder with a limit."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux limits other processes")
    yield Limit(folder)


DISKS: Final[dict[str, Callable[[Path], AbstractContextManager[Disk]]]] = {"tmpfs": tmpfs, "limit": limit}
"""Two ways to fill a disk."""
