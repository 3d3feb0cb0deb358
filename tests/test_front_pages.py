"""The README's program runs as pasted, and the contributor's guide is complete."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from tickertape import Hub
from tickertape.testing import EventStreamClient

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tickertape"
README = (ROOT / "README.md").read_text("utf-8")
PROGRAM = README.partition("Save this as `app.py`:\n\n```python\n")[2].partition("```")[0]
PATH = re.findall(r"^curl -X POST http://127\.0\.0\.1:8000(\S+)", README, re.MULTILINE)[0]


async def test_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "app"}
    exec(PROGRAM, names)
    for start in (1, 2):
        async with EventStreamClient(names["app"]) as client:
            async with client.open(PATH, method="POST") as answer:
                assert re.fullmatch(rf'{{"cursor":"\w+-{start}"}}', (await answer.read()).decode())
            async with client.open("/events") as stream:
                events = [await stream.next_event() for _ in range(start)]
            assert [event.json() for event in events] == [{"number": 42, "state": "paid"}] * start
            async with client.open("/") as page:
                assert "new EventSource" in (await page.read()).decode()


def test_modules() -> None:
    """The contributor's guide names every module of every package."""
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for package in sorted(path.parent for path in SOURCE.glob("*/__init__.py")):
        table = guide.partition(f"| `{package.name}/` |")[2].partition("\n\n")[0]
        named = set(re.findall(r"\w+(?:/\w+)*", table))
        for path in package.rglob("*.py"):
            parts = path.relative_to(package).with_suffix("").parts
            assert path.name == "__init__.py" or "/".join(parts) in named or set(parts) <= named, path


def test_architecture() -> None:
    """Every module and function on the page about the architecture exists."""
    page = (ROOT / "docs" / "topics" / "architecture.md").read_text("utf-8")
    steps = re.findall(r"^\| \d \| `(\S+\.py)`(?:, `([\w.]+)`)?", page, re.MULTILINE)
    assert len(steps) > 10
    for path, name in steps:
        source = (SOURCE / path).read_text("utf-8")
        for part in name.split("."):
            assert re.search(rf"\b(class|def) {part}\b", source) or not part, (path, name)
    for path in re.findall(r"`(\w+/\w+\.py)`", page):
        assert (SOURCE / path).exists(), path


def test_options_of_a_hub() -> None:
    """The how-to page has every option of a hub but the two for tests."""
    page = (ROOT / "docs" / "how-to" / "hub.md").read_text("utf-8")
    table = page.partition("\n## Set options\n")[2].partition("\n## ")[0]
    options = set(inspect.signature(Hub).parameters) - {"broker", "clock", "random"}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == options
