"""Programs of a page, run as it shows them, at a free port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
def serve_page(page: str, app: str, *folders: Path, changes: Mapping[str, str] | None = None) -> Iterator[list[Site]]:
    """Write the files of a page into each folder, with another port and changes of their text; run one there.

    The servers start at the same time.
    """
    with ExitStack() as stack:
        sites = []
        for folder in folders:
            port = free_port()
            for name, text in files_of(page).items():
                for old, new in {"8000": str(port), **(changes or {})}.items():
                    text = text.replace(old, new)
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, "utf-8")
            command = [sys.executable, "-m", "uvicorn", app, f"--port={port}", "--no-access-log"]
            program = Program(command, folder=str(folder))
            stack.callback(program.close)
            sites.append(Site(program, port))
        for site in sites:
            site.program.wait_for(site.port)
        yield sites


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
