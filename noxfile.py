"""The tests with each supported Python, and with the oldest and the newest versions of what we depend on: ``nox``.

``nox -s "oldest-3.11(core)"`` runs one session; ``nox -l`` lists them. A Python that is not on the machine is skipped,
with a word. Brokers, browsers and npm are needed as for ``make test``.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["newest", "oldest"]

PYTHONS = ["3.11", "3.12", "3.13"]

PARTS = {
    "core": [
        "tests/wire",
        "tests/asgi",
        "tests/hub",
        "tests/runs",
        "tests/sources",
        "tests/access",
        "tests/test_exports.py",
        "tests/test_layers.py",
        "tests/test_redaction.py",
        "tests/test_scripted_broker.py",
        "tests/test_testing.py",
        "tests/test_threads.py",
        "tests/test_timing.py",
    ],
    "programs": ["tests/client", "tests/server", "tests/cli", "tests/security"],
    "demo": ["tests/demo"],
    "brokers": ["tests/broker", "tests/faults"],
    "frameworks": ["tests/integrations"],
}
"""Parts of the tests by name, so that a session can run one of them."""

APART = [
    "tests/bench",
    "tests/browser",
    "tests/deploy",
    "tests/docs",
    "tests/interop",
    "tests/soak",
    "tests/test_front_pages.py",
    "tests/test_language.py",
]
"""Tests of pages, files, npm packages and benchmarks: they do not depend on the version of a Python package."""


def _test(session: nox.Session, part: str) -> None:
    session.run("python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *PARTS[part], *session.posargs)


@nox.session(python=PYTHONS)
@nox.parametrize("part", list(PARTS), ids=list(PARTS))
def newest(session: nox.Session, part: str) -> None:
    """Run tests with the newest versions."""
    session.install("--editable", ".[dev]")
    _test(session, part)


@nox.session(python=PYTHONS)
@nox.parametrize("part", list(PARTS), ids=list(PARTS))
def oldest(session: nox.Session, part: str) -> None:
    """Run tests with the oldest versions that ``pyproject.toml`` allows."""
    session.install("--resolution", "lowest-direct", "--editable", ".[dev]")
    _test(session, part)
