"""The log in a PostgreSQL database."""

from .broker import PostgresBroker
from .connections import PostgresListener

__all__ = ["PostgresBroker", "PostgresListener"]
