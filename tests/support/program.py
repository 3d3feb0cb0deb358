"""The real ``tickertape serve``, at a free port that it chose."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from support.servers import START, Program

__all__ = ["Serve", "serving", "workers_of"]


class Serve(Program):
    """The program in its own folder, with a short drain window; ``options`` are added."""

    def __init__(self, *options: str, env: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        super().__init__(
            [
                str(Path(sys.executable).parent / "tickertape"),
                "serve",
                "--port",
                "0",
                "--drain-window",
                "0.3",
                *options,
            ],
            env,
            folder=self._folder.name,
        )
        self.port = 0
        self.url = ""

    def close(self) -> None:
        """End it, and remove what it wrote."""
        super().close()
        self._folder.cleanup()

    async def ready(self) -> None:
        """Return when it serves requests."""
        await self.says("To stop: Ctrl-C", within=START)
        found = re.search(r" at (https?://[^\s/]+:(\d+)/)", self.output)
        assert found, self.output
        self.url, self.port = found[1], int(found[2])


@asynccontextmanager
async def serving(*options: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Serve]:
    """Run the program; it is ended whatever happens."""
    program = Serve(*options, env=env)
    try:
        await program.ready()
        yield program
    finally:
        program.close()


def workers_of(program: Serve) -> list[int]:
    """The processes that serve."""
    children = psutil.Process(program.process.pid).children()
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
    return []
