"""Pages, files and routes of the site."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tickertape import Hub
from tickertape.browser import CLIENT_SCRIPT
from tickertape.demo import create_app
from tickertape.demo.site import Demo, Site
from tickertape.testing import EventStream, EventStreamClient

DEMO = files("tickertape.demo")
DEMOS = ["clock", "notifications", "dashboard", "chat", "assistant"]
FOLDERS = [DEMO / "web", *(DEMO / name / "web" for name in DEMOS), files("tickertape.server") / "web" / "shared"]
FILES = {
    path.name: path.read_text("utf-8")
    for folder in FOLDERS
    for path in folder.iterdir()
    if path.name.endswith((".css", ".js"))
}
STATIC = sorted(FILES)
PAGES = ["/", *(f"/{name}/" for name in DEMOS)]


async def fetch(path: str, app: Site, **options: Any) -> tuple[EventStream, str]:
    """Request a path of a site that was not started, and return the response and its body."""
    async with EventStreamClient(app).open(path, **options) as response:
        return response, (await response.read()).decode()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Create the site with all demos."""
    return create_app(tmp_path)


def pages() -> Site:
    """Return a site with two demos."""

    def demo(name: str, path: str) -> Demo:
        web = DEMO / "clock" / "web"
        return Demo(name=name, title=f"<{name}>", summary="&", path=path, web=web, script="clock.js")

    return Site(Hub(), [demo("Clock", "/clock/"), demo("Chat & more", "/chat/")])


async def test_index_links_to_all_demos(site: Site) -> None:
    response, body = await fetch("/", site)
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-length"] == str(len(body.encode()))
    assert re.findall(r'<h2><a href="\.(/[^"]+)"', body) == PAGES[1:]


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_complete(path: str, site: Site) -> None:
    response, body = await fetch(path, site)
    assert response.status == 200
    assert "$" not in body
    assert body.count('aria-current="page"') == (path != "/")


async def test_navigation() -> None:
    _, body = await fetch("/chat/", pages())
    assert '<a href="../clock/">Clock</a><a href="../chat/" aria-current="page">Chat &amp; more</a>' in body
    assert "<h1>&lt;Chat &amp; more&gt;</h1>" in body


async def test_redirect_to_slash(site: Site) -> None:
    response, _ = await fetch("/clock", site)
    assert response.status == 307
    assert response.headers["location"].endswith("/clock/")


def test_duplicate_file_name(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("")
    (tmp_path / "index.js").write_text("")
    demo = Demo(name="A", title="A", summary="A", path="/a/", web=tmp_path, script="index.js")
    with pytest.raises(ValueError, match=r"two files have the name index\.js"):
        Site(Hub(), [demo])


@pytest.mark.parametrize("name", STATIC)
async def test_static_files(name: str, site: Site) -> None:
    response, body = await fetch(f"/static/{name}", site)
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
    assert response.status == 200
    assert response.headers["content-type"] == types[name.rpartition(".")[2]]
    assert body == FILES[name]


@pytest.mark.parametrize("path", ["/", "/static/style.css"])
async def test_etag(path: str, site: Site) -> None:
    response, _ = await fetch(path, site)
    etag = response.headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again, body = await fetch(path, site, headers={"if-none-match": known})
        assert (again.status, body, again.headers["etag"]) == (304, "", etag)
    changed, _ = await fetch(path, site, headers={"if-none-match": '"other"'})
    assert changed.status == 200


async def test_head(site: Site) -> None:
    response, body = await fetch("/", site, method="HEAD")
    assert (response.status, body) == (200, "")
    assert int(response.headers["content-length"]) > 1000


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nothing", 404, "no such path: {path} (pages: /, /clock/, "),
        ("GET", "/static/../site.py", 404, "no such path: {path} (pages: /, /clock/, "),
        ("GET", "/static/", 404, "no such path: {path} (pages: /, /clock/, "),
        ("POST", "/events", 405, "POST is not allowed for /events (allowed: GET, HEAD)"),
        ("DELETE", "/", 405, "DELETE is not allowed for / (allowed: GET, HEAD)"),
    ],
)
async def test_unknown_paths_and_methods(method: str, path: str, status: int, sentence: str, site: Site) -> None:
    response, body = await fetch(path, site, method=method)
    problem = json.loads(body)
    assert (response.status, problem["status"]) == (status, status)
    assert problem["detail"].startswith(sentence.format(path=path))
    assert response.headers["content-type"] == "application/problem+json"
    if status == 405:
        assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", [*PAGES, "/static/clock.js"])
async def test_content_security_policy(path: str, site: Site) -> None:
    response, _ = await fetch(path, site)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", [*PAGES, *(f"/static/{name}" for name in STATIC)])
async def test_no_foreign_hosts_or_inline_markup(path: str, site: Site) -> None:
    _, body = await fetch(path, site)
    if path.endswith(".js"):
        body = re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", body, flags=re.DOTALL)  # comments are not code
    hosts = set(re.findall(r"//([\w.:-]+)", body))
    # An example, the name of SVG, and a link of the home page.
    assert hosts <= {"127.0.0.1:8000", "www.w3.org", "github.com"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(| on\w+=|style=", body)


async def test_every_file_is_linked(site: Site) -> None:
    bodies = [(await fetch(path, site))[1] for path in PAGES]
    linked = {name for body in bodies for name in re.findall(r'(?:href|src)="(?:\.\.?/)*static/([^"]+)"', body)}
    imported = {name for text in FILES.values() for name in re.findall(r'(?:from "\./|@import ")([^"]+)"', text)}
    assert linked | imported == {*STATIC, CLIENT_SCRIPT}


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("topic=chat/lobby", 401, "a credential is needed to subscribe to 'chat/lobby'"),
        ("topic=**", 401, "a credential is needed to subscribe to '**'"),
        ("topic=clock/updates&topic=secret", 401, "a credential is needed to subscribe to 'secret'"),
        ("", 400, "topic"),
        ("topic=a/*b", 400, "as a whole segment"),
        ("topic=clock/updates&last=-1", 422, "expected last to be a number from 0 to 2000, got '-1'"),
        ("topic=clock/updates&last=2001", 422, "expected last to be a number from 0 to 2000, got '2001'"),
    ],
)
async def test_refused_streams(query: str, status: int, sentence: str, site: Site) -> None:
    async with EventStreamClient(site) as client:
        answer = await client.get(f"/stream?{query}")
    assert answer.status == status
    assert sentence in answer.json()["detail"]


async def test_topics_of_all_demos(site: Site) -> None:
    async with EventStreamClient(site) as client:
        topics = ["clock/updates", "dashboard/metrics"]
        async with client.open("/stream", query={"topic": topics, "last": "1", "envelope": "topic"}) as stream:
            assert (await stream.next_event(timeout=30)).json()["topic"] in topics


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_folder_with_special_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%20é"
    async with EventStreamClient(create_app(folder)):
        assert names_in(tmp_path) == {folder.name}
        stored = names_in(folder)
    assert stored >= {"secret", "stream.db", "notifications.sqlite"}


async def test_other_scopes(site: Site) -> None:
    async def unused(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError, match="got 'websocket'"):
        await site({"type": "websocket"}, unused, unused)


def test_repr() -> None:
    assert repr(pages()) == "<Site /clock/ /chat/>"
