"""Disks that are full when a test says so."""

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
"""Bytes of the disk: a log of a few hundred events of a kilobyte, with its journal."""


class Disk(Protocol):
    """A folder to keep a log in."""

    folder: Path

    def fill(self, pid: int) -> None:
        """Leave no space to a process."""

    def free(self, pid: int) -> None:
        """Give it space again."""


class Tmpfs:
    """A file system in memory, filled by a file."""

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
        """Mount it otherwise, read-only say."""
        subprocess.run(["mount", "-o", ",".join(("remount", *options)), self.folder], check=True)


class Limit:
    """A folder in which no file of a process may grow: as root without the right to mount, and as anybody else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pid: int) -> None:
        # What it logs goes to a file too, a small one.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (SIZE // 2, resource.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def tmpfs(folder: Path) -> Iterator[Tmpfs]:
    """Mount a small file system, or skip the test: the other disk is for those who may not."""
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
    """Give a folder."""
    if not hasattr(resource, "prlimit"):
        pytest.skip("limits of other processes are Linux's")
    yield Limit(folder)


DISKS: Final[dict[str, Callable[[Path], AbstractContextManager[Disk]]]] = {"tmpfs": tmpfs, "limit": limit}
"""Two ways for a disk to be full."""
