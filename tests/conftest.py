"""Fixtures for all tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    """Restore the level of the root logger: a framework or a server that a test starts may have changed it."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
