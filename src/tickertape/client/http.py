"""HTTP as sources and publishers need it: headers, redirects, and the bodies of error responses."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import httpx2

from ..errors import PublishError

MAX_DETAIL: Final = 16 * 1024
"""Bytes of an error's body that are read: a problem description has some hundred."""

DETAIL_SECONDS: Final = 5.0
"""Seconds that reading them may take: the status is already known."""

_MAX_EXCERPT: Final = 300
"""Characters of a server's text in a message or in the log: a sentence or two, not a page of HTML."""

Credentials: TypeAlias = str | Mapping[str, str] | None
"""A bearer token, or headers, or nothing."""

Auth: TypeAlias = Callable[[], Credentials]
AsyncAuth: TypeAlias = Callable[[], Credentials | Awaitable[Credentials]]


class RenewingAuth(Protocol):
    """A function that learns whether the server has just refused its last credentials."""

    def __call__(self, *, refused: bool) -> Credentials:
        """Return credentials; other ones if ``refused`` is True."""


class AsyncRenewingAuth(Protocol):
    """As :class:`RenewingAuth`. It may be a coroutine function."""

    def __call__(self, *, refused: bool) -> Credentials | Awaitable[Credentials]:
        """Return credentials; other ones if ``refused`` is True."""


HeaderList: TypeAlias = list[tuple[str, bytes]]


class Answer(NamedTuple):
    """The response of a hub, or of something in between."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


_WHITESPACE: Final = b" \t"
_FORBIDDEN: Final = frozenset(b"\0\r\n")

_SECRET: Final = re.compile(r"auth|cookie|credential|jwt|key|passw|secret|session|signature|token", re.IGNORECASE)
"""Names of headers that usually carry a secret, such as ``X-API-Key``. Another origin must not get them."""

_PROBLEM_MEMBERS: Final = frozenset({"type", "title", "status", "detail", "instance"})


def takes_refused(auth: Callable[..., Any] | None) -> bool:
    """Return True if an ``auth`` function has a parameter ``refused``."""
    if auth is None:
        return False
    try:
        return "refused" in inspect.signature(auth).parameters
    except (TypeError, ValueError):  # some callables of C have no signature
        return False


def header_list(headers: Mapping[str, str] | None) -> HeaderList:
    """Return headers as a list, values as UTF-8.

    Raises:
        ValueError: a name or a value would break the request. The message leaves the value out: it may be a secret.
    """
    result = []
    for name, text in (headers or {}).items():
        value = text.encode().strip(_WHITESPACE)
        if not name.isascii() or not name or any(character <= " " or character == ":" for character in name):
            raise ValueError(f"expected a header name without spaces, got {name!r}")
        if not _FORBIDDEN.isdisjoint(value):
            raise ValueError(f"the value of the header {name!r} has a CR, LF or NUL in it")
        result.append((name, value))
    return result


def credential_headers(credentials: Credentials) -> HeaderList:
    """Return the headers for the result of an ``auth`` callable.

    Raises:
        TypeError: the result is neither a token, nor headers, nor ``None``.
    """
    if credentials is None:
        return []
    if isinstance(credentials, str):
        return header_list({"Authorization": f"Bearer {credentials}"})
    if isinstance(credentials, Mapping):
        return header_list(credentials)
    raise TypeError(f"expected auth to return a token, headers or None, got a {type(credentials).__name__}")


def merged(*lists: Iterable[tuple[str, bytes]]) -> HeaderList:
    """Join lists of headers. A later header replaces an earlier one of the same name."""
    result = {name.lower(): (name, value) for headers in lists for name, value in headers}
    return list(result.values())


def redirect_request(response: httpx2.Response, secret: Iterable[str]) -> tuple[httpx2.Request, bool]:
    """Return the request that follows a redirect, and whether the client's own ``auth`` may go with it.

    ``httpx2`` has built it: method and body by the status, cookies from its jar, no ``Authorization`` for another
    origin. Here other headers that carry secrets are dropped as well: those named in ``secret``, and those whose
    name suggests it.
    """
    request = response.next_request
    assert request is not None, "the state machine follows a redirect only if it has a target"
    same_origin = _may_share_credentials(response.request.url, request.url)
    if not same_origin:
        names = {name.lower() for name in secret}
        for name in list(request.headers):
            if name in names or _SECRET.search(name):
                del request.headers[name]
    return request, same_origin


def redirect_target(response: httpx2.Response) -> str:
    """Return the absolute URL that a response redirects to, ``""`` if it has none."""
    return "" if response.next_request is None else str(response.next_request.url)


def _may_share_credentials(old: httpx2.URL, new: httpx2.URL) -> bool:
    """Return True if credentials for one URL may be sent to another, by the same rule as ``httpx2``."""
    if old.origin == new.origin:
        return True
    upgrade = (old.origin.scheme, old.origin.port, new.origin.scheme, new.origin.port)
    return old.origin.host == new.origin.host and upgrade == ("http", 80, "https", 443)


def without_secrets(url: httpx2.URL) -> str:
    """Return a URL for the log and for messages: without user, password, query and fragment."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def excerpt(text: str) -> str:
    """Return the start of a server's text, on one line, for the log and for messages."""
    text = " ".join(text[: 4 * _MAX_EXCERPT].split())
    return text if len(text) <= _MAX_EXCERPT else f"{text[:_MAX_EXCERPT]}…"


def error_detail(body: bytes, content_type: str) -> str:
    """Return the text in the body of an error response: its problem details (RFC 9457), or its first words."""
    problem = _problem(body, content_type)
    if problem:
        return excerpt(": ".join(part for part in (_text(problem, "title"), _text(problem, "detail")) if part))
    # HTML is written for browsers, and repeats the status.
    return "" if "html" in content_type.lower() else excerpt(body.decode("utf-8", "replace"))


def publish_error(status: int, body: bytes, content_type: str) -> PublishError:
    """Return the error that a hub's response to a publication describes."""
    problem = _problem(body, content_type)
    if not problem:
        return PublishError(status, "", error_detail(body, content_type))
    extensions = {name: value for name, value in problem.items() if name not in _PROBLEM_MEMBERS}
    return PublishError(
        status,
        excerpt(_text(problem, "title")),
        excerpt(_text(problem, "detail")),
        _text(problem, "type") or "about:blank",
        _text(problem, "instance"),
        extensions,
    )


def _problem(body: bytes, content_type: str) -> Mapping[str, Any]:
    if content_type.partition(";")[0].strip().lower() != "application/problem+json":
        return {}
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _text(problem: Mapping[str, Any], name: str) -> str:
    # "If a member's value type does not match the specified type, the member MUST be ignored."
    value = problem.get(name)
    return value if isinstance(value, str) else ""
