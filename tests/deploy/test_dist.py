"""``make dist`` knows each extra, and what it is for; ``nox`` knows each part of the tests."""

from __future__ import annotations

import ast
import json
import tomllib
from pathlib import Path
from typing import Any

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


def test_parts_of_nox() -> None:
    """Each folder and file with tests is in one part, or apart from all of them."""
    lists: dict[str, Any] = {}
    for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            lists[node.targets[0].id] = ast.literal_eval(node.value)
    named = [path for paths in (*lists["PARTS"].values(), lists["APART"]) for path in paths]
    tests = ROOT / "tests"
    found = {"/".join(path.relative_to(ROOT).parts[:2]) for path in tests.rglob("test_*.py")}
    assert sorted(named) == sorted(found)


def bill(folder: str) -> dict[str, Any]:
    """Return a bill as ``cyclonedx-py`` writes it, for a wheel in this folder."""
    local = {"comment": "PackageSource: Local", "type": "distribution", "url": f"file://{folder}/tickertape.whl"}
    site = {"type": "vcs", "url": "https://github.com/tickertape/tickertape"}
    root = {"bom-ref": "tickertape==0.1.0", "name": "tickertape", "version": "0.1.0", "type": "library"}
    rich = {"bom-ref": "rich==15.0.0", "name": "rich", "version": "15.0.0", "purl": "pkg:pypi/rich@15.0.0"}
    return {
        "bomFormat": "CycloneDX",
        "metadata": {"tools": {}},
        "components": [rich, {**root, "externalReferences": [local, site]}],
        "dependencies": [
            {"ref": "rich==15.0.0"},
            {"ref": "tickertape==0.1.0", "dependsOn": ["rich==15.0.0"]},
        ],
    }


def test_bill_of_materials() -> None:
    """Its subject is the wheel, uPlot is in it, and the folder of the build is not."""
    made = dist.complete_bill(bill("/home/a"), "tickertape-0.1.0-py3-none-any.whl", "ab" * 32)
    assert made == dist.complete_bill(bill("/home/b"), "tickertape-0.1.0-py3-none-any.whl", "ab" * 32)
    assert "file:" not in json.dumps(made)
    subject = made["metadata"]["component"]
    assert subject["purl"] == "pkg:pypi/tickertape@0.1.0?file_name=tickertape-0.1.0-py3-none-any.whl"
    assert subject["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    parts = {part["name"]: part for part in made["components"]}
    assert parts.keys() == {"rich", "uplot"}
    uplot = parts["uplot"]
    assert f"(v{uplot['version']})" in dist.UPLOT.read_text("utf-8")
    assert uplot["licenses"][0]["license"]["id"] == "MIT"
    known = {found["ref"]: found.get("dependsOn", []) for found in made["dependencies"]}
    assert known.keys() == {subject["bom-ref"], *(part["bom-ref"] for part in parts.values())}
    assert known[subject["bom-ref"]] == ["rich==15.0.0", uplot["bom-ref"]]
