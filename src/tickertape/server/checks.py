"""Checks on requests: their host, their encoding, and the origin of the page that sends them."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from ..access import find_foreign_origin
from ..asgi import ASGIApp, Receive, Scope, Send
from .hosts import AllowedHosts
from .limits import Guard
from .problems import Problem, problem_response


class RequestCheck:
    """ASGI middleware that checks the head of each request.

    It answers 400 to requests that servers and proxies may understand in different ways, and 421 to requests for a
    host that is not allowed.

    The former are HTTP/1.1 requests without exactly one ``Host`` header (RFC 9112, section 3.2), and paths and queries
    that are not in UTF-8, of which the server would make U+FFFD.

    Arguments:
        app: the application.
        hosts: the hosts of requests that are served.
        guard: counts the others.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, guard: Guard) -> None:
        self._app = app
        self._hosts = hosts
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._app
        if scope["type"] == "http":
            mistake, host = find_mistake(scope), dict(scope["headers"]).get(b"host")
            if mistake is not None:
                app = problem_response(HTTPStatus.BAD_REQUEST, mistake)
            elif host is not None and not self._hosts.allow(host):
                self._guard.count("hosts")
                name = host.decode("latin-1")[:100]
                app = problem_response(
                    HTTPStatus.MISDIRECTED_REQUEST, f"this server is not {name}: allow the name with --allowed-hosts"
                )
        try:
            await app(scope, receive, send)
        finally:
            self._guard.release(scope)


class RootPath:
    """ASGI middleware that serves an application below a path, as ``/live``, whether a proxy removes it or not.

    Arguments:
        app: the application.
        root_path: the path, without a slash at the end; empty for none.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        root = self._root_path
        if root and scope["type"] == "http":
            path = scope["path"]
            full = path if path.startswith(root + "/") else root + path
            scope = {**scope, "root_path": root, "path": full}
        await self._app(scope, receive, send)


def find_mistake(scope: Scope) -> str | None:
    """Return a description of the mistake in a request, or ``None``."""
    if scope.get("http_version") == "1.1":
        count = sum(name == b"host" for name, _ in scope["headers"])
        if count != 1:
            return f"expected one Host header, got {count or 'none'}"
    for name, part in (("path", scope.get("raw_path")), ("query", scope["query_string"])):
        if part and b"%" in part:
            try:
                unquote_to_bytes(part).decode()
            except UnicodeDecodeError as error:
                return f"the {name} is not in UTF-8: {error}"
    return None


def check_origin(request: Request, allowed: Sequence[str]) -> None:
    """Refuse a request from a page whose origin is neither this server's nor one of ``allowed``.

    A page of another origin needs permission (CORS) to *read* an answer. To *send* a form or a text it needs none, so
    any page could publish to a hub on the machine of its visitor. So requests that publish are checked.
    """
    if (origin := find_foreign_origin(request.scope, allowed)) is not None:
        raise Problem(
            HTTPStatus.FORBIDDEN, f"pages of {origin} may not publish here: allow their origin with --cors-origin"
        )
