"""A fixture for pytest. Put ``pytest_plugins = ["tickertape.testing.fixtures"]`` into your ``conftest.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..asgi import ASGIApp
from .sync import SyncEventStreamClient


@pytest.fixture
def event_stream_client() -> Iterator[Callable[..., SyncEventStreamClient]]:
    """Make clients: ``client = event_stream_client(app)`` returns a :class:`SyncEventStreamClient`, already entered.

    The function takes the arguments of the client. At the end of the test the lifespan of each application ends.
    """
    with ExitStack() as stack:

        def make(app: ASGIApp, **options: Any) -> SyncEventStreamClient:
            return stack.enter_context(SyncEventStreamClient(app, **options))

        yield make
