"""The imports between packages and of third-party packages, read from the syntax trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import tickertape

ROOT = Path(tickertape.__file__).parent

ARROWS = {
    "errors": set(),
    "timing": set(),
    "threads": set(),
    "redaction": set(),
    "wire": {"errors"},
    "asgi": {"errors", "timing", "threads", "wire"},
    "browser": {"asgi"},
    "broker": {"errors", "timing", "threads", "wire"},
    "hub": {"errors", "timing", "threads", "wire", "asgi", "browser", "broker"},
    "sources": {"errors", "timing", "threads", "wire", "broker", "hub"},
    "runs": {"errors", "timing", "wire", "asgi", "broker", "hub"},
    "access": {"errors", "wire", "broker", "hub"},
    "client": {"errors", "timing", "threads", "wire"},
    "testing": {"errors", "timing", "wire", "asgi", "broker", "hub", "sources"},
    "server": {"errors", "timing", "redaction", "wire", "asgi", "browser", "broker", "hub", "sources", "runs", "access"}
    | {"integrations"},
    "demo": {"errors", "timing", "threads", "wire", "asgi", "browser", "broker", "hub", "sources", "runs", "server"},
    "cli": {"errors", "timing", "redaction", "wire", "asgi", "broker", "hub", "access", "server", "client", "demo"},
    "integrations": {"errors", "timing", "threads", "wire", "asgi", "broker", "hub", "client"},
    "__main__": {"cli"},
}
"""The packages that each package may import."""

OUTSIDE = {
    "broker/redis": {"redis"},
    "broker/postgres": {"psycopg", "psycopg_pool"},
    "broker/nats": {"nats"},
    "sources/subjects.py": {"nats"},
    "asgi/base.py": {"starlette"},  # to be a real response where Starlette is installed
    "access/tokens.py": {"jwt", "cryptography"},
    "client": {"httpx2"},
    "server": {"uvicorn", "uvloop", "httptools", "starlette", "pydantic", "prometheus_client", "pythonjsonlogger"},
    "cli": {"typer", "click", "rich", "httpx2", "jwt"},
    "demo": {"starlette", "psutil", "psycopg"},  # applications, written as their users write them
    "integrations/django.py": {"django", "asgiref"},
    "integrations/flask.py": {"flask"},
    "testing/fixtures.py": {"pytest"},
    **{f"integrations/{name}.py": {name} for name in ("aiohttp", "blacksheep", "falcon", "quart", "sanic")},
    "integrations/fastapi.py": {"fastapi", "pydantic"},
    "integrations/prometheus.py": {"prometheus_client"},
    "integrations/opentelemetry.py": {"opentelemetry"},
    "integrations/mcp.py": {"mcp", "mcp_types"},
    "testing/contract/__init__.py": {"pytest"},
    "testing/contract/suite.py": {"pytest"},
}
"""The third-party packages that a package, or one folder or file of it, may import."""

DRIVERS = {"tickertape.broker.nats", "tickertape.broker.postgres", "tickertape.integrations.prometheus"}
"""Modules that are imported by their own name: the package that contains them must import without their drivers."""


def module_name(path: Path) -> str:
    return ".".join(("tickertape", *path.with_suffix("").parts)).removesuffix(".__init__")


def package_of(module: str) -> str:
    """Return the first name below ``tickertape``: that of a package, or of a module such as ``errors``."""
    return module.split(".")[1] if "." in module else ""


PATHS = {module_name(path): path for path in sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))}
TREES = {module: ast.parse((ROOT / path).read_text()) for module, path in PATHS.items()}


class Import(NamedTuple):
    """A name imported from a module; relative imports are resolved."""

    module: str
    name: str | None


def imports(module: str) -> Iterator[Import]:
    """Yield all imports of a module, also those inside functions."""
    parents = ("tickertape", *PATHS[module].parts[:-1])
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            source = ".".join((*base, *([node.module] if node.module else ())))
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield Import(submodule, None) if submodule in TREES else Import(source, alias.name)


def exported(module: str) -> set[str]:
    """Return the ``__all__`` of a module."""
    for node in TREES[module].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def foreign_imports(module: str) -> list[Import]:
    """Return what a module imports from other packages of this project."""
    own = package_of(module)
    return [
        found for found in imports(module) if found.module.startswith("tickertape.") and package_of(found.module) != own
    ]


@pytest.mark.parametrize("module", [module for module in TREES if module != "tickertape"])
def test_arrows(module: str) -> None:
    assert {package_of(found.module) for found in foreign_imports(module)} <= ARROWS[package_of(module)]


@pytest.mark.parametrize("module", TREES)
def test_packages_are_imported_through_all(module: str) -> None:
    """A package imports other packages, never their submodules, and only names in their ``__all__``."""
    for found in foreign_imports(module):
        assert found.module in DRIVERS or found.module.count(".") == 1
        assert found.name in exported(found.module)


@pytest.mark.parametrize("module", TREES)
def test_third_party_imports(module: str) -> None:
    outside = {found.module.split(".")[0] for found in imports(module)} - sys.stdlib_module_names - {"tickertape"}
    places = [PATHS[module], *PATHS[module].parents]
    assert outside <= set().union(*(OUTSIDE.get(place.as_posix(), set()) for place in places))


def test_no_cycles() -> None:
    """No module imports itself through others, not even from inside a function."""
    graph = {module: {found.module for found in imports(module)} & set(TREES) for module in TREES}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the modules of a cycle


@pytest.mark.parametrize("module", TREES)
def test_no_type_checking_imports(module: str) -> None:
    """Imports that only type checkers see hide cycles."""
    assert "TYPE_CHECKING" not in (ROOT / PATHS[module]).read_text()


def test_every_package_has_its_arrows() -> None:
    assert {package_of(module) for module in TREES} - {""} == set(ARROWS)
