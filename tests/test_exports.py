"""``__all__`` of every package: complete, sorted, and importable without any extra at the top."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import tickertape

MODULES = sorted(
    name for _, name, _ in pkgutil.walk_packages(tickertape.__path__, "tickertape.") if not name.endswith("__main__")
)


def public_names(module: ModuleType) -> set[str]:
    """What a module defines or, if it is a package, gathers from its own modules, without an underscore."""
    gathered = hasattr(module, "__path__")
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", "").startswith(module.__name__ if gathered else f"{module.__name__}\0"[:-1])
        and (gathered or getattr(value, "__module__", None) == module.__name__)
    }


@pytest.mark.parametrize("name", ["tickertape", *MODULES])
def test_all_is_sorted_and_exists(name: str) -> None:
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert list(exported) == sorted(exported)
    assert [entry for entry in exported if not hasattr(module, entry)] == []


@pytest.mark.parametrize("name", [name for name in MODULES if hasattr(importlib.import_module(name), "__path__")])
def test_a_package_lists_all_that_it_gathers(name: str) -> None:
    module = importlib.import_module(name)
    assert public_names(module) <= set(getattr(module, "__all__", []))


def test_the_top_imports_without_any_extra() -> None:
    code = (
        "import sys, tickertape; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'tickertape'}))"
    )
    bare = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(tickertape.__path__[0] + '/..')!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert bare.stdout.split() == ["__main__"] or bare.stdout.split() == []
