"""The tables and charts of the field, from the results of a run."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..pages import THEMES, Bar, bars, replace_section
from .measure import BEHIND, SMALL
from .peers import PEERS

OURS: Final = ("tickertape", "tickertape serve")
"""The hub in an application, which stands for us where one figure is compared, and the hub as a program."""

FLOOR: Final = "bare loop"
"""Not a server: it is in the tables as a measure, and in no comparison."""


class Column(NamedTuple):
    """A column of the tables: its title, its figure, its text, and if more is better."""

    title: str
    value: Callable[[Mapping[str, Any]], float | None]
    text: Callable[[float], str]
    more: bool = False


def _rate(value: float) -> str:
    return f"{value:,.0f}"


def _milliseconds(value: float) -> str:
    return f"{value * 1000:,.1f}"


def _seconds(value: float) -> str:
    return f"{value:.2f}"


def _kib(value: float) -> str:
    return f"{value / 1024:.1f}"


def _tenths(value: float) -> str:
    return f"{value:,.1f}"


def _of(size: str, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: row[name].get(size)


def columns(size: str) -> list[Column]:
    """Return the columns of a table for events of a size."""
    found = [
        Column("deliveries/s", _of(size, "rate"), _rate, more=True),
        Column("CPU µs per delivery", _of(size, "cpu"), _tenths),
        Column("bytes per delivery", _of(size, "wire"), _rate),
    ]
    if size == f"{SMALL}":
        found[1:1] = [
            Column("p50 ms", lambda row: row["p50"], _milliseconds),
            Column("p99 ms", lambda row: row["p99"], _milliseconds),
        ]
        found += [
            Column("CPU µs per connect", lambda row: row["connect"], _tenths),
            Column("KiB per connection", lambda row: row["memory"], _kib),
            Column("storm s", lambda row: row["storm"], _seconds),
            Column("exit s", lambda row: row["exit"], _seconds),
            Column("lost", lambda row: row["lost"], _rate),
        ]
    return found


def medians(results: Mapping[str, Any], subscribers: int) -> dict[str, dict[str, Any]]:
    """Return the median of each figure of all rounds, by peer; the losses and failures of all rounds together."""
    found: dict[str, dict[str, Any]] = {}
    for peer in PEERS:
        rows = [row for row in results["measured"] if row["peer"] == peer.name and row["subscribers"] == subscribers]
        whole = [row for row in rows if not row["failed"]]
        if not rows:
            continue
        merged: dict[str, Any] = {"failed": "" if whole else rows[-1]["failed"]}
        merged["failures"] = _failures(rows)
        for name in ("connect", "connect_bytes", "memory", "p50", "p99", "storm", "exit"):
            merged[name] = _median(row[name] for row in whole)
        for name in ("rate", "cpu", "wire"):
            sizes = {size for row in whole for size in row[name]}
            merged[name] = {size: _median(row[name].get(size) for row in whole) for size in sizes}
        merged["lost"] = sum(row["lost"] for row in rows) if whole else None
        found[peer.name] = merged
    return found


def _failures(rows: list[Mapping[str, Any]]) -> str:
    """Return how many rounds failed, and each reason; of how many rounds the other figures are the median."""
    reasons = [row["failed"] for row in rows if row["failed"]]
    storms = [row["storm_failed"] for row in rows if not row["failed"] and row.get("storm_failed")]
    parts = [f"{len(reasons)} of {len(rows)} rounds failed: {', '.join(reasons)}"] if reasons else []
    if reasons and len(reasons) < len(rows):
        parts.append(f"median of {len(rows) - len(reasons)}")
    if storms:
        parts.append(f"{len(storms)} of {len(rows)} storms failed: {', '.join(storms)}")
    return "; ".join(parts)


def rounds_of(results: Mapping[str, Any]) -> str:
    """Return the number of rounds; two numbers if the time did not suffice for all."""
    counts = Counter((row["peer"], row["subscribers"]) for row in results["measured"]).values()
    few, many = min(counts), max(counts)
    return f"{few}" if few == many else f"{few} to {many}"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def table(rows: Mapping[str, Mapping[str, Any]], size: str, most: float) -> str:
    """Return a table in Markdown. The best figure of each column is bold."""
    shown = columns(size)
    lines = ["| | " + " | ".join(column.title for column in shown) + " |", "|---" + "|---:" * len(shown) + "|"]
    best = {column.title: first(rows, column) for column in shown}
    for name, row in rows.items():
        cells = []
        for column in shown:
            value = column.value(row)
            text = "–" if value is None else column.text(value)
            if column.title == "exit s" and value is None and not row["failed"]:
                text = f"> {most:g}"
            cells.append(f"**{text}**" if name in best[column.title] else text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def first(rows: Mapping[str, Mapping[str, Any]], column: Column) -> list[str]:
    """Return the peers with the best figure, as it is printed; without the bare loop."""
    known = [(name, value) for name, row in rows.items() if name != FLOOR and (value := column.value(row)) is not None]
    if not known:
        return []
    best = (max if column.more else min)(value for _, value in known)
    return [name for name, value in known if column.text(value) == column.text(best)]


def verdicts(results: Mapping[str, Any]) -> str:
    """Return where tickertape is not first, in words."""
    lines = []
    for subscribers in results["plan"]["subscribers"]:
        if subscribers < 1000:
            continue
        rows = medians(results, subscribers)
        if OURS[0] not in rows or rows[OURS[0]]["failed"]:
            continue
        for size in map(str, results["plan"]["sizes"]):
            for column in columns(size):
                ours = column.value(rows[OURS[0]])
                winners = first(rows, column)
                if not winners or set(OURS) & set(winners):
                    continue
                theirs = column.value(rows[winners[0]])
                assert theirs is not None
                figure = f"more than {results['plan']['exit']:g}" if ours is None else column.text(ours)
                figures = f"{figure}, and {column.text(theirs)} of {' and '.join(winners)}"
                lines.append(f"- {subscribers:,} subscribers, {size} bytes, {column.title}: {figures}.\n")
    if not lines:
        return "tickertape is first in every column at 1,000 and more subscribers.\n"
    return "tickertape is **not** first here, at 1,000 and more subscribers:\n\n" + "".join(lines)


PAIRS: Final = (("Starlette", "uvicorn WebSocket"), (OURS[0], "websockets"))
"""Event streams and WebSockets that can be compared: one server with the same queues, and the best one of each."""

WEIGHTS: Final = (
    Column("bytes to connect", lambda row: row["connect_bytes"], _rate),
    Column("CPU µs per connect", lambda row: row["connect"], _tenths),
    Column("KiB per connection", lambda row: row["memory"], _kib),
    Column(f"bytes per delivery, {SMALL} B", _of(f"{SMALL}", "wire"), _rate),
    Column(f"CPU µs per delivery, {SMALL} B", _of(f"{SMALL}", "cpu"), _tenths),
)


def weights(results: Mapping[str, Any]) -> str:
    """Return a comparison of event streams with WebSockets, and its result in words."""
    requests = {peer.name: len(peer.request()) for peer in PEERS}
    rows = medians(results, max(results["plan"]["subscribers"]))
    for name, row in rows.items():
        if row["connect_bytes"] is not None:
            row["connect_bytes"] += requests[name]
    titles = [column.title for column in WEIGHTS]
    lines = ["| | | " + " | ".join(titles) + " |\n|---|---" + "|---:" * len(titles) + "|\n"]
    sentences = []
    for stream, websocket in PAIRS:
        if any(rows.get(name, {"failed": "absent"})["failed"] for name in (stream, websocket)):
            continue
        lighter: dict[str, list[str]] = {"The event stream": [], "The WebSocket": []}
        for kind, name in (("event stream", stream), ("WebSocket", websocket)):
            cells = [column.text(column.value(rows[name]) or 0) for column in WEIGHTS]
            lines.append(f"| {name} | {kind} | {' | '.join(cells)} |\n")
        for column in WEIGHTS:
            one, other = column.value(rows[stream]) or 0, column.value(rows[websocket]) or 0
            if column.text(one) != column.text(other):
                lighter["The event stream" if one < other else "The WebSocket"].append(column.title)
        found = [f"{kind} needs less: {'; '.join(which)}." for kind, which in lighter.items() if which]
        sentences.append(f"{stream} beside {websocket}: {' '.join(found)}\n")
    return "".join(lines) + "\n" + "\n".join(sentences) if sentences else ""


def markdown(results: Mapping[str, Any], charts: Mapping[str, str]) -> str:
    """Return the section of the page."""
    found = results["machine"]
    minutes = results["seconds"] / 60
    computer = f"{found['cores']} cores of {found['processor']}, {found['memory']} GiB, {found['system']}"
    rounds = rounds_of(results)
    repeated = "one round" if rounds == "1" else f"median of {rounds} rounds"
    work = f"Python {found['python']}; {repeated}, {minutes:.0f} minutes in all"
    parts = [f"{computer}, {work}. {found['note']}\n"]
    for name, alternative in charts.items():
        parts += [
            f"```{{image}} images/field-{name}-{theme}.svg\n:alt: {alternative}\n:class: only-{theme}\n```\n"
            for theme in THEMES
        ]
    for subscribers in sorted(results["plan"]["subscribers"], reverse=True):
        rows = medians(results, subscribers)
        for size in map(str, results["plan"]["sizes"]):
            parts.append(f"{subscribers:,} subscribers, events of {size} bytes:\n")
            parts.append(table(rows, size, results["plan"]["exit"]))
        failed = [f"{name}: {row['failures']}" for name, row in rows.items() if row["failures"]]
        if failed:
            parts.append(
                "Failed rounds and storms are not in the medians:\n\n" + "".join(f"- {each}.\n" for each in failed)
            )
    parts.append(verdicts(results))
    if compared := weights(results):
        parts.append("Is an event stream lighter than a WebSocket? Connecting counts the request and the response:\n")
        parts.append(compared)
    if results["absent"]:
        parts.append("Skipped: " + "; ".join(f"{name} ({why})" for name, why in results["absent"].items()) + ".\n")
    versions = results["versions"]
    parts.append(
        "| peer | version | broadcast |\n|---|---|---|\n"
        + "".join(
            f"| {peer.name} | {versions[peer.name]} | {peer.about} |\n" for peer in PEERS if peer.name in versions
        )
    )
    return "\n".join(parts)


# Charts.

CHARTS: Final = {
    "rate": ("Deliveries a second, back to back", "more is better"),
    "cpu": ("CPU µs for each delivery", "less is better"),
    "memory": ("KiB of memory for each connection", "less is better"),
}


def _colour(peer: str) -> str:
    return "ours" if peer in OURS else "floor" if peer == FLOOR else "bar"


def charts(results: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the charts by file name, and their descriptions by name."""
    subscribers = max(results["plan"]["subscribers"])
    rows = medians(results, subscribers)
    files, alternatives = {}, {}
    by_title = {column.title: column for column in columns(f"{SMALL}")}
    titles = {"rate": "deliveries/s", "cpu": "CPU µs per delivery", "memory": "KiB per connection"}
    for name, (title, hint) in CHARTS.items():
        column = by_title[titles[name]]
        known = [(peer, value) for peer, row in rows.items() if (value := column.value(row)) is not None]
        known.sort(key=lambda row: row[1], reverse=column.more)
        ordered = [Bar(peer, value, column.text(value), _colour(peer)) for peer, value in known]
        whole = f"{title}: {subscribers:,} subscribers, {SMALL} bytes ({hint})"
        alternatives[name] = whole
        for theme, colours in THEMES.items():
            files[f"field-{name}-{theme}.svg"] = bars(whole, ordered, colours)
    return files, alternatives


def write(results: Mapping[str, Any], docs: Path | None) -> str:
    """Return the section of the page, and write it with its charts and figures into a folder of documentation."""
    files, alternatives = charts(results)
    text = markdown(results, alternatives)
    if docs is not None:
        for name, chart in files.items():
            (docs / "images" / name).write_text(chart, "utf-8")
        replace_section(docs / "performance.md", "field", text)
        (docs / "field.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return text


__all__ = ["BEHIND", "markdown", "medians", "table", "write"]
