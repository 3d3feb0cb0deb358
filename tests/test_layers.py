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
    "timing": set(),
    "threads": set(),
    "wire": {"errors"},
    "asgi": {"errors", "timing", "threads", "wire"},
    "broker": {"errors", "timing", "threads", "wire"},
    "hub": {"errors", "timing", "threads", "wire", "asgi", "broker"},
    "sources": {"errors", "timing", "threads", "wire", "broker", "hub"},
    "client": {"errors", "timing", "threads", "wire"},
    "testing": {"errors", "timing", "wire", "asgi", "broker", "hub", "sources"},
    "server": {"errors", "timing", "wire", "asgi", "broker", "hub", "sources"},
    "demo": {"errors", "timing", "threads", "wire", "asgi", "broker", "hub", "sources", "server"},
    "cli": {"errors", "timing", "wire", "asgi", "broker", "hub", "server", "client", "demo"},
    "__main__": {"cli"},
}
"""The packages that each package may import."""

OUTSIDE = {
    "broker/redis": {"redis"},
    "broker/postgres": {"psycopg", "psycopg_pool"},
    "broker/nats": {"nats"},
    "sources/subjects.py": {"nats"},
    "client": {"httpx2"},
    "server": {"uvicorn", "uvloop", "httptools", "starlette", "pydantic"},
    "cli": {"typer", "click", "rich", "httpx2"},
    "demo": {"starlette", "psutil", "psycopg"},  # applications, written as their users write them
    "testing/contract/__init__.py": {"pytest"},
    "testing/contract/suite.py": {"pytest"},
}
"""The third-party packages that a package, or one folder or file of it, may import."""

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
def test_third_party_imports(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"tickertape"}
    places = [path, *path.parents]
    assert outside <= set().union(*(OUTSIDE.get(place.as_posix(), set()) for place in places))


def test_every_ring_has_its_arrows() -> None:
    assert {ring_of(path) for path in FILES} - {"__init__"} <= set(ARROWS)
