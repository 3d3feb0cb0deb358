"""Programs of a page, run as it shows them, at a free port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from .pages import files_of
from .servers import Program, free_port

__all__ = ["Site", "run_program", "serve_page"]

PATIENCE: Final = 60.0


class Site(NamedTuple):
    """A running program of a page, and its port."""

    program: Program
    port: int


@contextmanager
def serve_page(page: str, app: str, folder: Path, changes: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Write the files of a page, with another port and changes of their text, and run one under uvicorn."""
    port = free_port()
    for name, text in files_of(page).items():
        for old, new in {"8000": str(port), **(changes or {})}.items():
            text = text.replace(old, new)
        (folder / name).write_text(text, "utf-8")
    command = [sys.executable, "-m", "uvicorn", app, f"--port={port}", "--no-access-log"]
    program = Program(command, folder=str(folder))
    try:
        program.wait_for(port)
        yield Site(program, port)
    finally:
        program.close()


def run_program(folder: Path, name: str) -> list[str]:
    """Run a program of the folder, and return the lines that it printed.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(
        [sys.executable, name], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
