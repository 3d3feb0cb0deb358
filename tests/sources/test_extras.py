"""Sources whose driver is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tickertape


def without_packages(code: str) -> subprocess.CompletedProcess[str]:
    """Run code with only the standard library and tickertape."""
    source = str(Path(tickertape.__file__).parents[1])
    program = f"import sys; sys.path.insert(0, {source!r}); from tickertape.sources import *; {code}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [
        ("postgres_listen('postgresql://localhost', 'c')", "psycopg", "postgres"),
        ("nats_subject('nats://localhost', 's')", "nats", "nats"),
    ],
)
def test_missing_driver(call: str, package: str, extra: str) -> None:
    done = without_packages(call)
    assert done.returncode == 1
    sentence = f"the package '{package}' is not installed: pip install 'tickertape[{extra}]'"
    assert done.stderr.splitlines()[-1].endswith(sentence)


def test_poll_needs_no_driver() -> None:
    done = without_packages("print(Poll(print))")
    assert (done.stdout, done.stderr) == ("<Poll print after None>\n", "")
