"""Alert rules, dashboard and documentation, compared with what the server really exposes."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from support.program import serving
from support.servers import Connection
from support.tools import require

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "tickertape.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "tickertape.json"
PAGE = (ROOT / "docs" / "operations" / "monitoring.md").read_text("utf-8")

FEEDS = {f"tickertape_feed_{name}_total" for name in ("published", "skipped", "failures", "restarts")}
"""A server has no feeds, so these have no samples."""


async def exposed() -> str:
    async with serving("--workers", "2") as program, await Connection.open(program.port) as connection:
        assert await connection.get("/metrics", headers="Connection: close\r\n") == 200
        while await connection.piece():
            pass
        return connection.body.decode()


def expressions() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    yield from re.findall(r"expr: (.+?)\n +(?:for|labels)", RULES.read_text(), re.DOTALL)


async def test_names_and_labels() -> None:
    labels: dict[str, set[str]] = {name: {"feed"} for name in FEEDS}
    for family in parse(await exposed()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    seen = [*expressions()]
    assert len(seen) > 30
    for expression in seen:
        names = set(re.findall(r"\b(?:tickertape|process)_\w+", expression))
        assert names <= labels.keys(), expression
        used = {
            label
            for group in re.findall(r"\b(?:by|without) \(([^)]*)\)", expression)
            + re.findall(r"\{([^}]*)\}", expression)
            for label in re.findall(r"\b[a-z_]+\b(?=\s*(?:=|,|$))", re.sub(r'"[^"]*"', "", group))
        }
        known = {"job", "instance"}.union(*(labels[name] for name in names))
        assert used <= known, (expression, used - known)


async def test_every_metric_is_documented() -> None:
    families = {family.name: family for family in parse(await exposed()) if family.name.startswith("tickertape")}
    for family in families.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in PAGE, name
    for name in FEEDS:
        assert f"`{name}`" in PAGE, name


def test_every_alert_is_documented() -> None:
    named = re.findall(r"alert: (\w+)", RULES.read_text())
    assert re.findall(r"^\| `(Tickertape\w+)` \|", PAGE, re.MULTILINE) == named


@pytest.mark.parametrize(
    "arguments", [["check", "rules", RULES.name], ["test", "rules", "tickertape.test.yml"]], ids=["syntax", "cases"]
)
def test_rules(arguments: list[str]) -> None:
    tool = require("promtool", "prometheus")
    done = subprocess.run([tool, *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_conventions_of_prometheus() -> None:
    """Promtool reports names and units that break the conventions."""
    tool = require("promtool", "prometheus")
    check = functools.partial(subprocess.run, [tool, "check", "metrics"], capture_output=True, text=True, check=False)
    done = await asyncio.to_thread(check, input=await exposed())
    assert [line for line in (done.stdout + done.stderr).splitlines() if "tickertape" in line] == []
