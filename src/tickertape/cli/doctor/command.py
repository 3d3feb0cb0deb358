"""``tickertape doctor``."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...redaction import redact_url
from ..console import HeaderOption, NoColorOption, headers_of, misuse, stderr_console
from ..lines import visible
from .diagnosis import Finding, Level, diagnose

DOCTOR_EPILOG: Final = """It checks the status, the headers, the versions of HTTP on offer, TLS, compression, buffering
by proxies, heartbeats, sizes, ids and `retry`. Then it connects again with the id of an event, to check that the stream
resumes. It also reports the checks that it had no time for.

The exit status is 0 when there is no fault (there may be warnings), 1 when there is one, 2 for a mistake in the
command.

Examples:

- `tickertape doctor 'http://127.0.0.1:8000/events?topic=greetings&last=2'`: a hub, with two events to resume after
- `tickertape doctor https://example.org/stream --seconds 40`: long enough to see heartbeats of 15 seconds
- `tickertape doctor https://example.org/stream --json | jq '.findings[] | select(.level == "fault")'`: for scripts
"""

_COMMAND: Final = "tickertape doctor"

_MAX_TEXT: Final = 300
"""Characters of a finding in the table."""

_MARKS: Final = {
    "ok": ("ok", "green"),
    "info": ("info", "dim"),
    "warning": ("warning", "yellow"),
    "fault": ("FAULT", "bold red"),
}


def doctor(
    url: Annotated[str, typer.Argument(metavar="URL", help="Address of an event stream.")],
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=3600,
            help="Time to look at the stream; the check that it resumes takes as long again.",
            metavar="SECONDS",
        ),
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    header: HeaderOption = None,
    no_color: NoColorOption = False,
) -> None:
    """Examine an event stream, and report its faults with advice."""
    from ..address import checked_url
    from .probe import probe

    try:
        address = checked_url(url)
    except ValueError as error:
        misuse(str(error), command=_COMMAND)
    headers = headers_of(header, command=_COMMAND)
    console = stderr_console(no_color)
    with console.status(f"looking for {seconds:g} s, and up to {seconds:g} s more"):
        seen = asyncio.run(probe(address, headers=headers, seconds=seconds))
    findings = diagnose(seen)
    if json:
        found = [finding._asdict() for finding in findings]
        sys.stdout.write(jsonlib.dumps({"url": redact_url(seen.url), "findings": found}, indent=2) + "\n")
    else:
        Console(no_color=no_color or None, highlight=False).print(_table(redact_url(seen.url), findings))
    if any(finding.level is Level.FAULT for finding in findings):
        raise typer.Exit(1)


def _table(url: str, findings: list[Finding]) -> Table:
    table = Table(title=visible(url), title_justify="left", box=None, pad_edge=False)
    for name in ("", "", "found", "what to do"):
        table.add_column(name, header_style="dim", overflow="fold")
    for level, subject, text, advice in findings:
        mark, style = _MARKS[level]
        shown = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"  # a server may send long headers
        table.add_row(Text(mark, style), Text(subject), Text(visible(shown)), Text(advice))
    return table
