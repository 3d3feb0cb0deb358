"""The log in a PostgreSQL database."""

from .broker import PostgresBroker

__all__ = ["PostgresBroker"]
