"""The programs of the how-to, run as they are."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import pytest

import tickertape.client
from support.raw_server import RawServer, answer, stream
from tickertape.client.policy import Policy

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "consume.md"
TEXT = PAGE.read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)

GAP = b'event: stream:gap\ndata: {"reason":"expired","after":"e-1","resumed":"e-5"}\n\n'
EVENTS = b'retry: 500\n\nid: e-6\nevent: paid\ndata: {"n":1}\n\n'


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: re.sub(r"\W+", " ", program)[-60:])
def test_program(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one = answer(201, "Content-Type: application/json", body=b'{"cursor":"e-1"}')
    many = answer(201, "Content-Type: application/json", body=b'{"cursors":["e-2","e-3"]}')
    scripts = [one, many] if "Publisher" in program else [stream(GAP + EVENTS)]
    with RawServer(*scripts) as server:
        code = program.replace("http://localhost:8000", server.url)
        exec(compile(code, str(PAGE), "exec"), {})
    output = capsys.readouterr().out
    assert "e-1" in output or '{"n":1}' in output or "{'n': 1}" in output
    assert len(server.requests) == (1 if 'method="POST"' in program else 2)


def test_number_of_programs() -> None:
    assert len(PROGRAMS) == 9


@pytest.mark.parametrize(
    "name", ["silence", "max_attempts", "give_up_after", "max_event_size", "deduplicate", "reconnect"]
)
def test_limits_exist(name: str) -> None:
    assert f"`{name}=" in TEXT or f"`{name}`" in TEXT
    assert name in Policy.__dataclass_fields__


@pytest.mark.parametrize("name", re.findall(r"`(\w+Error)`", TEXT))
def test_errors_exist(name: str) -> None:
    assert hasattr(builtins, name) or hasattr(tickertape.errors, name)
