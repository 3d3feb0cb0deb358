"""Fixtures of the tests of faults: private servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .servers import Servers

__all__ = ["servers"]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Return the private servers; each starts when it is first used."""
    found = Servers(tmp_path_factory.mktemp("servers"))
    yield found
    found.end()
