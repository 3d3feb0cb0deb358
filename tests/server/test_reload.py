"""SIGHUP: settings are read again, and no stream ends. What the service manager is notified of."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from support.program import serving
from support.servers import Connection, until
from tickertape.server.systemd import ServiceManager

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")


@pytest.mark.parametrize("workers", [1, 2])
async def test_settings(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("max_topics = 1\n")
    async with serving("--config", str(file), "--workers", str(workers)) as program:
        async with await Connection.open(program.port) as stream:
            assert await stream.get("/events?topic=a") == 200
            for text, said in (
                (
                    "max_topics = 0",
                    "the settings are not changed: expected max_topics to be an integer of 1 or more, got 0",
                ),
                ("max_topics = 1", "read the settings again: no change"),
                (
                    "max_topics = 2\nretention_age = 60\nlog_level = 'debug'",
                    "read the settings again: changed log_level, max_topics",
                ),
            ):
                file.write_text(text)
                before = len(program.output)
                program.process.send_signal(1)
                count = workers if said.startswith("read") else 1
                await until(
                    lambda said=said, count=count, before=before: program.output[before:].count(said) == count,  # type: ignore[misc]
                    lambda said=said: f"{said}, got:\n{program.output}",  # type: ignore[misc]
                )
            await program.says("restart the server to change retention_age")
            for _ in range(6):  # also by workers that were not asked before
                async with await Connection.open(program.port) as connection:
                    assert await connection.get("/events?topic=a&topic=b") == 200
            async with await Connection.open(program.port) as publisher:
                assert await publisher.get("/events/a?event=e", method="POST") == 201
            assert (await stream.event()).event == "e"
        await program.end()
        assert "Traceback" not in program.output


async def test_worker_that_starts_later(tmp_path: Path) -> None:
    """A worker that replaces another has the settings that were read last."""
    file = tmp_path / "hub.toml"
    file.write_text("max_topics = 1\n")
    async with serving("--config", str(file), "--workers", "2") as program:
        file.write_text("max_topics = 2\n")
        program.process.send_signal(1)
        await until(lambda: program.output.count("changed max_topics") == 2, lambda: f"a change: {program.output}")
        program.process.send_signal(10)
        await until(
            lambda: program.output.count("has taken over") == 2, lambda: f"workers: {program.output}", within=30
        )
        for _ in range(6):
            async with await Connection.open(program.port) as connection:
                assert await connection.get("/events?topic=a&topic=b") == 200


class Manager:
    """The service manager's end of the protocol."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.states: list[str] = []

    def read(self) -> list[str]:
        """Return the states so far, without the times."""
        while True:
            try:
                self.states.append(self.socket.recv(4096).decode().partition("\n")[0])
            except BlockingIOError:
                return self.states


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_service_manager(tmp_path: Path, workers: str) -> None:
    manager = Manager(tmp_path / "notify")
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
    async with serving("--workers", workers, env=env) as program:
        await until(lambda: "READY=1" in manager.read(), lambda: "a start")
        await until(lambda: "WATCHDOG=1" in manager.read(), lambda: "a sign of life")
        program.process.send_signal(1)
        await until(lambda: manager.read().count("READY=1") == 2, lambda: "the end of a reload")
        states = [state for state in manager.read() if state != "WATCHDOG=1"]
        assert states == ["READY=1", "RELOADING=1", "READY=1"]
        await program.end()
    assert [state for state in manager.read() if state != "WATCHDOG=1"][3:] == ["STOPPING=1"]
    manager.socket.close()


@pytest.mark.parametrize(
    ("environ", "sent"),
    [
        ({}, ["READY=1"]),
        ({"WATCHDOG_USEC": "1"}, ["READY=1", "WATCHDOG=1"]),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, ["READY=1"]),
    ],
    ids=["no watchdog", "a watchdog", "a watchdog of another process"],
)
def test_states(tmp_path: Path, environ: dict[str, str], sent: list[str]) -> None:
    manager = Manager(tmp_path / "notify")
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), **environ})
    service.ready()
    service.beat()
    assert manager.read() == sent
    manager.socket.close()


def test_manager_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")})
    service.ready()
    service.stopping()
    assert len(caplog.records) == 1
    ServiceManager({}).ready()
    assert len(caplog.records) == 1


async def test_root_path() -> None:
    """The proxy may keep the path or remove it, for every request."""
    async with serving("--root-path", "/live/") as program:
        assert f"http://127.0.0.1:{program.port}/live/ " in program.output
        for root in ("/live", ""):
            async with await Connection.open(program.port) as stream, await Connection.open(program.port) as publisher:
                assert await stream.get(f"{root}/events?topic=a") == 200
                assert await publisher.get(f"{root}/events/a?event=e", method="POST") == 201
                await publisher.rest()
                assert (await stream.event()).event == "e"
                assert await publisher.get(f"{root}/openapi.json") == 200
                assert json.loads(await publisher.rest())["servers"] == [{"url": "."}]
                assert await publisher.get(f"{root}/nothing") == 404
