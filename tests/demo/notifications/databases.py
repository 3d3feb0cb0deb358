"""Empty databases for the tests of the notifications, and statements of other programs."""

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
    """Yield the URL of an empty SQLite file or PostgreSQL schema, and remove it afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/notifications.sqlite"
        return
    name = f"test_{secrets.token_hex(6)}"
    with _created(f"CREATE SCHEMA {name}", f"DROP SCHEMA {name} CASCADE"):
        yield f"{POSTGRES_URL}?options=-csearch_path%3D{name}"


@contextmanager
def whole_database(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty SQLite file or a whole PostgreSQL database, which a hub can use for its log too."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/notifications.sqlite"
        return
    name = f"test_{secrets.token_hex(6)}"
    with _created(f"CREATE DATABASE {name} STRATEGY file_copy", f"DROP DATABASE {name} WITH (FORCE)"):
        yield urlsplit(POSTGRES_URL)._replace(path=f"/{name}").geturl()


@contextmanager
def _created(make: str, remove: str) -> Iterator[None]:
    require(postgres_absent())
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(make.encode())
        try:
            yield
        finally:
            connection.execute(remove.encode())


def execute(url: str, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Run a statement on a new connection, like another program. It has a ``?`` for each argument."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition("///")[2], timeout=10, isolation_level=None)) as lite:
            return lite.execute(statement, arguments).fetchall()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.replace("?", "%s").encode(), arguments)
        return cursor.fetchall() if cursor.description else []


def remove(file: Path) -> None:
    """Remove an SQLite database with its WAL files."""
    for part in file.parent.glob(f"{file.name}*"):
        part.unlink()
