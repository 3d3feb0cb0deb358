"""The files of the page about background work, under a real Celery worker, a real RQ worker, and as a script."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from support.pages import DOCS, files_of
from support.servers import BIN, Connection, Program, free_port

PAGE = "frameworks/jobs"


class Running:
    """A hub, a Redis server, and commands of the page in a folder with its files."""

    def __init__(self, folder: Path, programs: ExitStack) -> None:
        self._folder = folder
        self._programs = programs
        self._lines = (DOCS / f"{PAGE}.md").read_text().splitlines()
        self.port = free_port()
        redis = free_port()
        self._ports = {"8001": str(self.port), "6379": str(redis)}
        for name, text in files_of(PAGE).items():
            (folder / name).write_text(self._placed(text))
        server = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._start(server).wait_for(redis)
        self.start("tickertape serve --port 8001").wait_for(self.port)

    def start(self, line: str) -> Program:
        """Start a command of the page."""
        return self._start(self._command(line))

    def run(self, line: str) -> str:
        """Run a command of the page, and return its output."""
        command = self._command(line)
        return subprocess.run(command, cwd=self._folder, check=True, capture_output=True, text=True, timeout=60).stdout

    def _command(self, line: str) -> list[str]:
        assert line in self._lines
        program, *arguments = shlex.split(self._placed(line))
        return [str(BIN / program), *arguments]

    def _start(self, command: list[str]) -> Program:
        program = Program(command, {"PYTHONPATH": str(self._folder)}, folder=str(self._folder))
        self._programs.enter_context(closing(program))
        return program

    def _placed(self, text: str) -> str:
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    async def events(self, topics: str, count: int) -> list[tuple[str | None, object]]:
        """Return the first events of some topics."""
        async with await Connection.open(self.port) as stream:
            await stream.get(f"/events?topic={topics}&last=100")
            events: list[tuple[str | None, object]] = []
            while len(events) < count:
                event = await stream.event()
                if event.data:
                    events.append((event.event, event.json()))
            return events


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if shutil.which("redis-server") is None:
        assert "CI" not in os.environ
        pytest.skip("redis-server is not installed")
    with ExitStack() as programs:
        yield Running(tmp_path_factory.mktemp("jobs"), programs)


EXPORT = [(None, {"done": row, "of": 3}) for row in (1, 2, 3)] + [("finished", {"url": "/export.csv"})]


async def test_celery(site: Running) -> None:
    worker = site.start("celery -A tasks worker --loglevel INFO --concurrency 2")
    number = site.run('python -c "import tasks; print(tasks.export.delay(3))"').strip()
    await worker.says("succeeded", within=30)
    assert await site.events(f"exports/{number}", 4) == EXPORT
    await worker.end()
    assert "Traceback" not in worker.output


async def test_rq(site: Running) -> None:
    worker = site.start("rq worker --url redis://127.0.0.1:6379/0 exports")
    output = site.run("rq enqueue --url redis://127.0.0.1:6379/0 --queue exports jobs.export :3")
    number = next(word.strip("'.") for word in output.split() if len(word.strip("'.")) == 36)
    await worker.says("Successfully completed", within=30)
    assert await site.events(f"exports/{number}", 4) == EXPORT
    await worker.end()
    assert "Traceback" not in worker.output


async def test_script(site: Running) -> None:
    site.run("python script.py")
    assert await site.events("reports", 1) == [(None, {"title": "the night's figures"})]
