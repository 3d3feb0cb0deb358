"""The package as a whole: what it asks for, and what asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tickertape

SOURCE = str(Path(tickertape.__file__).parents[1])


def bare(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python with nothing but the standard library and us."""
    program = f"import sys; sys.path.insert(0, {SOURCE!r}); {code}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)


def test_without_httpx2_the_error_says_what_to_install() -> None:
    result = bare("import tickertape.client")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last == "ImportError: expected httpx2 for tickertape.client, got none: pip install 'tickertape[client]'"


def test_the_top_does_not_import_the_client() -> None:
    assert bare("import tickertape; assert 'tickertape.client' not in sys.modules").returncode == 0
