"""Programs of the system that tests run."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["require"]


def require(command: str, package: str) -> str:
    """Return the path of a program. Without it, skip the test; under ``CI=true``, fail."""
    path = shutil.which(command)
    if path is None:
        reason = f"{command} is not on the path: install Debian's package {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
