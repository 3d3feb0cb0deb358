"""Brokers whose driver is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tickertape


@pytest.mark.parametrize(("url", "extra"), [("redis://localhost", "redis"), ("postgresql://localhost", "postgres")])
def test_missing_driver_names_its_extra(url: str, extra: str) -> None:
    source = str(Path(tickertape.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); from tickertape.broker import *; create_broker({url!r})"
    bare = [sys.executable, "-I", "-S", "-c", code]  # no site-packages: only the standard library is there
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"is not installed: pip install 'tickertape[{extra}]'")
