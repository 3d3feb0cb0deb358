"""A response and its headers without a framework: the base of our responses if Starlette is not installed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime
from email.utils import format_datetime
from http.cookies import SimpleCookie
from typing import Any, Literal


def encode_header(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header as ASGI sends it.

    Raises:
        ValueError: it contains a line break, or a character outside Latin-1.
    """
    text = name + value
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError(f"expected a header without line breaks, got {name!r}: {value!r}")
    return name.lower().encode("latin-1"), value.encode("latin-1")


class Headers(MutableMapping[str, str]):
    """The headers of a response: names without case, values as Latin-1, in their order.

    Arguments:
        headers: a mapping, or pairs of a name and a value; pairs may repeat a name.
        raw: the list to read and change instead of a new one.

    Attributes:
        raw: the list that ASGI sends. Frameworks append to it.
    """

    def __init__(
        self,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        raw: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.raw: list[tuple[bytes, bytes]] = [] if raw is None else raw
        self.raw.extend(encode_header(name, value) for name, value in pairs)

    def __getitem__(self, name: str) -> str:
        key = name.lower().encode("latin-1")
        for known, value in self.raw:
            if known == key:
                return value.decode("latin-1")
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        pair = encode_header(name, value)
        self.raw[:] = [known for known in self.raw if known[0] != pair[0]]
        self.raw.append(pair)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        key = name.lower().encode("latin-1")
        self.raw[:] = [known for known in self.raw if known[0] != key]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(known == name.lower().encode("latin-1") for known, _ in self.raw)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({[(name.decode('latin-1'), value.decode('latin-1')) for name, value in self.raw]!r})"

    def append(self, key: str, value: str) -> None:
        """Add a header, also if there is one of the same name."""
        self.raw.append(encode_header(key, value))

    def getlist(self, key: str) -> list[str]:
        """Return the values of all headers of a name."""
        name = key.lower().encode("latin-1")
        return [value.decode("latin-1") for known, value in self.raw if known == name]


class Response:
    """The attributes and methods of Starlette's ``Response`` that concern its head.

    Attributes:
        status_code: the HTTP status.
        raw_headers: the headers as ASGI sends them.
        background: called and awaited after the response, or ``None``.
    """

    media_type: str | None = None
    charset = "utf-8"
    status_code: int
    raw_headers: list[tuple[bytes, bytes]]
    background: Callable[[], Awaitable[Any]] | None

    @property
    def headers(self) -> Headers:
        """The headers, to read and to change."""
        return Headers(raw=self.raw_headers)

    def set_cookie(
        self,
        key: str,
        value: str = "",
        max_age: int | None = None,
        expires: datetime | str | int | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
    ) -> None:
        """Add a ``Set-Cookie`` header.

        Arguments:
            key: the cookie's name.
            value: its value.
            max_age: seconds for which the client keeps it.
            expires: a date in UTC, its text, or seconds from now.
            path: the path below which the client sends it.
            domain: the domain to which the client sends it.
            secure: send it over HTTPS only.
            httponly: hide it from scripts.
            samesite: the requests of other sites with which it is sent.

        Raises:
            ValueError: ``samesite`` is unknown.
            http.cookies.CookieError: the name is not valid.
        """
        if samesite not in ("lax", "strict", "none", None):
            raise ValueError(f"expected samesite to be 'lax', 'strict', 'none' or None, got {samesite!r}")
        cookie: SimpleCookie = SimpleCookie({key: value})
        attributes: dict[str, Any] = {
            "max-age": max_age,
            "expires": format_datetime(expires, usegmt=True) if isinstance(expires, datetime) else expires,
            "path": path,
            "domain": domain,
            "secure": secure or None,
            "httponly": httponly or None,
            "samesite": samesite,
        }
        cookie[key].update({name: given for name, given in attributes.items() if given is not None})
        self.raw_headers.append(encode_header("set-cookie", cookie.output(header="").strip()))

    def delete_cookie(
        self,
        key: str,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
    ) -> None:
        """Add a ``Set-Cookie`` header that removes a cookie; the arguments are those with which it was set."""
        self.set_cookie(key, "", 0, 0, path, domain, secure, httponly, samesite)
