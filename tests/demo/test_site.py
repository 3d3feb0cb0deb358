"""Pages, files and routes of the demo's site."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tickertape.demo import Demo, Site, create_app
from tickertape.demo.site import RETRY
from tickertape.testing import EventStream, EventStreamClient

DEMO = files("tickertape.demo")
DEMOS = ["clock", "notifications", "dashboard", "chat"]
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
    """Ask for a path of a site that has not been started; give the response and its body."""
    async with EventStreamClient(app).open(path, **options) as response:
        return response, (await response.read()).decode()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The site of all demos."""
    return create_app(tmp_path)


def pages() -> Site:
    """A site of two demos."""

    def demo(name: str, path: str) -> Demo:
        web = DEMO / "clock" / "web"
        return Demo(name=name, title=f"<{name}>", summary="&", path=path, web=web, script="clock.js")

    return Site([demo("Clock", "/clock/"), demo("Chat & more", "/chat/")])


async def test_the_index_leads_to_each_demo(site: Site) -> None:
    response, body = await fetch("/", site)
    assert response.status == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-length"] == str(len(body.encode()))
    assert f'data-retry="{RETRY}"' in body
    assert re.findall(r'<h2><a href="\.(/[^"]+)"', body) == PAGES[1:]


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_filled(path: str, site: Site) -> None:
    response, body = await fetch(path, site)
    assert response.status == 200
    assert "$" not in body
    assert body.count('aria-current="page"') == (path != "/")


async def test_demos_have_a_navigation() -> None:
    _, body = await fetch("/chat/", pages())
    assert '<a href="../clock/">Clock</a><a href="../chat/" aria-current="page">Chat &amp; more</a>' in body
    assert "<h1>&lt;Chat &amp; more&gt;</h1>" in body


async def test_a_page_without_its_slash_is_found(site: Site) -> None:
    response, _ = await fetch("/clock", site)
    assert response.status == 307
    assert response.headers["location"].endswith("/clock/")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("")
    (tmp_path / "index.js").write_text("")
    demo = Demo(name="A", title="A", summary="A", path="/a/", web=tmp_path, script="index.js")
    with pytest.raises(ValueError, match=r"under a name of its own, got index\.js twice"):
        Site([demo])


@pytest.mark.parametrize("name", STATIC)
async def test_static_files_are_served(name: str, site: Site) -> None:
    response, body = await fetch(f"/static/{name}", site)
    types = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
    assert response.status == 200
    assert response.headers["content-type"] == types[name.rpartition(".")[2]]
    assert body == FILES[name]


@pytest.mark.parametrize("path", ["/", "/static/style.css"])
async def test_a_file_that_is_known_is_not_sent_again(path: str, site: Site) -> None:
    response, _ = await fetch(path, site)
    etag = response.headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again, body = await fetch(path, site, headers={"if-none-match": known})
        assert (again.status, body, again.headers["etag"]) == (304, "", etag)
    changed, _ = await fetch(path, site, headers={"if-none-match": '"other"'})
    assert changed.status == 200


async def test_head_of_a_page(site: Site) -> None:
    response, body = await fetch("/", site, method="HEAD")
    assert (response.status, body) == (200, "")
    assert int(response.headers["content-length"]) > 1000


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/nothing", 404, "expected one of /, /clock/"),
        ("GET", "/static/../site.py", 404, "expected one of /, /clock/"),
        ("GET", "/static/", 404, "expected one of /, /clock/"),
        ("POST", "/events", 405, "expected one of the methods GET, HEAD for /events, got POST"),
        ("DELETE", "/", 405, "expected one of the methods GET, HEAD for /, got DELETE"),
    ],
)
async def test_what_is_not_there(method: str, path: str, status: int, sentence: str, site: Site) -> None:
    response, body = await fetch(path, site, method=method)
    problem = json.loads(body)
    assert (response.status, problem["status"]) == (status, status)
    assert problem["detail"].startswith(sentence)
    assert response.headers["content-type"] == "application/problem+json"
    if status == 405:
        assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", [*PAGES, "/static/clock.js"])
async def test_nothing_but_our_own_files_may_run(path: str, site: Site) -> None:
    response, _ = await fetch(path, site)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [*PAGES, *(f"/static/{name}" for name in STATIC)])
async def test_nothing_comes_from_another_host_or_as_markup(path: str, site: Site) -> None:
    _, body = await fetch(path, site)
    if path.endswith(".js"):
        body = re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", body, flags=re.DOTALL)  # comments may say what they like
    hosts = set(re.findall(r"//([\w.:-]+)", body))
    assert hosts <= {"127.0.0.1:8000", "www.w3.org"}  # an example, and the name of SVG
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(| on\w+=|style=", body)


async def test_the_pages_name_all_files_that_are_there_and_no_other(site: Site) -> None:
    bodies = [(await fetch(path, site))[1] for path in PAGES]
    linked = {name for body in bodies for name in re.findall(r'(?:href|src)="(?:\.\.?/)*static/([^"]+)"', body)}
    imported = {name for text in FILES.values() for name in re.findall(r'(?:from "\./|@import ")([^"]+)"', text)}
    assert linked | imported == set(STATIC)


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_everything_is_kept_in_the_folder_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%20é"
    async with EventStreamClient(create_app(folder)):
        assert names_in(tmp_path) == {folder.name}
        kept = names_in(folder)
    assert kept >= {"secret", "chat.db", "metrics.db", "notifications.sqlite", "notifications-log.db"}


async def test_other_protocols_are_refused(site: Site) -> None:
    async def unused(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError, match="got 'websocket'"):
        await site({"type": "websocket"}, unused, unused)


def test_repr() -> None:
    assert repr(pages()) == "<Site /clock/ /chat/>"
