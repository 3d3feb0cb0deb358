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
