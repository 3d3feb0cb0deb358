"""``make dist`` knows each extra, and what it is for; ``nox`` knows each part of the tests."""

from __future__ import annotations

import tomllib
from pathlib import Path

from release import dist

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


def test_extras() -> None:
    """Each extra is for using the package, with modules to import, or for developing it."""
    assert EXTRAS.keys() == dist.MODULES.keys() | set(dist.DEVELOPING)


def test_modules() -> None:
    for module in {*dist.BASE, *(name for names in dist.MODULES.values() for name in names)}:
        path = ROOT / "src" / Path(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module
