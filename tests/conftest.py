"""Fixtures for all tests."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator

import pytest

from support.framework import PROPERTY, table

if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # Under nohup. The servers that tests start would inherit it, and ignore SIGHUP, which some tests send.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def root_level() -> Iterator[None]:
    """Restore the level of the root logger: a framework or a server that a test starts may have changed it."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the frameworks that were checked under real servers."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [
        value
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if rows:
        terminalreporter.section("frameworks")
        for line in table(rows):
            terminalreporter.write_line(line)
