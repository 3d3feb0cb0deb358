"""The package as a whole: its dependency, and the top level without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tickertape
import tickertape.client
from tickertape.errors import ClientError

SOURCE = str(Path(tickertape.__file__).parents[1])


def bare(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python with nothing but the standard library and us."""
    program = f"import sys; sys.path.insert(0, {SOURCE!r}); {code}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)


def test_missing_httpx2() -> None:
    result = bare("import tickertape.client")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last == "ImportError: tickertape.client needs httpx2: pip install 'tickertape[client]'"


def test_top_level_import() -> None:
    assert bare("import tickertape; assert 'tickertape.client' not in sys.modules").returncode == 0


@pytest.mark.parametrize("name", ["ClientError", *(each.__name__ for each in ClientError.__subclasses__())])
def test_exceptions_of_the_client(name: str) -> None:
    assert getattr(tickertape.client, name) is getattr(tickertape.errors, name)
    assert name in tickertape.client.__all__
