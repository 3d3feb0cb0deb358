"""The tables and charts of many connections, from the results of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..pages import THEMES, Bar, bars, replace_section


class Column(NamedTuple):
    """A column of a table: its title, and its text."""

    title: str
    text: Callable[[Mapping[str, Any]], str]


MIB: Final = 1 << 20

STEP: Final = (
    Column("workers", lambda row: f"{row['workers']}"),
    Column("connections", lambda row: f"{row['connections']:,}"),
)

COSTS: Final = (
    *STEP,
    Column("CPU µs per delivery", lambda row: f"{row['delivery'] * 1e6:.1f}"),
    Column("cores at one event a second", lambda row: f"{row['busy']:.2f}"),
    Column("of the readers", lambda row: f"{row['reader']:.2f}"),
    Column("cores without events", lambda row: f"{row['silent']:.2f}"),
    Column("p50 ms", lambda row: f"{row['p50'] * 1000:,.0f}"),
    Column("p99 ms", lambda row: f"{row['p99'] * 1000:,.0f}"),
    Column("lost", lambda row: f"{row['lost']:,}"),
    Column("load", lambda row: " to ".join(f"{load:g}" for load in sorted(row["load"]))),
)

MEMORY: Final = (
    *STEP,
    Column("of one worker", lambda row: f"{min(row['held']):,} to {max(row['held']):,}"),
    Column("MiB of all workers", lambda row: f"{row['workers_memory'] / MIB:,.0f}"),
    Column("KiB per connection", lambda row: f"{row['connection_memory'] / 1024:.2f}"),
    Column("KiB per connection, kernel", lambda row: f"{row['kernel_memory'] / 1024:.2f}"),
    Column("MiB of socket buffers", lambda row: f"{row['sockets_memory'] / MIB:,.0f}"),
)

RECONNECTS: Final = (
    *STEP,
    Column("s until all are connected", lambda row: f"{row['connecting']:.1f}"),
    Column("CPU µs per connect", lambda row: f"{row['connect'] * 1e6:.0f}"),
    Column("clients of a lost worker", lambda row: f"{row['returned']:,}" if row["returned"] else "–"),
    Column("connections that a full worker closed", lambda row: f"{row['refused']:,}" if row["returned"] else "–"),
    Column("s until all have returned", lambda row: f"{row['returning']:.1f}" if row["returned"] else "–"),
    Column("CPU µs per return", lambda row: f"{row['return_cost'] * 1e6:.0f}" if row["returned"] else "–"),
)

CHARTS: Final[Mapping[str, tuple[str, Callable[[Mapping[str, Any]], float], str]]] = {
    "cpu": ("CPU µs of all workers for each delivery (less is better)", lambda row: row["delivery"] * 1e6, "{:.1f}"),
    "memory": (
        "MiB of all workers with all connections (less is better)",
        lambda row: row["workers_memory"] / MIB,
        "{:,.0f}",
    ),
}


def table(rows: Iterable[Mapping[str, Any]], columns: Iterable[Column]) -> str:
    """Return a table in Markdown."""
    shown = list(columns)
    lines = ["| " + " | ".join(column.title for column in shown) + " |", "|" + "---:|" * len(shown)]
    lines += ["| " + " | ".join(column.text(row) for column in shown) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def markdown(results: Mapping[str, Any]) -> str:
    """Return the section of the page."""
    found, rows = results["machine"], results["measured"]
    computer = f"{found['cores']} cores of {found['processor']}, {found['memory']} GiB, {found['system']}"
    parts = [
        f"{computer}, Python {found['python']}; {results['seconds'] / 60:.0f} minutes in all. {found['note']}".strip()
        + "\n"
    ]
    parts.append(f"{results['plan']['events']} events of 120 bytes, at one a second:\n")
    parts.append(table(rows, COSTS))
    parts += [
        f"```{{image}} images/scale-{name}-{theme}.svg\n:alt: {title}\n:class: only-{theme}\n```\n"
        for name, (title, _, _) in CHARTS.items()
        for theme in THEMES
    ]
    parts += ["Memory, while all are connected:\n", table(rows, MEMORY)]
    parts += ["Connecting, and the return of the clients of a worker that was killed:\n", table(rows, RECONNECTS)]
    return "\n".join(parts)


def charts(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the charts by file name."""
    files = {}
    for name, (title, value, text) in CHARTS.items():
        rows = [
            Bar(f"{row['connections']:,} on {row['workers']}", value(row), text.format(value(row)), "ours")
            for row in results["measured"]
        ]
        for theme, colours in THEMES.items():
            files[f"scale-{name}-{theme}.svg"] = bars(title, rows, colours)
    return files


def write(results: Mapping[str, Any], docs: Path | None) -> str:
    """Return the section of the page, and write it with its charts and figures into a folder of documentation."""
    text = markdown(results)
    if docs is not None:
        for name, chart in charts(results).items():
            (docs / "images" / name).write_text(chart, "utf-8")
        replace_section(docs / "performance.md", "scale", text)
        (docs / "scale.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return text
