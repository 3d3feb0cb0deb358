"""The hub's HTTP interface as an application, for servers other than our own."""

from __future__ import annotations

from tickertape import Hub
from tickertape.server import create_app

__all__ = ["app"]

app = create_app(Hub())
