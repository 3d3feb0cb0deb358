"""The log in an SQLite file."""

from .broker import SQLiteBroker

__all__ = ["SQLiteBroker"]
