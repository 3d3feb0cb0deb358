"""Bars on the terminal for events that carry their progress."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ..wire import ServerSentEvent
from .lines import visible

MAX_BARS: Final = 10
"""Bars at the same time: more would fill the screen. Beyond them, the one that was updated first is removed."""

_MAX_NOTE: Final = 60
"""Characters beside a bar, so that it stays on one line."""


def progress_of(event: ServerSentEvent) -> tuple[float, dict[str, Any]] | None:
    """Return the progress in an event's data, from 0 to 1, and the other members; ``None`` if there is none.

    The data must be a JSON object with a number ``progress`` in this range. Anything else is ordinary data.
    """
    data = event.data or ""
    if '"progress"' not in data:
        return None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    progress = fields.pop("progress", None)
    if isinstance(progress, bool) or not isinstance(progress, (int, float)) or not 0 <= progress <= 1:
        return None
    return float(progress), fields


class ProgressBars:
    """One bar for each topic whose events carry their progress; below the other output, until it is closed.

    Arguments:
        console: of a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=console,
            # Messages on standard error are printed above the bars, but only if they go to the terminal too.
            redirect_stderr=sys.stderr.isatty(),
        )
        self._bars: dict[str, TaskID] = {}

    def show(self, event: ServerSentEvent, topic: str | None) -> bool:
        """Show the progress of an event; return False if it has none."""
        found = progress_of(event)
        if found is None:
            return False
        done, more = found
        label = visible(topic or event.event or "progress").replace("\n", " ")
        notes = (f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in more.items())
        note = visible("  ".join(notes)).replace("\n", " ")
        note = note if len(note) <= _MAX_NOTE else f"{note[: _MAX_NOTE - 1]}…"
        bar = self._bars.pop(label, None)
        if bar is None:
            if len(self._bars) >= MAX_BARS:
                self._progress.remove_task(self._bars.pop(next(iter(self._bars))))
            bar = self._progress.add_task(label, total=1.0, note="")
        self._bars[label] = bar
        self._progress.update(bar, completed=done, note=note)
        self._progress.start()  # does nothing if it has started
        return True

    def close(self) -> None:
        """Leave the bars as they are, and release the terminal."""
        if self._bars:
            self._progress.stop()
