"""The README's programs run as pasted, its links and figures are right, and the contributor's guide is complete."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel

import tickertape
from tickertape import EventSourceResponse, Hub
from tickertape.runs import Runs
from tickertape.testing import EventStreamClient

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tickertape"
README = (ROOT / "README.md").read_text("utf-8")
SNIPPETS: list[str] = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAM = SNIPPETS.pop(0)
PATH = re.findall(r"^curl -X POST http://127\.0\.0\.1:8000(\S+)", README, re.MULTILINE)[0]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
RAW = REPOSITORY.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"


def snippet(text: str) -> str:
    """Return the README's snippet that contains a text."""
    return next(found for found in SNIPPETS if text in found)


async def test_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len([line for line in PROGRAM.splitlines() if line]) == 10
    names: dict[str, Any] = {"__name__": "app"}
    exec(PROGRAM, names)
    for start in (1, 2):
        async with EventStreamClient(names["app"]) as client:
            async with client.open(PATH, method="POST") as answer:
                assert answer.status == 200
            async with client.open("/events") as stream:
                events = [await stream.next_event() for _ in range(start)]
            assert [event.json() for event in events] == [{"number": 42, "state": "paid"}] * start
            assert {event.event for event in events} == set(re.findall(r'addEventListener\("(\w+)"', README))


def test_changelog() -> None:
    """The current version is the first one, and short enough for two minutes."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert versions[0].startswith(f"{tickertape.__version__}\n")
    assert len(versions[0].split()) <= 600


def test_start_page() -> None:
    """The documentation begins with the same program."""
    assert PROGRAM in (ROOT / "docs" / "index.md").read_text("utf-8")


async def test_generator() -> None:
    app = FastAPI()
    exec(snippet("/countdown"), {"app": app, "asyncio": asyncio, "EventSourceResponse": EventSourceResponse})
    async with EventStreamClient(app) as client, client.open("/countdown") as stream:
        assert (await stream.next_event()).json() == {"left": 10}


async def test_answer_of_a_model() -> None:
    async def model(prompt: str) -> AsyncIterator[str]:
        yield prompt
        raise ConnectionError("the model is gone")

    class Question(BaseModel):
        id: str
        text: str

    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)
    names = {"app": app, "hub": hub, "model": model, "Runs": Runs, "Question": Question, "Request": Request}
    exec(snippet("/chat/{chat}"), names)
    question = {"id": "a", "text": "hello"}
    async with EventStreamClient(app) as client, client.open("/chat/1", method="POST", json=question) as stream:
        parts = [(await stream.next_event()).json() for _ in range(5)]
    assert [part["type"] for part in parts] == ["start", "text-start", "text-delta", "text-end", "error"]


async def test_snippet_for_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippet passes for the README's program, after its command."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "app", "EventStreamClient": EventStreamClient}
    exec(PROGRAM, names)
    async with EventStreamClient(names["app"]) as client, client.open(PATH, method="POST") as answer:
        assert answer.status == 200
    code = compile(snippet("EventStreamClient"), "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, names)


def test_links() -> None:
    """Links are absolute, since PyPI shows the page elsewhere, and links to this repository lead to a file."""
    targets = re.findall(r"\]\(([^)]*)\)", README)
    assert len(targets) > 20
    for target in targets:
        assert target.startswith("https://"), target
        for prefix in (f"{REPOSITORY}/blob/main/", f"{REPOSITORY}/tree/main/", RAW):
            if target.startswith(prefix):
                assert (ROOT / target.removeprefix(prefix).partition("#")[0]).exists(), target
                break
        else:
            assert "tickertape" not in target, target
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())


def test_figures() -> None:
    """Each figure of the README is on the page about performance, with its command."""
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    table = README.partition("\n## Figures\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 5
    for row in rows:
        for command in re.findall(r"`(python -m bench \w+)`", row):
            assert f"$ {command}\n" in page, command
        for figure in re.findall(r"\d+\.\d+|\d+,\d+", row):
            assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d,])", page), figure


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
