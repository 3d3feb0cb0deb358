"""Pages, style sheets and scripts, read once from a package and served from memory."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Final

from ..asgi import Headers, Receive, Scope, Send

WEB: Final = files(__package__) / "web"

_SHARED: Final = WEB / "shared"
"""Style sheets and scripts of all pages."""

_FRAME: Final = WEB / "shell.html"
"""The template around every page: the bar, the heading, the icon."""

_CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

_SECURITY: Final = {
    # Scripts and styles only from our own files, and no text that becomes markup: pages show the data of events,
    # and never execute it.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class File:
    """An ASGI application that answers with one file.

    Arguments:
        name: its suffix determines the content type.
        body: the content.
    """

    def __init__(self, name: str, body: bytes) -> None:
        self._name = name
        self._body = body
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'

    def __repr__(self) -> str:
        return f"<File {self._name} {len(self._body)} bytes>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with 304 if the browser already has the file."""
        headers = {
            "content-type": _CONTENT_TYPES["." + self._name.rpartition(".")[2]],
            "cache-control": "no-cache",  # ask each time, so that a new version of the program shows at once
            "etag": self._etag,
        }
        known = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        if self._etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            await _answer(send, 304, headers=headers)
        else:
            await _answer(send, 200, self._body, headers, head=scope["method"] == "HEAD")


async def _answer(
    send: Send, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, head: bool = False
) -> None:
    """Send a whole response, without its body if ``head`` is true."""
    fields = Headers(_SECURITY | (headers or {}))
    if status != 304:
        fields["content-length"] = str(len(body))
    await send({"type": "http.response.start", "status": status, "headers": fields.raw})
    await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})


def read_static_files(*folders: Traversable) -> dict[str, File]:
    """Return the style sheets and scripts that all pages share, and those in ``folders``, by name."""
    found: dict[str, File] = {}
    for folder in (_SHARED, *folders):
        for path in folder.iterdir():
            if path.name.endswith((".css", ".js")):
                if path.name in found:
                    raise ValueError(f"two files have the name {path.name}")
                found[path.name] = File(path.name, path.read_bytes())
    return found


def fill_page(template: Traversable, values: dict[str, str]) -> File:
    """Return a page: the content from ``template``, inside the frame that all pages share."""
    content = Template(template.read_text("utf-8")).substitute(values)
    page = Template(_FRAME.read_text("utf-8")).substitute(values, content=content)
    return File("page.html", page.encode())
