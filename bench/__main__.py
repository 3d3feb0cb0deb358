"""Run benchmarks: ``python -m bench`` all of them, ``python -m bench wire`` the one of that name."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from types import ModuleType

import bench


def main() -> None:
    names = [module.name for module in pkgutil.iter_modules(bench.__path__) if module.name != "__main__"]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="benchmarks to run; all if none is given")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    options, _ = parser.parse_known_args()  # others are of the benchmarks
    if unknown := set(options.names) - set(names):
        parser.error(f"expected names of modules in bench/, got {', '.join(sorted(unknown))}")

    # Only the requested benchmark is imported: the peers of others need not be installed.
    benchmarks = {name: _load(name) for name in options.names or names}
    for name, module in benchmarks.items():
        if not hasattr(module, "main"):
            continue
        print(f"{name}: {(module.__doc__ or '').splitlines()[0]}")
        if not options.list:
            print()
            module.main()
            print()


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"bench.{name}")


if __name__ == "__main__":
    main()
