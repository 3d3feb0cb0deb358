"""Packages of npm for tests: those of ``tests/interop/package-lock.json``, installed once for each version of it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

__all__ = ["installed"]

SOURCE: Final = Path(__file__).parents[1] / "interop"


def installed(config: pytest.Config) -> Path:
    """Return a folder with the packages and the programs of ``tests/interop``. Skip the test if there is no npm."""
    files = sorted([*SOURCE.glob("*.json"), *SOURCE.glob("*.mjs")])
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    assert config.cache is not None
    parent = config.cache.mkdir("interop")
    folder = parent / wanted
    if folder.exists():
        return folder
    if shutil.which("npm") is None:
        _give_up("npm is not on the path")
    made = Path(tempfile.mkdtemp(dir=parent))
    for file in files:
        shutil.copy(file, made)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=made, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        _give_up(f"expected npm to install the packages, got: {done.stderr[-500:]}")
    try:
        made.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(made)
    return folder


def _give_up(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
