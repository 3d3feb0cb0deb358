"""Run the contract, and write its table into ``operations/brokers.md``: ``python docs/broker_contract.py``.

The brokers are those of ``tests/broker/test_contract.py``; their servers must be running. A test compares the rows
and columns of the table with the checks and the brokers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tickertape.testing.contract import CHECKS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "operations" / "brokers.md"
PLACE = re.compile(r"(?<=<!-- contract -->\n).*?(?=<!-- end -->)", re.DOTALL)

SUITE = ROOT / "tests" / "broker" / "test_contract.py"


def run() -> dict[str, dict[str, str]]:
    """Run the contract, and return a mark for each check and broker."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", str(SUITE)]
        subprocess.run(command, cwd=ROOT, check=False)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        marks: dict[str, dict[str, str]] = {}
        for case in cases:
            broker = case.attrib["classname"].rpartition(".Test")[2]
            check = re.fullmatch(r"test_contract\[(\w+)\]", case.attrib["name"])
            if check is not None:
                marks.setdefault(check[1], {})[broker] = mark(case)
        return {check.name: marks[check.name] for check in CHECKS if check.name in marks}


def mark(case: ElementTree.Element) -> str:
    """Return the mark for a test; exit if the test failed, or was skipped for lack of a server."""
    if case.find("failure") is not None or case.find("error") is not None:
        raise SystemExit(f"a broker fails a check: {case.attrib['name']}")
    skipped = case.find("skipped")
    if skipped is None:
        return "✓"
    if not skipped.attrib["message"].startswith("not for traits"):
        raise SystemExit(f"a server is missing: {skipped.attrib['message']}")
    return "–"


def table(marks: dict[str, dict[str, str]]) -> str:
    """Return the lines of the table."""
    brokers = list(next(iter(marks.values())))
    for found in marks.values():
        brokers += [broker for broker in found if broker not in brokers]
    lines = [f"| | {' | '.join(brokers)} |", "|---" * (len(brokers) + 1) + "|"]
    for check, found in marks.items():
        cells = [found.get(broker, "–") for broker in brokers]
        lines.append(f"| {check.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    written = table(run())
    PAGE.write_text(PLACE.sub(lambda _: "\n" + written + "\n", PAGE.read_text("utf-8")), "utf-8")
