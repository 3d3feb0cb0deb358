"""Headers of requests: those of the user, of the credentials, and which of them may cross a redirect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias

import httpx2

__all__ = [
    "AsyncAuth",
    "Auth",
    "Credentials",
    "HeaderList",
    "credential_headers",
    "header_list",
    "merged",
    "redirected",
    "shown",
]

Credentials: TypeAlias = str | Mapping[str, str] | None
"""A bearer token, or headers, or nothing."""

Auth: TypeAlias = Callable[[], Credentials]
AsyncAuth: TypeAlias = Callable[[], Credentials | Awaitable[Credentials]]

HeaderList: TypeAlias = list[tuple[str, bytes]]

_WHITESPACE: Final = b" \t"
_FORBIDDEN: Final = frozenset(b"\0\r\n")


def header_list(headers: Mapping[str, str] | None) -> HeaderList:
    """Return headers as a list, values as UTF-8.

    Raises:
        ValueError: a name or a value would break the request. The value is not shown: it may be a secret.
    """
    result = []
    for name, text in (headers or {}).items():
        value = text.encode().strip(_WHITESPACE)
        if not name.isascii() or not name or any(character <= " " or character == ":" for character in name):
            raise ValueError(f"expected a header name without spaces, got {name!r}")
        if not _FORBIDDEN.isdisjoint(value):
            raise ValueError(f"expected a value of header {name!r} without CR, LF and NUL, got one with them")
        result.append((name, value))
    return result


def credential_headers(credentials: Credentials) -> HeaderList:
    """Return the headers that carry what an ``auth`` callable gave.

    Raises:
        TypeError: it gave neither a token, nor headers, nor ``None``.
    """
    if credentials is None:
        return []
    if isinstance(credentials, str):
        return header_list({"Authorization": f"Bearer {credentials}"})
    if isinstance(credentials, Mapping):
        return header_list(credentials)
    raise TypeError(f"expected auth to give a token, headers or None, got a {type(credentials).__name__}")


def merged(*lists: Iterable[tuple[str, bytes]]) -> HeaderList:
    """Join lists of headers; a later one of the same name takes the place of an earlier one."""
    result = {name.lower(): (name, value) for headers in lists for name, value in headers}
    return list(result.values())


def redirected(response: httpx2.Response, secret: Iterable[str]) -> tuple[httpx2.Request, bool]:
    """Return the request to where a response redirects, and whether the client's own ``auth`` may go along.

    ``httpx2`` builds it: the method and body by status, cookies from its jar, no ``Authorization``
    beyond the origin. What it cannot know is which other headers are ``secret``: the names of those
    that an ``auth`` callable gave, which stay behind in the same way.
    """
    request = response.next_request
    assert request is not None, "a response with a redirect status and a Location has a next request"
    stays = _is_same_place(response.request.url, request.url)
    if not stays:
        for name in secret:
            request.headers.pop(name, None)
    return request, stays


def _is_same_place(old: httpx2.URL, new: httpx2.URL) -> bool:
    """Tell whether credentials for one URL may be sent to another, by the same rule as ``httpx2``."""
    if old.origin == new.origin:
        return True
    upgrade = (old.origin.scheme, old.origin.port, new.origin.scheme, new.origin.port)
    return old.origin.host == new.origin.host and upgrade == ("http", 80, "https", 443)


def shown(url: httpx2.URL) -> str:
    """Return a URL for people to read: without user, password and query, where secrets are."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
