"""Every page: its snippets are valid, and the complete ones run."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import textwrap
import tomllib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.sse import EventSourceResponse as FastAPIResponse
from sse_starlette import EventSourceResponse as SSEStarletteResponse

from support.pages import files_of
from tickertape import EventSourceResponse, Hub, ServerSentEvent
from tickertape.testing import EventStreamClient

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
BLOCK = re.compile(
    r"^([ ]*)(?:```|:::)(?:\{code-block\} )?(\w+)\n((?:[ ]*:\w+:[^\n]*\n)*)\n?(.*?)^\1(?:```|:::)$",
    re.MULTILINE | re.DOTALL,
)


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in some languages."""
    found = BLOCK.findall(page.read_text("utf-8"))
    return [textwrap.dedent(text) for _, language, _, text in found if language in languages]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python(page: Path) -> None:
    for text in blocks(page, "python"):
        ast.parse(text)


def test_javascript(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI") == "true":
            pytest.fail("node is not on the path")
        pytest.skip("node is not on the path")
    scripts = [(page, text) for page in PAGES for text in blocks(page, "js")]
    assert len(scripts) > 5
    paths = []
    for number, (_, text) in enumerate(scripts):
        paths.append(tmp_path / f"{number}.mjs")
        paths[-1].write_text(text, "utf-8")
    checks = [subprocess.Popen([node, "--check", str(path)], stderr=subprocess.PIPE) for path in paths]
    for (page, text), check in zip(scripts, checks, strict=True):
        _, problem = check.communicate()
        assert check.returncode == 0, (page, text, problem.decode())


async def test_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for start in (1, 2):
        names: dict[str, Any] = {"__name__": "app"}
        exec(files_of("quickstart")["app.py"], names)
        async with EventStreamClient(names["app"]) as client:
            async with client.open("/orders/42/pay", method="POST") as answer:
                assert re.fullmatch(rf'{{"cursor":"\w+-{start}"}}', (await answer.read()).decode())
            async with client.open("/events") as stream:
                shown = [await stream.next_event() for _ in range(start)]
            assert [event.json() for event in shown] == [{"number": 42, "state": "paid"}] * start
            async with client.open("/") as page:
                assert "new EventSource" in (await page.read()).decode()


@pytest.mark.parametrize("last_event_id", [None, "41"])
async def test_first_stream(last_event_id: str | None) -> None:
    """The tutorial shows the bytes that the stream begins with."""
    page = DOCS / "tutorial" / "first-stream.md"
    names: dict[str, Any] = {"__name__": "app"}
    exec("\n".join(blocks(page, "python")), names)
    sent: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            raise OSError("the client has left")

    header = [] if last_event_id is None else [(b"last-event-id", last_event_id.encode())]
    scope = {"type": "http", "method": "GET", "path": "/numbers", "headers": header, "query_string": b""}
    with suppress(OSError):
        await names["app"](scope, receive, send)
    command = "curl -N" + ("" if last_event_id is None else f" -H 'Last-Event-ID: {last_event_id}'")
    assert f"$ {command} localhost:8000/numbers\n{sent[0].decode()}" in page.read_text("utf-8").replace("```", "\n```")


def test_extras() -> None:
    """The page about the installation names every extra for users, and no other."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"^\| `(\w+)` \|", (DOCS / "install.md").read_text("utf-8"), re.MULTILINE)
    assert set(named) == set(extras) - {"docs", "bench", "dev"}


def test_bytes_of_an_event() -> None:
    """The figure on the page about WebSockets."""
    page = (DOCS / "topics" / "sse-or-websocket.md").read_text("utf-8")
    cursor, data = "0a1b2c3d4e5f-42", "x" * 120
    size = len(ServerSentEvent(data, id=cursor).encode()) - len(data)
    assert f"adds {size}\n  bytes to a line of data" in page
    assert len(ServerSentEvent(data, id=cursor, event="order").encode()) == len(data) + size + len("order") + 8


def test_reference() -> None:
    """Every public name for users is in the reference."""
    reference = "".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"auto(?:class|function):: tickertape(?:\.\w+)*\.(\w+)", reference))
    documented |= set(importlib.import_module("tickertape.errors").__all__)  # by automodule
    for package in ("tickertape", "tickertape.client", "tickertape.testing"):
        module = importlib.import_module(package)
        classes = [name for name in module.__all__ if callable(getattr(module, name))]
        assert set(classes) <= documented, set(classes) - documented


def test_reference_of_hub() -> None:
    """Every public method and property of a hub is in the reference, but those for servers of its streams."""
    page = (DOCS / "reference" / "hub.md").read_text("utf-8")
    documented = set(re.findall(r"auto(?:method|property):: tickertape\.Hub\.(\w+)", page))
    internal = {
        "attach",
        "delivery",
        "find_start",
        "is_over",
        "last_block",
        "limit_age",
        "limit_right",
        "open_direct",
        "publish_now",
        "read_recent",
        "retry_block",
        "subscribe_at",
    }
    assert {name for name in vars(Hub) if not name.startswith("_")} - internal == documented


async def refused() -> AsyncIterator[str]:
    for status in (403,):
        raise HTTPException(status)
    yield ""


async def items() -> AsyncIterator[object]:
    yield {"data": "x"}
    yield "text"


ITEMS = {
    "tickertape": (["JSON", "text"], ['{"data":"x"}', "text"]),
    "sse-starlette": (["the fields of an event", "text"], ["x", "text"]),
    "FastAPI's own": (["JSON", "a JSON string; `raw_data=` for text"], ['{"data":"x"}', '"text"']),
}
"""The cells for a `dict` and for a `str`, and the data of the events."""


@pytest.mark.parametrize(("column", "library"), list(enumerate(ITEMS, start=1)))
async def test_comparison_of_responses(column: int, library: str) -> None:
    page = (DOCS / "topics" / "comparison.md").read_text("utf-8").partition("## Hubs")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    cells = {row[0]: row[column] for row in rows}
    app = FastAPI()
    if library == "FastAPI's own":
        app.get("/refused", response_class=FastAPIResponse)(refused)
        app.get("/items", response_class=FastAPIResponse)(items)
    else:
        response: Any = EventSourceResponse if library == "tickertape" else SSEStarletteResponse
        app.get("/refused")(lambda: response(refused()))
        app.get("/items")(lambda: response(items()))
    async with EventStreamClient(app) as client:
        early = {403: "an HTTP error", 200: "the stream has begun"}
        async with client.open("/refused") as stream:
            assert cells["exception before the first event"] == early[stream.status]
        async with client.open("/items") as stream:
            shown = [(await stream.next_event()).data for _ in range(2)]
    words, data = ITEMS[library]
    assert shown == data
    assert [cells["a `dict` that you yield"], cells["a `str` that you yield"]] == words
