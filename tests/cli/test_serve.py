"""``tickertape serve``: its output, its streams, its end, and its error messages."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from support.program import serving
from support.servers import Connection, Program
from tickertape.broker import factory
from tickertape.cli.app import app
from tickertape.server import DEFAULT_BROKER, Settings
from tickertape.testing import ScriptedBroker

DRAIN = 0.3
"""Seconds of the drain window that the tests ask for."""


def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Return the exit status, the output and the errors of a server that does not start."""
    result = CliRunner().invoke(
        app, ["serve", *arguments], env={"COLUMNS": "120", **(env or {})}, prog_name="tickertape"
    )
    return result.exit_code, result.stdout, result.stderr


async def test_greeting() -> None:
    async with serving() as program:
        address = f"http://127.0.0.1:{program.port}"
        assert program.output.splitlines()[:5] == [
            f"tickertape serve at {address}/ (open it in a browser)",
            f"Broker: {DEFAULT_BROKER}",
            f"Subscribe: curl -N '{address}/events?topic=greetings'",
            f"Publish: curl -d hello {address}/events/greetings",
            "To stop: Ctrl-C",
        ]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_subscribers_and_publisher(number: signal.Signals) -> None:
    async with serving() as program:
        commands = dict(re.findall(r"(Subscribe|Publish): (curl .*)", program.output))
        subscribers = [Program(["/bin/sh", "-c", f"exec {commands['Subscribe']} -s"]) for _ in range(2)]
        try:
            for subscriber in subscribers:
                await subscriber.says("retry: ")
            publisher = Program(["/bin/sh", "-c", f"exec {commands['Publish']} -s"])
            await publisher.says("}\n")
            published = publisher.output
            publisher.close()
            event = f"id: {json.loads(published)['cursor']}\ndata: hello\n\n"
            for subscriber in subscribers:
                await subscriber.says(event)
            assert await program.end(number) < DRAIN + 2
            assert program.process.returncode == 0
            for subscriber in subscribers:
                assert subscriber.process.wait(5) == 0  # the stream has ended as HTTP wants it
                assert subscriber.output.count("retry: ") == 2  # at the start, and as the last word
        finally:
            for subscriber in subscribers:
                subscriber.close()
        assert "draining 2 subscribers over 0.0 s" in program.output
        assert "Traceback" not in program.output
        assert "ERROR" not in program.output
        assert "POST /events" not in program.output


async def test_workers(tmp_path: Path) -> None:
    options = ["--workers", "2", "--broker", f"sqlite:///{tmp_path}/log.db"]
    async with serving(*options) as program, AsyncExitStack() as stack:
        subscribers = [await stack.enter_async_context(await Connection.open(program.port)) for _ in range(8)]
        for subscriber in subscribers:
            assert await subscriber.get("/events?topic=a") == 200
        async with await Connection.open(program.port) as publisher:
            assert await publisher.get("/events/a?event=e", method="POST") == 201
        for subscriber in subscribers:
            assert (await subscriber.event()).event == "e"
        await program.end()
        assert program.process.returncode == 0
        assert "Traceback" not in program.output


async def test_end_with_endless_requests() -> None:
    async with serving() as program, await Connection.open(program.port) as connection:
        # The server asks for the body, so it waits for it when the signal comes.
        headers = "Content-Length: 10\r\nExpect: 100-continue\r\n"
        assert await connection.get("/events/a", method="POST", headers=headers) == 100
        assert await program.end() < DRAIN + 2
        assert program.process.returncode == 0
        assert await connection.head() == 503
        assert "Traceback" not in program.output


async def test_access_log() -> None:
    async with serving(env={"TICKERTAPE_ACCESS_LOG": "1"}) as program:
        async with await Connection.open(program.port) as connection:
            await connection.get("/health/live")
        await program.says('"GET /health/live HTTP/1.1" 200')


async def test_no_lines_of_streams_by_default() -> None:
    async with serving() as program:
        async with await Connection.open(program.port) as connection:
            assert await connection.get("/events?topic=a") == 200
        await program.end()
        assert program.output.splitlines()[-1].endswith("INFO stopped")
        assert "stream 1" not in program.output


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_log_as_json(workers: str) -> None:
    async with serving("--log-format", "json", "--access-log", "--workers", workers) as program:
        async with await Connection.open(program.port) as connection:
            assert await connection.get("/events?topic=a") == 200
        await program.says('"reason": "client_closed"')
        await program.end()
        lines = [json.loads(line) for line in program.output.splitlines() if line.startswith("{")]
    for line in lines:
        assert {"time", "level", "logger", "message", "process"} <= line.keys()
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
    opened, closed = (line for line in lines if line["logger"] == "tickertape.hub.streams")
    assert (opened["stream"], opened["topics"], opened["level"]) == (1, ["a"], "INFO")
    assert (closed["stream"], closed["reason"], closed["events"], closed["bytes"]) == (1, "client_closed", 0, 0)
    assert lines[-1]["message"] == "stopped"


async def test_large_body() -> None:
    async with serving("--max-event-size", "1000") as program, await Connection.open(program.port) as connection:
        status = await connection.get("/events/a", method="POST", headers="Content-Length: 1000000000\r\n")
        assert status == 413


async def test_settings_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('max_topics = 1\ncors_origin = ["https://friend.example"]\nport = 1\n')
    async with serving("--config", str(file)) as program, await Connection.open(program.port) as connection:
        assert await connection.get("/events?topic=a&topic=b", headers="Origin: https://friend.example\r\n") == 400
        assert connection.headers["access-control-allow-origin"] == "https://friend.example"
        assert "at most 1 topics" in json.loads(await connection.rest())["detail"]


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--port", "http"], {}, "expected port to be an integer from 0 to 65535, got 'http' (from --port)"),
        ([], {"TICKERTAPE_RETRY": "0"}, "got '0' (from TICKERTAPE_RETRY)"),
        (["--config", "/nowhere.toml"], {}, "cannot read /nowhere.toml (from --config): No such file"),
        (["--broker", "nonsense://"], {}, "got one with nonsense scheme (from --broker)"),
        (["--workers", "2", "--broker", "memory://"], {}, "expected workers to be 1, got 2"),
    ],
)
def test_misuse(arguments: list[str], env: dict[str, str], said: str) -> None:
    status, output, errors = run(*arguments, env=env)
    assert (status, output) == (2, "")
    assert errors.startswith("tickertape: ")
    assert said in errors
    assert errors.endswith("; next step: tickertape serve --help\n")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--nonsense"], ["extra"]])
def test_unknown_arguments(arguments: list[str]) -> None:
    status, _, errors = run(*arguments)
    assert status == 2
    assert "Traceback" not in errors


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, output, errors = run("--port", str(port))
    assert (status, errors) == (1, "")  # the runner has the text of an exit in the output
    assert output == f"tickertape: port {port} is in use; next step: tickertape serve --port {port + 1}\n"


def test_unreachable_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = ScriptedBroker()
    broker.fail("open")
    monkeypatch.setitem(factory._FACTORIES, "memory", lambda url, retention: broker)
    status, output, errors = run("--port", "0", "--broker", "memory://user:secret@host")
    assert (status, errors) == (1, "")
    assert output == ("tickertape: the broker memory://user:***@host does not work: scripted failure\n")


FLAGS = {name: field.default for name, field in Settings.model_fields.items()}


@pytest.fixture(scope="module")
def help_text() -> str:
    status, output, _ = run("--help")
    assert status == 0
    return re.sub(r"[│\s]+", " ", output)


@pytest.mark.parametrize(("name", "default"), FLAGS.items(), ids=FLAGS)
def test_help_has_all_defaults(name: str, default: Any, help_text: str) -> None:
    flag = "--" + name.replace("_", "-")
    [default_text] = re.findall(rf" {flag} (?:(?! --[a-z]).)*? Default: (\S+)\. ", help_text)
    assert default_text == shown(default)


def shown(value: Any) -> str:
    """A default as the help shows it."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value % (1 << 20) == 0 and value:
        return f"{value >> 20}MiB"
    if isinstance(value, int) and value % (1 << 10) == 0 and value:
        return f"{value >> 10}KiB"
    return f"{value:g}" if isinstance(value, float) else str(value)
