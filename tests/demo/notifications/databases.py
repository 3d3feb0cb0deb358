"""Databases for tests of the notifications, each with nothing in it, and other programs that write to them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from broker.postgres_logs import POSTGRES_URL, postgres_absent
from broker.private_servers import require

__all__ = ["KINDS", "execute", "new_database", "remove", "whole_database"]

KINDS: Final = ("sqlite", "postgres")


@contextmanager
def new_database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of a place for tables, which is removed afterwards: a file, or a schema of PostgreSQL."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/notifications.sqlite"
        return
    name = f"test_{secrets.token_hex(6)}"
    with _made(f"CREATE SCHEMA {name}", f"DROP SCHEMA {name} CASCADE"):
        yield f"{POSTGRES_URL}?options=-csearch_path%3D{name}"


@contextmanager
def whole_database(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of a database: one of PostgreSQL takes longer to make, and has room for a hub's log too."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/notifications.sqlite"
        return
    name = f"test_{secrets.token_hex(6)}"
    with _made(f"CREATE DATABASE {name} STRATEGY file_copy", f"DROP DATABASE {name} WITH (FORCE)"):
        yield urlsplit(POSTGRES_URL)._replace(path=f"/{name}").geturl()


@contextmanager
def _made(make: str, remove: str) -> Iterator[None]:
    require(postgres_absent())
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(make.encode())
        try:
            yield
        finally:
            connection.execute(remove.encode())


def execute(url: str, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Run a statement, with ``?`` for its arguments, as another program does: on a connection of its own."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition("///")[2], timeout=10, isolation_level=None)) as lite:
            return lite.execute(statement, arguments).fetchall()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.replace("?", "%s").encode(), arguments)
        return cursor.fetchall() if cursor.description else []


def remove(file: Path) -> None:
    """Remove a database of SQLite with the files beside it."""
    for part in file.parent.glob(f"{file.name}*"):
        part.unlink()
