"""``File``, an ASGI application for one file, and the client for pages as such a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from ..asgi import Headers, Receive, Scope, Send, send_problem

CLIENT_SCRIPT: Final = "tickertape.js"
"""The name of the client for pages: an ES module, in this package."""

_SMALL_SCRIPT: Final = "tickertape.min.js"
"""The same module without comments and with short names, which ``make js`` builds. Pages get this one."""

_CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

_PUBLIC: Final = {
    "access-control-allow-origin": "*",  # a page of another origin may import it
    "cross-origin-resource-policy": "cross-origin",
    "x-content-type-options": "nosniff",
}


class File:
    """An ASGI application that answers with one file.

    Arguments:
        name: its suffix determines the content type.
        body: the content.
        headers: further headers of its answers.
    """

    def __init__(self, name: str, body: bytes, headers: Mapping[str, str]) -> None:
        self._name = name
        self._body = body
        self._headers = dict(headers)
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
            await self._answer(send, HTTPStatus.NOT_MODIFIED, headers)
        else:
            await self._answer(send, HTTPStatus.OK, headers, self._body, head=scope["method"] == "HEAD")

    async def _answer(
        self, send: Send, status: int, headers: dict[str, str], body: bytes = b"", *, head: bool = False
    ) -> None:
        """Send a whole response, without its body if ``head`` is true."""
        fields = Headers(self._headers | headers)
        if status != HTTPStatus.NOT_MODIFIED:
            fields["content-length"] = str(len(body))
        await send({"type": "http.response.start", "status": status, "headers": fields.raw})
        await send({"type": "http.response.body", "body": b"" if head else body, "more_body": False})


class _ClientScript(File):
    """The client for pages, at any path that ends in its name."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request for the file; answer any other with a problem."""
        if scope["type"] != "http":
            raise RuntimeError(f"a file answers HTTP requests, not a scope of type {scope['type']!r}")
        if scope["path"].rpartition("/")[2] != CLIENT_SCRIPT:
            await send_problem(send, HTTPStatus.NOT_FOUND, f"no such path: {scope['path']} (only {CLIENT_SCRIPT})")
        elif scope["method"] not in ("GET", "HEAD"):
            await send_problem(send, HTTPStatus.METHOD_NOT_ALLOWED, f"{scope['path']} supports GET and HEAD")
        else:
            await super().__call__(scope, receive, send)


@cache
def client_script() -> File:
    """Return the client for pages as an application."""
    body = (files(__package__) / _SMALL_SCRIPT).read_bytes()
    return _ClientScript(CLIENT_SCRIPT, body, _PUBLIC)
