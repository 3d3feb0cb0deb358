"""Check the application that a page about a framework shows, under a real server, with the page's own command.

Every such application has a stream at ``GET /events``, publishes JSON at ``POST /news``, and counts its subscribers
at ``GET /online``. Each checked site is a row of a table that pytest prints at the end.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx2

from support.pages import DOCS, files_of
from support.servers import BIN, PATIENCE, PAUSE, Connection, Program, free_port
from tickertape import Hub, ServerSentEvent

__all__ = ["PROPERTY", "Site", "check_items", "check_page_tests", "check_site", "end_topic", "table", "until_over"]

STOP: Final = 2.8
"""Seconds within which SIGTERM ends a server that has an open stream."""

PROPERTY: Final = "framework"
"""The name of the property of a test report that has a row of the table."""

CHECKS: Final = ("publish", "subscribe", "204 at the end", "resume", "leaves noticed", "SIGTERM")

_PORT: Final = re.compile(r"\b80\d\d\b")
"""A port on a page: 8000, and 8001 and so on for further programs."""


@dataclass(frozen=True)
class Site:
    """The application of a page, under one server.

    Arguments:
        page: the page below ``docs``, such as ``"frameworks/fastapi"``.
        command: the server's command, word for word as on the page.
        options: more arguments of the command, such as its address.
        beside: commands of further programs, which are started first; they too stand on the page.
        events, publish, online: the paths of the routes, or whole URLs.

    Ports are those of the page; a test replaces them by free ones.
    """

    page: str
    command: str
    options: str = ""
    beside: tuple[str, ...] = ()
    events: str = "/events"
    publish: str = "/news"
    online: str = "/online"

    def __str__(self) -> str:
        return f"{self.name}-{self.command.split()[0]}"

    @property
    def name(self) -> str:
        """The name of the framework."""
        return self.page.rpartition("/")[2]

    @property
    def commands(self) -> list[str]:
        """All commands, in the order in which they are started."""
        return [*self.beside, f"{self.command} {self.options}".strip()]

    def check_commands(self) -> None:
        """Check that the page shows the commands."""
        text = (DOCS / f"{self.page}.md").read_text("utf-8")
        for command in (self.command, *self.beside):
            assert re.search(rf"^{re.escape(command)}$", text, re.MULTILINE), f"expected {command!r} in {self.page}"


@dataclass
class _Ports:
    """Free ports for the ports of a page, and texts in which these are replaced."""

    ports: dict[str, int] = field(default_factory=dict)

    def put(self, text: str) -> str:
        return _PORT.sub(lambda port: str(self.ports.setdefault(port[0], free_port())), text)

    def url(self, path: str) -> str:
        return self.put(urljoin("http://127.0.0.1:8000", path))


class _Row:
    """The results of a site's checks."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.results = dict.fromkeys(CHECKS, "no")

    def cells(self) -> list[str]:
        return [self._site.name, " and ".join(self._site.commands), *self.results.values()]


async def check_site(site: Site, folder: Path, record: Callable[[str, object], None]) -> None:
    """Start the programs of a site in an empty folder, and check one row of the table.

    Arguments:
        site: the site.
        folder: an empty folder for the files of the page.
        record: pytest's ``record_property``.
    """
    site.check_commands()
    ports, row = _Ports(), _Row(site)
    for name, text in files_of(site.page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ports.put(text), "utf-8")
    try:
        with _run(site, folder, ports) as programs:
            try:
                await _check(site, folder, ports, programs, row.results)
            except (AssertionError, OSError, TimeoutError, httpx2.HTTPError) as error:
                error.add_note("\n".join(program.output[-4000:] for program in programs))
                raise
    finally:
        record(PROPERTY, row.cells())


@contextmanager
def _run(site: Site, folder: Path, ports: _Ports) -> Iterator[list[Program]]:
    programs: list[Program] = []
    try:
        for command in [*site.beside, f"{site.command} {site.options}"]:
            program, *arguments = shlex.split(ports.put(command))
            programs.append(Program([str(BIN / program), *arguments], folder=str(folder)))
            if port := _PORT.search(command):
                programs[-1].wait_for(ports.ports[port[0]])
        programs[-1].wait_for(urlsplit(ports.url("/")).port or 0)
        yield programs
    finally:
        for running in programs:
            running.close()


async def _check(site: Site, folder: Path, ports: _Ports, programs: list[Program], results: dict[str, str]) -> None:
    events, publish, online = (ports.url(path) for path in (site.events, site.publish, site.online))
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:

        async def send(text: str) -> None:
            answer = await client.post(publish, json={"text": text})
            assert answer.is_success, f"expected a success, got {answer.status_code} {answer.text}"

        async def until_online(count: int) -> float:
            start = time.monotonic()
            while (found := (await client.get(online)).json()) != {"online": count}:
                assert time.monotonic() < start + PATIENCE, f"expected {count} online, got {found}"
                await asyncio.sleep(PAUSE)
            return time.monotonic() - start

        await send("early")
        results["publish"] = "yes"
        async with await _open(events) as stream:
            await until_online(1)
            await send("one")
            event = await _next(stream)
            assert event.json() == {"text": "one"}
            assert event.id
        results["subscribe"] = "yes"
        results["leaves noticed"] = f"{await until_online(0):.2f} s"
        end = await end_topic(folder)
        await until_over(events, end)
        results["204 at the end"] = "yes"
        await send("two")
        await send("three")
        async with await _open(events, end) as stream:
            assert [(await _next(stream)).json() for _ in range(2)] == [{"text": "two"}, {"text": "three"}]
            results["resume"] = "yes"
            await until_online(1)
            reading = asyncio.create_task(stream.rest())
            times = await asyncio.gather(*(program.end() for program in programs))
            rest = await reading
            assert b"data:" not in rest.rpartition(b"three")[2]
            assert stream.complete or "transfer-encoding" not in stream.headers
    seconds = max(times)
    assert seconds < STOP, f"expected an end within {STOP:g} s, got {seconds:.2f} s"
    results["SIGTERM"] = f"{seconds:.2f} s"


async def end_topic(folder: Path) -> str:
    """End the topic of the pages from another process on the log, and return the cursor of the end."""
    [database] = await asyncio.to_thread(lambda: [*folder.rglob("*.db")])
    async with Hub(f"sqlite:///{database}") as hub:
        return str(await hub.end("news"))


async def _open(url: str, last_event_id: str | None = None, *statuses: int) -> Connection:
    """Open an event stream, or get one of some other statuses; follow a redirect, as browsers do."""
    headers = "Accept: text/event-stream\r\n" + (f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else "")
    for _ in range(2):
        parts = urlsplit(url)
        stream = await Connection.open(parts.port or 80)
        found = await stream.get(f"{parts.path}?{parts.query}".removesuffix("?"), headers=headers)
        if not 300 <= found < 400:
            break
        await stream.close()
        url = urljoin(url, stream.headers["location"])
    assert found in (200, *statuses), (found, await stream.rest())
    assert found != 200 or stream.headers["content-type"].startswith("text/event-stream")
    return stream


async def until_over(url: str, end: str) -> None:
    """Reconnect after the end of the topic, as an ``EventSource`` does, until the answer is 204.

    The server may read the end from the log a moment later. Until then, the stream ends as soon as it has.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            async with await _open(url, end, 204) as stream:
                if stream.status == 204:
                    return
                assert b"data:" not in await stream.rest()


async def _next(stream: Connection) -> ServerSentEvent:
    """Return the next event with data."""
    while not (event := await stream.event()).data:
        pass
    return event


def check_page_tests(page: str, folder: Path) -> None:
    """Run the tests that a page shows, with pytest in a separate process."""
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def table(rows: Iterable[Any]) -> list[str]:
    """Return the lines of a table of rows that tests have recorded, sorted."""
    cells = [["framework", "command", *CHECKS], *sorted(map(list, rows))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


async def check_items(page: str, command: str, folder: Path) -> None:
    """Check an application of a page that counts down from 3, with one event for each step."""
    ports = _Ports()
    for name, text in files_of(page).items():
        (folder / name).write_text(ports.put(text), "utf-8")
    program, *arguments = shlex.split(ports.put(command))
    running = Program([str(BIN / program), *arguments], folder=str(folder))
    try:
        running.wait_for(urlsplit(ports.url("/")).port or 0)
        async with await _open(ports.url("/events")) as stream:
            assert [(await _next(stream)).json() for _ in range(3)] == [{"left": left} for left in (3, 2, 1)]
            assert (await stream.rest()).count(b"data: ") == 3
            assert stream.complete
        async with await Connection.open(urlsplit(ports.url("/")).port or 0) as connection:
            assert await connection.get("/events", method="HEAD") in (200, 404, 405)
    except (AssertionError, OSError, TimeoutError) as error:
        error.add_note(running.output[-4000:])
        raise
    finally:
        running.close()
