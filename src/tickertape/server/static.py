"""Pages, style sheets and scripts, read once from a package and served from memory."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Final

from ..browser import CLIENT_SCRIPT, File, client_script

WEB: Final = files(__package__) / "web"

_SHARED: Final = WEB / "shared"
"""Style sheets and scripts of all pages."""

_FRAME: Final = WEB / "shell.html"
"""The template around every page: the bar, the heading, the icon."""

_CURRENT: Final = ' aria-current="page"'
"""The attribute of the link to the page that is shown."""

_SECURITY: Final = {
    # Scripts and styles only from our own files, and no text that becomes markup: pages show the data of events,
    # and never execute it.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "referrer-policy": "no-referrer",
}


def read_static_files(*folders: Traversable) -> dict[str, File]:
    """Return the style sheets and scripts that all pages share, and those in ``folders``, by name."""
    found: dict[str, File] = {CLIENT_SCRIPT: client_script()}
    for folder in (_SHARED, *folders):
        for path in folder.iterdir():
            if path.name.endswith((".css", ".js")):
                if path.name in found:
                    raise ValueError(f"two files have the name {path.name}")
                found[path.name] = File(path.name, path.read_bytes(), _SECURITY)
    return found


def fill_page(template: Traversable, values: dict[str, str]) -> File:
    """Return a page: the content from ``template``, inside the frame that all pages share."""
    content = Template(template.read_text("utf-8")).substitute(values)
    page = Template(_FRAME.read_text("utf-8")).substitute(values, content=content)
    return File("page.html", page.encode(), _SECURITY)


def hub_page() -> File:
    """Return the page at ``/``: the live stream."""
    values = _values(
        "Live stream",
        "The events of this hub as they are published. Choose topics, watch, and publish an event yourself.",
        "hub.js",
    )
    return fill_page(WEB / "hub.html", values | {"hide_heading": ' class="unseen"'})


def console_page() -> File:
    """Return the page at ``/console``, with the live stream as a part."""
    values = _values(
        "Console", "The state of this hub, its subscribers, topics and runs, and the live stream.", "console.js"
    )
    live = Template((WEB / "hub.html").read_text("utf-8")).substitute(values | {"hide_heading": "", "credential": ""})
    return fill_page(WEB / "console.html", values | {"live": live})


def _values(title: str, summary: str, script: str) -> dict[str, str]:
    """Return the values of a page of the hub."""
    links = (("./", "Live stream"), ("./console", "Console"))
    navigation = "".join(f'<a href="{path}"{_CURRENT if name == title else ""}>{name}</a>' for path, name in links)
    return {
        "title": title,
        "summary": summary,
        "script": script,
        "navigation": f'<nav aria-label="Pages">{navigation}</nav>',
        "style": "",
        "root": "./",
        "credential": (WEB / "credential.html").read_text("utf-8"),
    }
