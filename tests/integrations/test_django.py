"""Django: the site of its page under real servers, and what middleware, clients and transactions do to streams."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import django
import httpx2
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path as route

from support.framework import PROPERTY, Site, check_page_tests, check_site, end_topic, until_over
from support.pages import DOCS, write_files
from support.servers import BIN, Connection, Program, free_port
from tickertape import Hub, ServerSentEvent
from tickertape.errors import HubClosedError, InvalidTopicError
from tickertape.integrations.django import hub_response, publish, publish_on_commit, stream_response
from tickertape.testing import EventStreamClient

PAGE = "frameworks/django"

SITES = [
    Site(PAGE, "uvicorn mysite.asgi:application", "--port 8000"),
    Site(PAGE, "hypercorn mysite.asgi:application", "--bind 127.0.0.1:8000"),
    Site(PAGE, "granian --interface asgi mysite.asgi:application", "--port 8000"),
]

View = Callable[[HttpRequest], Awaitable[HttpResponse]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as the page makes it."""
    folder = tmp_path_factory.mktemp("project")
    for command in ("django-admin startproject mysite .", "python manage.py migrate"):
        program, *arguments = command.split()
        subprocess.run([str(BIN / program), *arguments], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of the project with the files of the page."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    write_files(PAGE, tmp_path)
    return tmp_path


@pytest.mark.parametrize("site", SITES, ids=str)
async def test_site(site: Site, project: Path, record_property: Callable[[str, object], None]) -> None:
    await check_site(site, project, record_property)


def test_page_tests(project: Path) -> None:
    check_page_tests(PAGE, project)


async def test_daphne(project: Path, record_property: Callable[[str, object], None]) -> None:
    """It closes the connections when it stops; that takes less than 3 s, and clients resume."""
    port = free_port()
    command = [str(BIN / "daphne"), "-p", str(port), "mysite.asgi:application"]
    with closing(Program(command, folder=str(project))) as program:
        program.wait_for(port)
        async with await Connection.open(port) as left, await Connection.open(port) as stream:
            await left.get("/events")
            await stream.get("/events")
            await until_online(port, 2)
            await left.close()
            start = time.monotonic()
            await until_online(port, 1)
            noticed = time.monotonic() - start
            await post(port, "/news", {"text": "one"})
            first = await next_event(stream)
            seconds = await program.end()
            assert seconds < 2.8, program.output
    with closing(Program(command, folder=str(project))) as program:
        program.wait_for(port)
        await post(port, "/news", {"text": "two"})
        async with await Connection.open(port) as stream:
            await stream.get("/events", headers=f"Last-Event-ID: {first.id}\r\n")
            assert (await next_event(stream)).json() == {"text": "two"}
        await until_over(f"http://127.0.0.1:{port}/events", await end_topic(project))
    cells = [
        "django",
        "daphne mysite.asgi:application",
        *["yes"] * 4,
        f"{noticed:.2f} s",
        f"{seconds:.2f} s (cut)",
    ]
    record_property(PROPERTY, cells)


async def test_commit(project: Path) -> None:
    port = free_port()
    with closing(
        Program([str(BIN / "uvicorn"), "mysite.asgi:application", f"--port={port}"], folder=str(project))
    ) as site:
        site.wait_for(port)
        async with await Connection.open(port) as stream:
            await stream.get("/events")
            assert await post(port, "/users", {"name": "ada"}) == 200
            assert await post(port, "/users", {"name": "ada"}) == 500  # the name is taken: the transaction rolls back
            assert await post(port, "/news", {"text": "later"}) == 200
            events = [await next_event(stream), await next_event(stream)]
    assert [event.json() for event in events] == [{"text": "welcome, ada"}, {"text": "later"}]


async def test_stalled_client(project: Path) -> None:
    """A client that does not read keeps neither the server from stopping nor other clients from their events."""
    port = free_port()
    command = [str(BIN / "uvicorn"), "mysite.asgi:application", f"--port={port}"]
    with closing(Program(command, folder=str(project))) as program:
        program.wait_for(port)
        async with await Connection.open(port, receive_buffer=4096) as stalled, await Connection.open(port) as stream:
            await stalled.get("/events")
            await stream.get("/events")
            await until_online(port, 2)
            for _ in range(6):
                await post(port, "/news", {"text": "x" * 1_000_000})
                assert len((await next_event(stream)).json()["text"]) == 1_000_000
            assert await program.end() < 2.0, program.output


async def test_runserver(project: Path) -> None:
    """Django's development server streams if daphne replaces it, as the page says."""
    text = (DOCS / f"{PAGE}.md").read_text()
    setting = 'ASGI_APPLICATION = "mysite.asgi.application"'
    assert f"`{setting}`" in text
    with (project / "mysite/settings.py").open("a") as file:
        file.write(f'\nINSTALLED_APPS.insert(0, "daphne")\n{setting}\n')
    port = free_port()
    command = [str(BIN / "python"), "manage.py", "runserver", "--noreload", str(port)]
    with closing(Program(command, folder=str(project))) as program:
        program.wait_for(port)
        async with await Connection.open(port) as stream:
            await stream.get("/countdown")
            assert b'data: {"number":1}' in await stream.rest()


async def test_site_under_wsgi(project: Path) -> None:
    """The views publish to a hub beside the site, after the commit too; a stream is refused with the reason."""
    hub_port, port = free_port(), free_port()
    publisher, views = project / "mysite/publisher.py", project / "mysite/views.py"
    publisher.write_text(publisher.read_text().replace("8001", str(hub_port)))
    text = views.read_text().replace("publish(hub,", "publish(publisher,").replace("commit(hub,", "commit(publisher,")
    views.write_text(text.replace("from .hub import hub", "from .hub import hub\nfrom .publisher import publisher"))
    hub = Program([str(BIN / "tickertape"), "serve", "--port", str(hub_port)], folder=str(project))
    wsgi = Program([str(BIN / "gunicorn"), "mysite.wsgi", "--bind", f"127.0.0.1:{port}"], folder=str(project))
    with closing(hub), closing(wsgi):
        hub.wait_for(hub_port)
        wsgi.wait_for(port)
        async with await Connection.open(hub_port) as stream:
            await stream.get("/events?topic=news")
            assert await post(port, "/news", {"text": "one"}) == 200
            assert await post(port, "/users", {"name": "ada"}) == 200
            events = [await next_event(stream), await next_event(stream)]
        async with httpx2.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/events")).status_code == 500
        assert "event streams need ASGI" in wsgi.output
        assert await wsgi.end() < 2.0
    assert [event.json() for event in events] == [{"text": "one"}, {"text": "welcome, ada"}]


async def test_migration(project: Path) -> None:
    """The site of the page "From django-eventstream"."""
    write_files("migration/django-eventstream", project)
    port = free_port()
    with closing(
        Program([str(BIN / "uvicorn"), "mysite.asgi:application", f"--port={port}"], folder=str(project))
    ) as program:
        program.wait_for(port)
        paths = {"/events/": "test", "/objects/42/events/": "objects/42", "/chosen/?channel=a&channel=b": "b"}
        for path, channel in paths.items():
            async with await Connection.open(port) as stream:
                assert await stream.get(path) == 200
                assert await post(port, f"/send/{channel}/", None) == 204
                event = await next_event(stream)
                assert (event.event, event.json()) == ("created", {"text": "hello world"})
        async with httpx2.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/chosen/?channel=_staff")).status_code == 403
            assert (await client.get(f"http://127.0.0.1:{port}/chosen/")).status_code == 400


async def post(port: int, path: str, content: object) -> int:
    async with httpx2.AsyncClient() as client:
        return (await client.post(f"http://127.0.0.1:{port}{path}", json=content)).status_code


async def until_online(port: int, count: int) -> None:
    async with asyncio.timeout(10), httpx2.AsyncClient() as client:
        while (await client.get(f"http://127.0.0.1:{port}/online")).json() != {"online": count}:
            pass


async def next_event(stream: Connection) -> ServerSentEvent:
    while not (event := await stream.event()).data:
        pass
    return event


# In this process: a site of one view.

if not settings.configured:
    settings.configure(
        SECRET_KEY="a test",
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF=__name__,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    )
    django.setup()

urlpatterns: list[Any] = []


def site(view: View, *middleware: str) -> EventStreamClient:
    """Return a client of a site with one view, at ``/``."""
    urlpatterns[:] = [route("", view)]
    with override_settings(MIDDLEWARE=list(middleware)):
        return EventStreamClient(ASGIHandler())


def sync_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["X-Sync"] = "yes"
        return response

    return middleware


MIDDLEWARE = [
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    f"{__name__}.sync_middleware",
]


async def test_middleware() -> None:
    """Each event goes out at once, uncompressed, through middleware of both kinds, with a session's cookie."""
    hub = Hub()

    async def view(request: HttpRequest) -> HttpResponse:
        request.session["seen"] = True
        return await hub_response(hub, request, "news", last=1)

    await hub.publish("news", "before")
    async with site(view, *MIDDLEWARE).open("/", headers={"accept-encoding": "gzip, br"}) as stream:
        assert (await stream.next_event()).data == "before"
        for text in ("one", "two"):
            await hub.publish("news", text)
            assert (await stream.next_event()).data == text
        headers = stream.headers
    assert headers["x-sync"] == "yes"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["set-cookie"].startswith("sessionid=")
    assert "content-encoding" not in headers
    await hub.close()


async def test_resume() -> None:
    hub = Hub()

    async def view(request: HttpRequest) -> HttpResponse:
        return await hub_response(hub, request, "news")

    first = await hub.publish("news", "one")
    await hub.publish("news", "two")
    async with site(view).open("/", last_event_id=str(first)) as stream:
        assert (await stream.next_event()).data == "two"
    await hub.close()


@pytest.mark.parametrize("middleware", [[], [f"{__name__}.sync_middleware"]], ids=["asynchronous", "synchronous"])
async def test_client_leaves(middleware: list[str]) -> None:
    """The generator is closed at its ``yield``, and the hub's subscription ends."""
    hub, closed = Hub(), asyncio.Event()

    async def generator() -> AsyncIterator[str]:
        try:
            while True:
                yield "more"
                await asyncio.Event().wait()
        finally:
            closed.set()

    async def view(request: HttpRequest) -> HttpResponse:
        if request.GET:
            return await hub_response(hub, request, "news")
        return await stream_response(request, generator())

    client = site(view, *middleware)
    async with client.open("/") as stream, client.open("/?hub=1") as events:
        assert (await stream.next_event()).data == "more"
        assert events.status == 200
        assert hub.subscribers() == 1
    async with asyncio.timeout(5):
        await closed.wait()
        while hub.subscribers():  # noqa: ASYNC110
            await asyncio.sleep(0)
    await hub.close()


async def test_error_before_the_first_event() -> None:
    """The view raises it: Django's own handling decides on the response."""
    caught: list[Exception] = []

    async def generator() -> AsyncIterator[str]:
        if not caught:
            raise LookupError("no such order")
        yield "never"

    async def view(request: HttpRequest) -> HttpResponse:
        try:
            return await stream_response(request, generator())
        except LookupError as error:
            caught.append(error)
            return HttpResponse("none", status=404)

    async with site(view).open("/") as stream:
        assert stream.status == 404
    assert [str(error) for error in caught] == ["no such order"]


async def test_draining_hub() -> None:
    """The status is that of our response."""
    async with Hub() as hub:
        hub.drain()

        async def view(request: HttpRequest) -> HttpResponse:
            return await hub_response(hub, request, "news")

        async with site(view).open("/") as stream:
            assert stream.status == 503
            assert stream.headers["content-type"] == "application/problem+json"


async def test_unused_response() -> None:
    """Middleware may replace a response; Django then closes the first one."""
    closed = asyncio.Event()

    async def generator() -> AsyncIterator[str]:
        try:
            yield "one"
        finally:
            closed.set()

    async def view(request: HttpRequest) -> HttpResponse:
        unused = await stream_response(request, generator())
        await asyncio.to_thread(unused.close)
        return HttpResponse("other")

    async with site(view).open("/") as stream:
        assert stream.status == 200
        await asyncio.wait_for(closed.wait(), 5)


async def test_request_of_wsgi() -> None:
    with pytest.raises(ImproperlyConfigured, match="need ASGI"):
        await hub_response(Hub(), RequestFactory().get("/"), "news")


def test_publish_without_a_loop() -> None:
    with pytest.raises(HubClosedError, match="pass a SyncPublisher"):
        publish(Hub(), "news", "hello")


def test_invalid_event() -> None:
    """It is refused at once, in the transaction."""
    with pytest.raises(InvalidTopicError):
        publish_on_commit(Hub(), "a//b", "hello")
