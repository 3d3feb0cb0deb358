"""The pages about the program: no setting, no path and no status is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tickertape.server.openapi import describe
from tickertape.server.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"
SERVE = (DOCS / "operations" / "serve.md").read_text("utf-8")
HTTP = (DOCS / "reference" / "http.md").read_text("utf-8")

ROUTES = [(method.upper(), path) for path, item in describe()["paths"].items() for method in item]


def test_rows_of_settings() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", SERVE, re.MULTILINE)
    assert [name for name, _ in rows] == list(Settings.model_fields)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_request_is_named(method: str, path: str) -> None:
    assert f"`{method} {path}`" in HTTP


def test_every_status_of_a_problem_is_named() -> None:
    statuses = {
        status
        for item in describe()["paths"].values()
        for operation in item.values()
        for status in operation["responses"]
        if status >= "400"
    }
    table = HTTP.partition("## Problems")[2]
    assert {status for status in statuses if not re.search(rf"^\| .*\b{status}\b", table, re.MULTILINE)} == set()


@pytest.mark.parametrize(("parameter", "operation"), [("GET /events", "/events"), ("GET /history", "/history")])
def test_every_parameter_is_named(parameter: str, operation: str) -> None:
    section = HTTP.partition(f"## `{parameter}`")[2].partition("\n## ")[0]
    names = {entry["name"] for entry in describe()["paths"][operation]["get"]["parameters"]}
    assert {name for name in names if f"`{name}`" not in section} == set()
