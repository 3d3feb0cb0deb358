"""Responses are responses of Starlette, and much like them if Starlette is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from http.cookies import CookieError
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.sse import ServerSentEvent as FastAPIEvent
from pydantic import BaseModel
from slowapi import Limiter
from slowapi.util import get_remote_address
from starlette.requests import Request
from starlette.responses import Response

import tickertape
from support.asgi import Wire, scope_of
from tickertape import EventSourceResponse, HubResponse, ServerSentEvent
from tickertape.asgi import StreamResponse, plain

SOURCE = Path(tickertape.__file__).parents[1]


class Bare(StreamResponse):
    """The base alone."""

    def __init__(self) -> None:
        super().__init__(200, None, None)


class Plain(plain.Response):
    """A response without Starlette."""

    def __init__(self) -> None:
        self.raw_headers = list(Bare().raw_headers)


@pytest.mark.parametrize("kind", [StreamResponse, EventSourceResponse, HubResponse])
def test_subclass(kind: type[Response]) -> None:
    """``mypy`` checks it as well, here."""
    assert issubclass(kind, Response)


def test_attributes() -> None:
    response = EventSourceResponse([])
    assert (response.media_type, response.charset, response.status_code) == ("text/event-stream", "utf-8", 200)
    assert response.background is None
    assert response.headers.raw is response.raw_headers


CHANGES: dict[str, Callable[[Any], Any]] = {
    "cookie": lambda response: response.set_cookie("a", "b"),
    "cookie-options": lambda response: response.set_cookie(
        "a", "b c", 10, datetime(2030, 1, 1, tzinfo=UTC), "/x", "example.org", True, True, "strict"
    ),
    "cookie-bare": lambda response: response.set_cookie("a", "b", path=None, samesite=None),
    "delete": lambda response: response.delete_cookie("a", "/x", secure=True),
    "append": lambda response: (response.headers.append("Vary", "a"), response.headers.append("vary", "b")),
    "set": lambda response: response.headers.update({"Cache-Control": "no-cache", "X-New": "1"}),
    "default": lambda response: response.headers.setdefault("X-Accel-Buffering", "yes"),
    "raw": lambda response: response.headers.raw.append((b"a", b"b")),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_changes(name: str) -> None:
    """Both bases do the same, and the change is sent."""
    responses: list[Any] = [EventSourceResponse([]), Plain()]
    found = []
    for response in responses:
        CHANGES[name](response)
        found.append([(key, value) for key, value in response.raw_headers if not value.startswith(b'a=""; expires')])
        assert set(response.headers) == {key.decode() for key, _ in response.raw_headers}
        for key in response.headers:
            assert response.headers.getlist(key) == [
                value.decode() for known, value in response.raw_headers if known.decode() == key
            ]
    assert sorted(found[0]) == sorted(found[1])
    wire = Wire()
    await responses[0](scope_of(), wire.receive, wire.send)
    assert wire.messages[0]["headers"] == responses[0].raw_headers
    assert responses[0].raw_headers != EventSourceResponse([]).raw_headers or name == "default"


def test_cookies_without_starlette() -> None:
    response = Plain()
    response.delete_cookie("a")
    assert dict(response.headers)["set-cookie"].startswith('a=""; expires=')
    with pytest.raises(ValueError, match="expected samesite to be 'lax', 'strict', 'none' or None, got 'odd'"):
        response.set_cookie("a", samesite="odd")  # type: ignore[arg-type]
    with pytest.raises(CookieError):
        response.set_cookie("a b")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"media_type": "text/x"}, [(b"content-type", b"text/x")]),
        ({"media_type": "text/x", "headers": {"Content-Type": "text/y"}}, [(b"content-type", b"text/y")]),
        ({"headers": {"Connection": "keep-alive", "a": "b"}}, [(b"a", b"b"), (b"content-type", b"text/event-stream")]),
    ],
)
def test_given_headers(options: dict[str, Any], expected: list[tuple[bytes, bytes]]) -> None:
    """Never ``Connection``, which HTTP/2 forbids."""
    response = EventSourceResponse([], **options)
    assert response.raw_headers[:-3] == expected
    assert response.media_type == options.get("media_type", "text/event-stream")


def test_no_site_packages() -> None:
    """The package needs no Starlette, and its response has the methods all the same."""
    program = """
        import asyncio, json, sys
        import tickertape

        response = tickertape.EventSourceResponse(["a"], headers={"a": "b"})
        response.set_cookie("c", "d")
        response.headers.append("e", "f")
        sent = []

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        asyncio.run(response({"type": "http", "method": "GET", "headers": []}, receive, send))
        pairs = [[name.decode(), value.decode()] for name, value in sent[0]["headers"]]
        print(json.dumps([pairs, sent[1]["body"].decode(), "starlette" in sys.modules, response.charset]))
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys\nsys.path.insert(0, {str(SOURCE)!r})\n" + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    headers, body, found, charset = json.loads(done.stdout)
    assert sorted(pair for pair in headers if pair[0] in ("a", "e", "set-cookie")) == [
        ["a", "b"],
        ["e", "f"],
        ["set-cookie", "c=d; Path=/; SameSite=lax"],
    ]
    assert (body, found, charset) == ("data: a\n\n", False, "utf-8")


USER = """
from collections.abc import AsyncIterator

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from tickertape import DisconnectReason, EventSourceResponse, Hub, HubResponse, stream_until_drain

hub = Hub()
kinds: list[type[Response]] = [EventSourceResponse, HubResponse]


async def ticks() -> AsyncIterator[str]:
    async for tick in stream_until_drain(ticks()):
        yield tick.upper()


def leave(reason: DisconnectReason) -> None:
    print(reason.value)


async def events(request: Request) -> Response:
    task = BackgroundTask(print, "done")
    response = EventSourceResponse(ticks(), background=task, headers={"a": "b"}, head="now", on_disconnect=leave)
    response.set_cookie("a", "b")
    response.headers.append("a", "b")
    return response


async def news(request: Request) -> Response:
    response = hub.response(request, "news")
    response.headers["a"] = "b"
    response.delete_cookie("a")
    return response
"""


def test_types(tmp_path: Path) -> None:
    """Pyright in strict mode accepts both as ``Response`` and ``type[Response]``, and reports a wrong argument."""
    program = tmp_path / "program.py"
    program.write_text(USER + "\n\nEventSourceResponse([], head='never')\n")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    if not done.stdout.startswith("{"):
        reason = f"pyright cannot run: {done.stderr[-200:]}"  # it needs Node.js
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    errors = [line["message"] for line in report["generalDiagnostics"]]
    assert len(errors) == 1, errors
    assert '"never"' in errors[0] or "'never'" in errors[0]


async def ticks() -> AsyncIterator[str]:
    yield "a"


async def get(app: Any, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


async def test_rate_limiter() -> None:
    """slowapi appends to the headers of each response that it counts."""
    app = FastAPI()
    limiter = app.state.limiter = Limiter(key_func=get_remote_address, headers_enabled=True)

    @app.get("/")
    @limiter.limit("5/minute")
    async def endpoint(request: Request) -> Response:
        return EventSourceResponse(ticks())

    answer = await get(app, "/")
    assert (answer.status_code, answer.text) == (200, "data: a\n\n")
    assert answer.headers["x-ratelimit-remaining"] == "4"


class Model(BaseModel):
    number: int


def database() -> Iterator[str]:
    yield "database"


async def yield_all(name: Annotated[str, Depends(database)], count: int = 1) -> AsyncIterator[Any]:
    yield {"number": count}
    yield Model(number=count)
    yield ServerSentEvent(name, event="e", id="7")
    yield "text"


def yield_blocking(name: Annotated[str, Depends(database)], count: int = 1) -> Iterator[Any]:
    yield {"number": count}
    yield Model(number=count)
    yield FastAPIEvent(raw_data=name, event="e", id="7")
    yield "text"


@pytest.mark.parametrize("endpoint", [yield_all, yield_blocking])
async def test_generator_endpoint(endpoint: Any) -> None:
    """An endpoint of FastAPI that yields becomes an event stream, with its dependencies and its checks."""
    app = FastAPI()
    app.get("/", response_class=EventSourceResponse)(endpoint)
    answer = await get(app, "/?count=2")
    number = 'data: {"number":2}\n\n'
    assert answer.text == f"{number}{number}id: 7\nevent: e\ndata: database\n\ndata: text\n\n"
    assert answer.headers["content-type"] == "text/event-stream"
    assert (await get(app, "/?count=x")).status_code == 422


async def test_generator_endpoint_fails() -> None:
    """An exception before the first event is a real HTTP error."""
    app = FastAPI()

    @app.get("/", response_class=EventSourceResponse)
    async def endpoint(request: Request) -> AsyncIterator[int]:
        if request.method == "GET":
            raise HTTPException(403)
        yield 1

    assert (await get(app, "/")).status_code == 403


async def test_injected_response() -> None:
    """FastAPI adds the headers, cookies and background tasks of an endpoint to the stream of its generator."""
    app = FastAPI()
    done: list[str] = []

    @app.get("/{count}", response_class=EventSourceResponse)
    async def endpoint(count: int, response: Response, tasks: BackgroundTasks) -> AsyncIterator[dict[str, int]]:
        response.set_cookie("a", "b")
        tasks.add_task(done.append, "done")
        for number in range(count):
            yield {"number": number}

    answer = await get(app, "/2")
    assert answer.text == 'data: {"number":0}\n\ndata: {"number":1}\n\n'
    assert answer.headers["content-type"] == "text/event-stream"
    assert done == ["done"]
    assert (await get(app, "/x")).status_code == 422
