"""The reference of the command line: written from the commands, and true."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from pathlib import Path

import pytest

from support.command import PATIENCE, SCRIPT, hub_program

DOCS = Path(__file__).parents[2] / "docs"
MODULE = runpy.run_path(str(DOCS / "cli_reference.py"), run_name="cli_reference")
PAGE = (DOCS / "reference" / "cli.md").read_text()


def test_page_is_current() -> None:
    assert MODULE["page"]() == PAGE, "next step: python docs/cli_reference.py"


def test_transcripts() -> None:
    """In one hub, one after the other; only its address and the epoch of its log differ."""
    with hub_program() as hub:
        path = f"{Path(SCRIPT).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "TICKERTAPE_URL": hub.url, "NO_COLOR": "1"}
        epoch = "5b0c3a9e1f24"
        for name in ("publish", "listen"):
            for entry in MODULE["TRANSCRIPTS"][name].strip().removeprefix("$ ").split("\n$ "):
                command, _, expected = entry.partition("\n")
                command = command.replace("5b0c3a9e1f24", epoch).replace("http://127.0.0.1:8000", hub.url)
                result = subprocess.run(
                    ["bash", "-c", command],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=PATIENCE,
                )
                message = result.stdout + result.stderr
                found = re.search(r"\b([0-9a-f]{12})-\d", message)
                epoch = found[1] if found else epoch
                message = message.replace(epoch, "5b0c3a9e1f24").replace(hub.url, "http://127.0.0.1:8000")
                assert sorted(message.splitlines()) == sorted(expected.splitlines()), command


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ("bash", "complete -o default -F _tickertape_completion tickertape"),
        ("zsh", "#compdef tickertape"),
        ("fish", "complete --command tickertape"),
    ],
)
def test_completion_scripts(shell: str, message: str) -> None:
    env = {**os.environ, "_TICKERTAPE_COMPLETE": f"source_{shell}"}
    result = subprocess.run([SCRIPT], env=env, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert message in result.stdout


@pytest.mark.parametrize(
    ("shell", "words", "expected"),
    [
        ("bash", "tickertape lis", "listen"),
        ("zsh", "tickertape pub", "publish"),
        ("bash", "tickertape doctor --sec", "--seconds"),
    ],
)
def test_completion(shell: str, words: str, expected: str) -> None:
    count = str(len(words.split()) - 1)
    env = {
        **os.environ,
        "_TICKERTAPE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words,
        "COMP_WORDS": words,
        "COMP_CWORD": count,
    }
    result = subprocess.run([SCRIPT], env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert expected in result.stdout
