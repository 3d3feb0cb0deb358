"""The arrows between the rings, read from the syntax trees: who imports whom, and what from outside."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tickertape

ROOT = Path(tickertape.__file__).parent

ARROWS = {
    "errors": set(),
    "wire": {"errors"},
    "broker": {"errors", "wire"},
    "hub": {"errors", "wire", "broker"},
    "sources": {"errors", "broker", "hub"},
    "asgi": {"errors", "wire", "broker", "hub"},
    "client": {"errors", "wire"},
    "testing": {"errors", "wire", "broker", "hub", "sources", "asgi"},
    "server": {"errors", "wire", "broker", "hub", "asgi"},
    "demo": {"errors", "wire", "broker", "hub", "sources", "asgi", "server"},
    "cli": {"errors", "wire", "broker", "hub", "asgi", "server", "client", "demo"},
    "__main__": {"cli"},
}
"""What a ring may import of the others."""

OUTSIDE = {
    "broker/redis.py": {"redis"},
    "broker/redis_client.py": {"redis"},
    "broker/postgres.py": {"psycopg"},
    "broker/postgres_link.py": {"psycopg"},
    "broker/nats_link.py": {"nats"},
    "broker/nats_stream.py": {"nats"},
    "broker/nats_subjects.py": {"nats"},
    "client": {"httpx2"},
    "server": {
        "uvicorn",
        "uvloop",
        "httptools",
        "starlette",
        "pydantic",
        "pydantic_settings",
        "prometheus_client",
        "jwt",
    },
    "cli": {"typer", "click", "rich"},
    "demo": {"starlette", "psutil", "psycopg"},  # applications, written as their users write them
    "testing/contract/__init__.py": {"pytest"},
    "testing/contract/suite.py": {"pytest"},
}
"""What a ring, or one file of it, may import from outside the standard library."""

FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def ring_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """The dotted names that ``path`` imports, relative ones resolved; a ring of ours as ``tickertape.ring``."""
    package = ("tickertape", *path.parts[:-1])
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield ".".join((*base, node.module))
            else:
                yield from (".".join((*base, alias.name)) for alias in node.names)


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name != "__init__.py" or path.parent != Path()], ids=str
)
def test_a_ring_imports_only_along_the_arrows(path: Path) -> None:
    own = ring_of(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("tickertape.")}
    assert ours - {own, "__version__"} <= ARROWS[own]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_what_comes_from_outside_stands_in_its_ring_alone(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"tickertape"}
    assert outside <= OUTSIDE.get(ring_of(path), set()) | OUTSIDE.get(path.as_posix(), set())


def test_every_ring_has_its_arrows() -> None:
    assert {ring_of(path) for path in FILES} - {"__init__"} <= set(ARROWS)
