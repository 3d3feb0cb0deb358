"""The contract suite as third parties use it: good brokers pass, and broken ones fail the right check."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tickertape import Hub
from tickertape.broker import Broker
from tickertape.testing.contract import CHECKS, BrokerContract, Log, Traits

from .third_party.broken import BROKEN, Broken
from .third_party.shelf import ShelfLog

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "broker.md").read_text("utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))

HASTE = 0.25
"""Seconds to wait for a broken broker: the promised thing never happens."""


class TestShelf(BrokerContract):
    log = ShelfLog


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.kind.__name__}-{broken.check}")
async def test_broken_broker_fails_its_check(broken: Broken, tmp_path: Path) -> None:
    (check,) = (check for check in CHECKS if check.name == broken.check)
    assert check.applies(broken.traits)
    with pytest.raises((AssertionError, TimeoutError)):
        await check.run(broken.log(tmp_path), HASTE)


def test_every_check_has_a_broken_broker() -> None:
    assert {check.name for check in CHECKS} - {broken.check for broken in BROKEN} == {
        "two_processes_append_in_one_order"  # no other process can use a shelf
    }


# The how-to.


def run_pytest(directory: Path, *arguments: str) -> str:
    """Run pytest as a third party does: with the package, and without our tests, settings and plugins."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *arguments],
        cwd=directory,
        env={**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def write_files(directory: Path) -> None:
    for name, text in FILES.items():
        (directory / name).write_text(text)


@pytest.mark.skipif(sys.platform == "win32", reason="the example locks files as POSIX does")
def test_example_keeps_the_contract(tmp_path: Path) -> None:
    write_files(tmp_path)
    output = run_pytest(tmp_path).splitlines()[-1]
    shown = re.search(r"\$ pytest test_journal.py\n(.*)\n", PAGE)
    assert shown is not None
    assert output.partition(" in ")[0] == shown[1]


@pytest.mark.skipif(sys.platform == "win32", reason="the example locks files as POSIX does")
def test_failures_and_skips_are_explained(tmp_path: Path) -> None:
    write_files(tmp_path)
    program = tmp_path / "journal.py"
    program.write_text(program.read_text().replace("self._keys.get(draft.key) or ", ""))
    test = tmp_path / "test_journal.py"
    test.write_text(test.read_text().replace('opener="journal:JournalBroker"', "opener=None"))
    output = run_pytest(tmp_path, "-rfs", "-k", "key_appends_once or two_processes")
    assert "FAILED test_journal.py::TestJournal::test_contract[key_appends_once] - " in output
    assert re.search(r"assert \[Cursor\(.*offset=2\)\] == \[Cursor\(.*offset=1\)\]", output)
    assert "no opener: a log belongs to one process" in output


@pytest.mark.skipif(sys.platform == "win32", reason="the example locks files as POSIX does")
async def test_hub_on_the_example_resumes(tmp_path: Path) -> None:
    write_files(tmp_path)
    example = runpy.run_path(str(tmp_path / "journal.py"))["JournalBroker"]
    async with Hub(example(tmp_path / "log.jsonl")) as hub, hub.subscribe("news") as subscription:
        await hub.publish("news", "1")
        event = await anext(subscription)
    async with Hub(example(tmp_path / "log.jsonl")) as hub:
        await hub.publish("news", "2")
        async with hub.subscribe("news", last_event_id=event.id) as subscription:
            assert (await anext(subscription)).data == "2"


def test_page_describes_log_and_broker() -> None:
    for field in dataclasses.fields(Traits):
        default = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
        assert f"| `{field.name}` | `{default}` |" in PAGE
    given = {name for name, _ in inspect.getmembers(Log) if not name.startswith("_")}
    assert {name for name in given if not re.search(rf"^\| `{name}[`(]", PAGE, re.MULTILINE)} == set()
    methods = {name for name in vars(Broker) if not name.startswith("_")}
    assert {name for name in methods if f"| `{name}(" not in PAGE} == set()
    assert f"`patience` ({BrokerContract.patience:g})" in PAGE


def test_page_has_two_files() -> None:
    assert list(FILES) == ["journal.py", "test_journal.py"]
