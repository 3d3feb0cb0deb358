"""The page about attacks names every test of them, and no other."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "operations" / "security.md").read_text("utf-8")
NAMED = re.findall(r"`(\w+/\w+\.py)::(\w+)`", PAGE)


def functions_of(file: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))


def test_named_tests_exist() -> None:
    assert [(file, name) for file, name in NAMED if name not in functions_of(TESTS / file)] == []


def test_every_attack_is_named() -> None:
    folder = Path(__file__).parent
    attacks = {(f"security/{file.name}", name) for file in folder.glob("test_*.py") for name in functions_of(file)}
    own = {(f"security/{Path(__file__).name}", name) for name in functions_of(Path(__file__))}
    assert attacks - own - {*NAMED} == set()
