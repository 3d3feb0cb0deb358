"""Pages, styles and scripts of our own: read once, from a package, and answered from memory."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Final

from ..asgi import Headers, Receive, Scope, Send

__all__ = ["WEB", "File", "answer", "fill_page", "read_static_files"]

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
    # Scripts and styles from files of ours only, and no text that becomes markup: what arrives in
    # an event can only ever be shown.
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
        name: tells the content type by its suffix.
        body: the content.
    """

    def __init__(self, name: str, body: bytes) -> None:
        self._name = name
        self._body = body
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'

    def __repr__(self) -> str:
        return f"<File {self._name} {len(self._body)} bytes>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with 304 for a browser that has the file already."""
        headers = {
            "content-type": _CONTENT_TYPES["." + self._name.rpartition(".")[2]],
            "cache-control": "no-cache",  # ask each time: a new version of the program is seen at once
            "etag": self._etag,
        }
        known = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        if self._etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            await answer(send, 304, headers=headers)
        else:
            await answer(send, 200, self._body, headers, head=scope["method"] == "HEAD")


async def answer(
    send: Send, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, head: bool = False
) -> None:
    """Send a whole response; ``head`` leaves its body out."""
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
                    raise ValueError(f"expected each style and script under a name of its own, got {path.name} twice")
                found[path.name] = File(path.name, path.read_bytes())
    return found


def fill_page(template: Traversable, values: dict[str, str]) -> File:
    """Return a page: the content from ``template``, inside the frame that all pages share."""
    content = Template(template.read_text("utf-8")).substitute(values)
    page = Template(_FRAME.read_text("utf-8")).substitute(values, content=content)
    return File("page.html", page.encode())
