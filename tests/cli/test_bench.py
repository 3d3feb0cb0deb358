"""``tickertape bench``: the form of its results. Their values depend on the machine."""

from __future__ import annotations

import json

import pytest

from support.command import run


def test_json() -> None:
    status, output, errors = run("bench", "--subscribers", "3", "--events", "5", "--json")
    assert (status, errors) == (0, "")
    found = json.loads(output)
    assert (found["subscribers"], found["events"]) == (3, 5)
    bare, hub = found["results"]
    assert (bare["name"], bare["ratio"], hub["name"]) == ("bare loop of writes", 1.0, "tickertape hub")
    assert hub["microseconds"] / bare["microseconds"] == pytest.approx(hub["ratio"])


def test_table() -> None:
    status, output, _ = run("bench", "--subscribers", "2", "--events", "2")
    assert status == 0
    assert "2 events to 2 subscribers" in output
    assert "µs a delivery" in output


@pytest.mark.parametrize("arguments", [["--subscribers", "0"], ["--events", "0"], ["extra"]])
def test_mistakes(arguments: list[str]) -> None:
    status, output, errors = run("bench", *arguments)
    assert (status, output) == (2, "")
    assert "Traceback" not in errors
