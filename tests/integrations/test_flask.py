"""Flask: the site of its page behind a real nginx, which asks for the cookie or checks the signature."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest
from flask import Flask

from support.framework import CHECKS, PROPERTY
from support.pages import DOCS, files_of
from support.servers import BIN, Connection, Program, free_port
from tickertape import ServerSentEvent
from tickertape.integrations.flask import Tickertape, signed_url

PAGE = "frameworks/flask"

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")

FOR_TESTS = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
"""

PATHS = "".join(
    f"    {name}_temp_path {{folder}}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


WITH_A_TOPIC = """

@app.get("/topic")
def topic():
    return "", 204, {"X-Topic": f"users/{session['user']}"}
"""


def topic_snippet() -> str:
    """The location of the page for topics that the application names, with another path to ask."""
    snippet = (DOCS / f"{PAGE}.md").read_text().partition("```nginx\n")[2].partition("```\n")[0]
    assert snippet
    return "auth_request /topic; " + snippet


def placed(text: str, ports: dict[str, int]) -> str:
    for port, free in ports.items():
        text = text.replace(port, str(free))
    return text


class Running:
    """The programs of the page, each at a free port."""

    def __init__(self, folder: Path, programs: ExitStack) -> None:
        ports = {"8000": free_port(), "8001": free_port(), "8002": free_port()}
        for name, text in files_of(PAGE).items():
            (folder / name).write_text(placed(text, ports))
        path = folder / "nginx.conf"
        text = path.read_text().replace("worker_processes auto;", FOR_TESTS.format(folder=folder))
        text = text.replace("http {\n", "http {\n" + PATHS.format(folder=folder))
        path.write_text(
            text.replace("location / {", f"location = /own {{{placed(topic_snippet(), ports)}}}\nlocation / {{")
        )
        with (folder / "app.py").open("a") as file:
            file.write(WITH_A_TOPIC)

        def start(port: str, *command: str) -> Program:
            program = Program([placed(part, ports) for part in command], folder=str(folder))
            programs.enter_context(closing(program))
            program.wait_for(ports[port])
            return program

        self.url = f"http://127.0.0.1:{ports['8000']}"
        self.port = ports["8000"]
        self.hub_url = f"http://127.0.0.1:{ports['8001']}"
        self.hub = start("8001", str(BIN / "tickertape"), "serve", "--port", "8001")
        self.flask = start("8002", str(BIN / "gunicorn"), "app:app", "--bind", "127.0.0.1:8002")
        self.nginx = start("8000", str(NGINX), "-c", str(path), "-e", str(folder / "error.log"))

    async def open(self, path: str, cookie: str = "", last_event_id: str = "") -> Connection:
        stream = await Connection.open(self.port)
        headers = f"Cookie: {cookie}\r\nLast-Event-ID: {last_event_id}\r\n"
        await stream.get(path, headers=headers)
        return stream

    async def publish(self, client: httpx2.AsyncClient, text: str) -> None:
        (await client.post(f"{self.url}/news", json={"text": text})).raise_for_status()

    async def until_online(self, client: httpx2.AsyncClient, count: int) -> float:
        start = time.monotonic()
        async with asyncio.timeout(10):
            while (await client.get(f"{self.url}/online")).json() != {"online": count}:
                pass
        return time.monotonic() - start


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if NGINX is None:
        assert "CI" not in os.environ
        pytest.skip("nginx is not installed")
    with ExitStack() as programs:
        yield Running(tmp_path_factory.mktemp("flask"), programs)


def test_page_has_the_commands() -> None:
    lines = (DOCS / f"{PAGE}.md").read_text().splitlines()
    assert "tickertape serve --port 8001" in lines
    assert "gunicorn app:app --bind 127.0.0.1:8002" in lines


async def next_event(stream: Connection) -> ServerSentEvent:
    while not (event := await stream.event()).data:
        pass
    return event


async def test_refusals(site: Running) -> None:
    async with httpx2.AsyncClient() as client:
        now = time.time()
        for path, status in {
            "/events": 401,  # no cookie
            "/may-subscribe": 404,  # only nginx itself asks
            "/signed": 403,
            signed_url("/signed", "another secret"): 403,
            signed_url("/signed", "change me too").replace("expires=1", "expires=2"): 403,
            signed_url("/other", "change me too").replace("/other", "/signed"): 403,
            signed_url("/signed", "change me too", seconds=10, now=now - 20): 410,  # expired
        }.items():
            assert (await client.get(site.url + path)).status_code == status, path


async def test_signed_redirect(site: Running) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(f"{site.url}/stream")
        assert answer.status_code == 302
        path = urljoin("/", answer.headers["location"])
        async with await site.open(f"{path}&topic=other") as stream:
            assert stream.status == 200
            await site.publish(client, "signed")
            assert (await next_event(stream)).json() == {"text": "signed"}
            audiences = (await client.get(f"{site.hub_url}/subscribers")).json()["audiences"]
            assert audiences == [{"topics": ["news"], "subscribers": 1}]
        await site.until_online(client, 0)


async def test_topic_of_the_user(site: Running) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.post(f"{site.url}/login", data={"user": "ada"})
        cookie = answer.headers["set-cookie"].partition(";")[0]
        async with await site.open("/own?topic=other", cookie) as stream:
            assert stream.status == 200
            await site.until_online(client, 1)
            audiences = (await client.get(f"{site.hub_url}/subscribers")).json()["audiences"]
            assert audiences == [{"topics": ["users/ada"], "subscribers": 1}]
        await site.until_online(client, 0)


async def test_migration(site: Running) -> None:
    """The application of the page "From flask-sse"."""
    names: dict[str, Any] = {"__name__": "app"}
    exec(files_of("migration/flask-sse")["app.py"].replace("http://127.0.0.1:8001", site.hub_url), names)
    async with await Connection.open(int(site.hub_url.rpartition(":")[2])) as stream:
        await stream.get("/events?topic=sse")
        assert names["app"].test_client().get("/hello").status_code == 200
        event = await next_event(stream)
    assert (event.event, event.json()) == ("greeting", {"message": "Hello!"})
    names["tickertape"].publisher.close()


async def test_site(site: Running, record_property: Callable[[str, object], None]) -> None:
    """Sign in, subscribe, leave, resume, stop; the last test, since it ends the programs."""
    results: dict[str, Any] = dict.fromkeys(CHECKS, "no")
    try:
        async with httpx2.AsyncClient() as client:
            await site.publish(client, "early")
            results["publish"] = "yes"
            answer = await client.post(f"{site.url}/login", data={"user": "ada"})
            cookie = answer.headers["set-cookie"].partition(";")[0]
            async with await site.open("/events", cookie) as stream:
                assert stream.status == 200
                assert stream.headers["content-type"] == "text/event-stream"
                await site.publish(client, "one")
                event = await next_event(stream)
                assert event.json() == {"text": "one"}
                results["subscribe"] = "yes"
                await site.until_online(client, 1)
            results["leaves noticed"] = f"{await site.until_online(client, 0):.2f} s"
            end = (await client.post(f"{site.hub_url}/topics/news/end")).json()["cursor"]
            async with await site.open("/events", cookie, end) as stream:
                assert stream.status == 204
                results["204 at the end"] = "yes"
            await site.publish(client, "two")
            await site.publish(client, "three")
            async with await site.open("/events", cookie, end) as stream:
                assert [(await next_event(stream)).json()["text"] for _ in range(2)] == ["two", "three"]
                results["resume"] = "yes"
                seconds, _ = await asyncio.gather(site.hub.end(), stream.rest())
                assert stream.complete
        seconds = max(seconds, await site.flask.end())
        assert seconds < 2.8
        results["SIGTERM"] = f"{seconds:.2f} s"
    finally:
        record_property(PROPERTY, ["flask", "nginx and gunicorn and tickertape serve", *results.values()])


def test_page_tests(tmp_path: Path) -> None:
    """The page's tests start a hub themselves."""
    port = str(free_port())
    for name, text in files_of(PAGE).items():
        (tmp_path / name).write_text(text.replace("8001", port))
    command = [str(BIN / "pytest"), "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-W", "error"]
    with closing(
        Program(command, {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}, folder=str(tmp_path))
    ) as tests:
        assert tests.process.wait(60) == 0, tests.output


def test_url_from_the_configuration() -> None:
    app, tickertape = Flask("a"), Tickertape()
    with pytest.raises(RuntimeError, match="init_app"):
        tickertape.publish("news")
    with pytest.raises(ValueError, match="TICKERTAPE_URL"):
        tickertape.init_app(app)
    app.config["TICKERTAPE_URL"] = "http://127.0.0.1:1"
    tickertape.init_app(app)
    assert app.extensions["tickertape"] is tickertape
    assert str(tickertape.publisher.url) == "http://127.0.0.1:1/events"


def test_publisher_after_a_fork() -> None:
    """Each process has a separate publisher, and so separate connections."""
    tickertape = Tickertape(Flask("a"), "http://127.0.0.1:1")
    first = tickertape.publisher
    assert tickertape.publisher is first
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, b"same" if tickertape.publisher is first else b"other")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert os.read(reading, 10) == b"other"
    os.close(reading)
