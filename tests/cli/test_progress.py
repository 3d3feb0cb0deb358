"""Bars for events that carry their progress: their data, their limit, and the notes beside them."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from tickertape import ServerSentEvent
from tickertape.cli.progress import MAX_BARS, ProgressBars, progress_of


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"progress": 0}', (0.0, {})),
        ('{"progress": 1}', (1.0, {})),
        ('{"progress": 0.25, "step": "a"}', (0.25, {"step": "a"})),
        ('{"progress": 1.01}', None),
        ('{"progress": -0.1}', None),
        ('{"progress": NaN}', None),
        ('{"progress": true}', None),
        ('{"progress": "0.5"}', None),
        ('{"progress": null}', None),
        ('{"other": "progress"}', None),
        ('["progress"]', None),
        ('{"progress": 0.5', None),
        ("progress", None),
        ('"progress"', None),
        ("", None),
        (None, None),
    ],
)
def test_progress_of(data: str | None, expected: tuple[float, dict[str, Any]] | None) -> None:
    assert progress_of(ServerSentEvent(data)) == expected


def shown(*events: tuple[ServerSentEvent, str | None]) -> list[str]:
    """Return the lines of the last state of the bars."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, color_system=None, width=150)
    bars = ProgressBars(console)
    for event, topic in events:
        assert bars.show(event, topic)
    bars.close()
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.getvalue().rpartition("\r")[2])
    return [line.strip() for line in last.splitlines() if line.strip()]


def event(progress: float, *, kind: str | None = None, **more: Any) -> ServerSentEvent:
    return ServerSentEvent({"progress": progress, **more}, event=kind)


def test_one_bar_for_each_topic() -> None:
    lines = shown((event(0.1), "a"), (event(0.5), "b"), (event(0.2, kind="x"), "a"), (event(1, kind="step"), None))
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [("a", "20%"), ("b", "50%"), ("step", "100%")]


def test_limit_of_bars() -> None:
    lines = shown(*((event(0.5), f"topic{number}") for number in range(MAX_BARS + 3)))
    assert [line.split()[0] for line in lines] == [f"topic{number}" for number in range(3, MAX_BARS + 3)]


def test_note_is_one_harmless_line() -> None:
    (line,) = shown((event(0.5, step="a\nb\x1b[31m", n=3, long="x" * 500), "to\npic"))
    assert "step: a b\\x1b[31m  n: 3  long: xxx" in line
    assert line.endswith("…")
    assert line.startswith("to pic")


def test_ordinary_events_are_left() -> None:
    bars = ProgressBars(Console(file=io.StringIO(), force_terminal=True))
    assert not bars.show(ServerSentEvent(json.dumps({"progress": 2})), "a")
    bars.close()
