"""The contract in the hands of others: who keeps it passes, and who breaks it fails at the check about that."""

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
"""Seconds that a broken broker is waited for: what never comes need not be waited for long."""


class TestShelf(BrokerContract):
    log = ShelfLog


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.kind.__name__}-{broken.check}")
async def test_a_broken_promise_fails_the_check_about_it(broken: Broken, tmp_path: Path) -> None:
    (check,) = (check for check in CHECKS if check.name == broken.check)
    assert check.applies(broken.traits)
    with pytest.raises((AssertionError, TimeoutError)):
        await check.run(broken.log(tmp_path), HASTE)


def test_every_check_has_a_broker_that_fails_it() -> None:
    assert {check.name for check in CHECKS} - {broken.check for broken in BROKEN} == {
        "two_processes_with_many_publishers_make_one_order"  # what is on a shelf, no other process can break
    }


# The how-to.


def run_pytest(directory: Path, *arguments: str) -> str:
    """Run pytest as someone else does: none of our tests, settings or plugins are there, only the package."""
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
def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    write_files(tmp_path)
    said = run_pytest(tmp_path).splitlines()[-1]
    shown = re.search(r"\$ pytest test_journal.py\n(.*)\n", PAGE)
    assert shown is not None
    assert said.partition(" in ")[0] == shown[1]


@pytest.mark.skipif(sys.platform == "win32", reason="the example locks files as POSIX does")
def test_a_mistake_in_the_example_is_shown_with_its_values_and_a_trait_with_its_reason(tmp_path: Path) -> None:
    write_files(tmp_path)
    program = tmp_path / "journal.py"
    program.write_text(program.read_text().replace("self._keys.get(draft.key) or ", ""))
    test = tmp_path / "test_journal.py"
    test.write_text(test.read_text().replace('opener="journal:JournalBroker"', "opener=None"))
    said = run_pytest(tmp_path, "-rfs", "-k", "a_key_appends_once or two_processes")
    assert "FAILED test_journal.py::TestJournal::test_contract[a_key_appends_once] - " in said
    assert re.search(r"assert \[Cursor\(.*offset=2\)\] == \[Cursor\(.*offset=1\)\]", said)
    assert "no opener: a log belongs to one process" in said


@pytest.mark.skipif(sys.platform == "win32", reason="the example locks files as POSIX does")
async def test_a_hub_on_the_example_resumes_in_the_next_process_too(tmp_path: Path) -> None:
    write_files(tmp_path)
    example = runpy.run_path(str(tmp_path / "journal.py"))["JournalBroker"]
    async with Hub(example(tmp_path / "log.jsonl")) as hub, hub.subscribe("news") as subscription:
        await hub.publish("news", "1")
        event = await anext(subscription)
    async with Hub(example(tmp_path / "log.jsonl")) as hub:
        await hub.publish("news", "2")
        async with hub.subscribe("news", last_event_id=event.id) as subscription:
            assert (await anext(subscription)).data == "2"


def test_the_page_names_all_that_a_log_and_a_broker_have() -> None:
    for field in dataclasses.fields(Traits):
        default = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
        assert f"| `{field.name}` | `{default}` |" in PAGE
    given = {name for name, _ in inspect.getmembers(Log) if not name.startswith("_")}
    assert {name for name in given if not re.search(rf"^\| `{name}[`(]", PAGE, re.MULTILINE)} == set()
    methods = {name for name in vars(Broker) if not name.startswith("_")}
    assert {name for name in methods if f"| `{name}(" not in PAGE} == set()
    assert f"`patience` ({BrokerContract.patience:g})" in PAGE


def test_the_page_has_the_two_files() -> None:
    assert list(FILES) == ["journal.py", "test_journal.py"]
