"""Pages, files and routes of the demo's site."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from tickertape.demo import Demo, Site, create_app
from tickertape.demo.site import RETRY
from tickertape.testing import EventStream, EventStreamClient

FILES = {
    path.name: path.read_text("utf-8")
    for folder in (files("tickertape.demo") / "static", files("tickertape.server") / "web" / "shared")
    for path in folder.iterdir()
}
STATIC = sorted(FILES)


async def fetch(path: str, app: Site | None = None, **options: Any) -> tuple[EventStream, str]:
    """Ask for a path; give the response and its body."""
    async with EventStreamClient(app or create_app()) as client, client.open(path, **options) as response:
        return response, (await response.read()).decode()


def pages() -> Site:
    """A site of two demos."""

    def demo(name: str, path: str) -> Demo:
        return Demo(
            name=name, title=f"<{name}>", summary="&", path=path, page="clock.html", script="clock.js", routes={}
        )

    return Site([demo("Clock", "/"), demo("Chat & more", "/chat")])


async def test_the_page_is_at_the_root() -> None:
    response, body = await fetch("/")
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-length"] == str(len(body.encode()))
    assert "<title>Live clock · tickertape</title>" in body
    assert f'data-retry="{RETRY}"' in body
    assert "$" not in body
    assert "<nav" not in body  # there is but one demo


async def test_two_demos_have_a_navigation() -> None:
    _, body = await fetch("/chat", pages())
    assert '<a href="./">Clock</a><a href="./chat" aria-current="page">Chat &amp; more</a>' in body
    assert "<h1>&lt;Chat &amp; more&gt;</h1>" in body


@pytest.mark.parametrize("name", STATIC)
async def test_static_files_are_served(name: str) -> None:
    response, body = await fetch(f"/static/{name}")
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
    assert response.status == 200
    assert response.headers["content-type"] == types[name.rpartition(".")[2]]
    assert body == FILES[name]


@pytest.mark.parametrize("path", ["/", "/static/style.css"])
async def test_a_file_that_is_known_is_not_sent_again(path: str) -> None:
    response, _ = await fetch(path)
    etag = response.headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again, body = await fetch(path, headers={"if-none-match": known})
        assert (again.status, body, again.headers["etag"]) == (304, "", etag)
    changed, _ = await fetch(path, headers={"if-none-match": '"other"'})
    assert changed.status == 200


async def test_head_of_a_page() -> None:
    response, body = await fetch("/", method="HEAD")
    assert (response.status, body) == (200, "")
    assert int(response.headers["content-length"]) > 1000


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nothing", 404, "expected one of /, /events, got /nothing\n"),
        ("GET", "/static/../site.py", 404, "expected one of /, /events, got /static/../site.py\n"),
        ("GET", "/static/", 404, "expected one of /, /events, got /static/\n"),
        ("POST", "/events", 405, "expected GET, HEAD, got POST\n"),
        ("DELETE", "/", 405, "expected GET, HEAD, got DELETE\n"),
    ],
)
async def test_what_is_not_there(method: str, path: str, status: int, sentence: str) -> None:
    response, body = await fetch(path, method=method)
    assert (response.status, body) == (status, sentence)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    if status == 405:
        assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/static/clock.js", "/nothing"])
async def test_nothing_but_our_own_files_may_run(path: str) -> None:
    response, _ = await fetch(path)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in STATIC)])
async def test_nothing_comes_from_another_host_or_as_markup(path: str) -> None:
    _, body = await fetch(path)
    hosts = set(re.findall(r"//([\w.:-]+)", re.sub(r"//\s", "", body)))
    assert hosts <= {"127.0.0.1:8000", "www.w3.org"}  # an example, and the name of SVG
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(| on\w+=|style=", body)


async def test_the_page_names_no_file_that_is_not_there() -> None:
    _, body = await fetch("/")
    scripts = "".join([(await fetch(f"/static/{name}"))[1] for name in STATIC if name.endswith(".js")])
    named = {*re.findall(r'(?:href|src)="static/([^"]+)"', body), *re.findall(r'from "\./([^"]+)"', scripts)}
    assert named == set(STATIC)


async def test_other_protocols_are_refused() -> None:
    async def unused(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError, match="got 'websocket'"):
        await create_app()({"type": "websocket"}, unused, unused)


def test_repr() -> None:
    assert repr(pages()) == "<Site / /chat>"
