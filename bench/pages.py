"""Tables and charts for pages of the documentation: the machine, bars in SVG, and sections of pages."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]

DOCS: Final = ROOT / "docs"

HOME: Final = ROOT / ".bench"
"""Compiled programs, and the results of the last run."""


class Bar(NamedTuple):
    """A bar of a chart: its name, value and text, and the name of its colour."""

    name: str
    value: float
    text: str
    colour: str = "bar"


THEMES: Final = {
    "light": {"text": "#24292f", "bar": "#a8b3bf", "ours": "#0969da", "floor": "#d8dee4"},
    "dark": {"text": "#d1d7e0", "bar": "#5a6572", "ours": "#4493f8", "floor": "#3d444d"},
}
"""The colours of a chart; the names of the bars' colours are those of :class:`Bar`."""


def machine(note: str) -> dict[str, Any]:
    """Return a description of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory": round(memory),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "note": note,
    }


def bars(title: str, rows: Iterable[Bar], colours: Mapping[str, str]) -> str:
    """Return a chart of horizontal bars, in SVG."""
    rows = list(rows)
    top, step, left, width = 34, 24, 150, 420
    most = max((bar.value for bar in rows), default=1.0) or 1.0
    height = top + step * len(rows) + 8
    font = f'font-family="sans-serif" font-size="13" fill="{colours["text"]}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {height}" role="img" {font}>',
        f"<title>{escape(title)}</title>",
        f'<text x="4" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, value, text, colour) in enumerate(rows):
        y = top + step * number
        length = max(1.0, width * value / most)
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="16" rx="2" fill="{colours[colour]}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 14}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def section(page: str, name: str) -> str:
    """Return the generated section of a page: the text between the comments ``name`` and ``end name``."""
    begin, end = _bounds(page, name)
    return page[begin:end]


def replace_section(page: Path, name: str, text: str) -> None:
    """Write the generated section of a page."""
    whole = page.read_text("utf-8")
    begin, end = _bounds(whole, name)
    page.write_text(f"{whole[:begin]}\n{text}\n{whole[end:]}", "utf-8")


def _bounds(page: str, name: str) -> tuple[int, int]:
    mark = f"<!-- {name} -->\n"
    return page.index(mark) + len(mark), page.index(f"<!-- end {name} -->")
