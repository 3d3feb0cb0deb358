"""``__all__`` of every package: complete and sorted. The top package imports without extras."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tickertape

MODULES = sorted(
    name for _, name, _ in pkgutil.walk_packages(tickertape.__path__, "tickertape.") if not name.endswith("__main__")
)
PACKAGES = [name for name in MODULES if hasattr(importlib.import_module(name), "__path__")]


def reexported_names(package: ModuleType) -> set[str]:
    """Return the names that a package's ``__init__`` imports from its own modules."""
    return {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).startswith(f"{package.__name__}.")
    }


def casing_and_name(name: str) -> tuple[int, str]:
    """Return the sort key that the linter requires: constants, then classes, then the rest."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2, name


@pytest.mark.parametrize("name", ["tickertape", *MODULES])
def test_all_is_sorted_and_exists(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert list(exported) == sorted(exported, key=casing_and_name)
    assert [entry for entry in exported if not hasattr(module, entry)] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_complete(name: str) -> None:
    module = importlib.import_module(name)
    assert reexported_names(module) <= set(getattr(module, "__all__", []))


def test_modules_inside_packages_have_no_all() -> None:
    """A package exports in its ``__init__`` only; the modules at the top and the integrations are like packages."""
    inside = [name for name in MODULES if name not in PACKAGES and name.count(".") > 1 and ".integrations." not in name]
    assert [name for name in inside if hasattr(importlib.import_module(name), "__all__")] == []


def test_import_without_extras() -> None:
    source = str(Path(tickertape.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); import tickertape; print(*sys.modules)"
    bare = [sys.executable, "-I", "-S", "-c", code]  # no site-packages, only the standard library
    modules = subprocess.run(bare, capture_output=True, text=True, check=True).stdout.split()
    outside = {name.split(".")[0] for name in modules} - sys.stdlib_module_names
    assert outside == {"__main__", "tickertape"} - sys.stdlib_module_names
