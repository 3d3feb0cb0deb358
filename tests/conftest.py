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
def loggers() -> Iterator[None]:
    """Restore loggers that a framework or a server of a test may have changed."""
    kept = [logging.getLogger(name) for name in (None, "tickertape", "tickertape.hub.streams", "uvicorn.access")]
    before = [(logger.level, logger.filters[:]) for logger in kept]
    yield
    for logger, (level, filters) in zip(kept, before, strict=True):
        logger.setLevel(level)
        logger.filters[:] = filters


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
