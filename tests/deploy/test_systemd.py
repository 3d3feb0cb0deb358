"""The units are valid, and start the program with options that exist."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.tools import require
from tickertape.cli.app import app

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no systemd")
def test_units_are_valid(tmp_path: Path) -> None:
    tool = require("systemd-analyze", "systemd")
    program = tmp_path / "tickertape"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/tickertape/bin/tickertape", str(program)))
    command = [tool, "verify", "--man=no", *map(str, sorted(tmp_path.glob("*.s*")))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if "tickertape" in line] == []


def test_command() -> None:
    unit = (UNITS / "tickertape.service").read_text()
    [line] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    _, *arguments = shlex.split(line.removeprefix("ExecStart="))
    result = CliRunner().invoke(app, [*arguments, "--port", "none"])
    assert "cannot read /etc/tickertape.toml" in result.stderr  # everything before that was understood
