"""Credentials in requests: their places, and cookies of foreign pages."""

from __future__ import annotations

from typing import Any

import pytest

from support.access import Words
from tickertape.access import CredentialAccess, find_credential, find_foreign_origin
from tickertape.errors import ForbiddenError, UnauthorizedError
from tickertape.hub import Grant

ALICE = Grant(user="alice", subscribe=("a/**",))


def scope(query: str = "", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": pairs, "query_string": query.encode()}


def access(**options: Any) -> CredentialAccess:
    return CredentialAccess(jwt=Words({"word": ALICE}), keys=Words({"ttk_word": ALICE}), **options)


@pytest.mark.parametrize(
    ("request_scope", "found"),
    [
        (scope(), None),
        (scope("topic=a"), None),
        (scope(authorization="Bearer abc"), ("abc", "authorization")),
        (scope(authorization="bearer  abc "), ("abc", "authorization")),
        (scope("ticket=abc&topic=a"), ("abc", "ticket")),
        (scope("ticket=abc", authorization="Basic eDp5"), ("abc", "ticket")),
        (scope("ticket=", authorization="Bearer abc"), ("abc", "authorization")),
        (scope(cookie="other=1; session=abc"), ("abc", "cookie")),
        (scope(cookie="session=abc", authorization="Bearer def"), ("def", "authorization")),
        (scope(cookie="other=abc"), None),
        (scope("access_token=abc"), None),
    ],
)
def test_find_credential(request_scope: dict[str, Any], found: tuple[str, str] | None) -> None:
    credential = find_credential(request_scope, "session")
    assert credential == found
    assert "abc" not in repr(credential)


def test_cookie_without_setting() -> None:
    assert find_credential(scope(cookie="session=abc")) is None


@pytest.mark.parametrize("value", ["Basic eDp5", "Bearer", "Bearer ", "abc", ""])
async def test_other_schemes(value: str) -> None:
    with pytest.raises(UnauthorizedError, match="Bearer") as error:
        await access()(scope(authorization=value))
    assert "eDp5" not in str(error.value)


async def test_repeated_header() -> None:
    twice = scope(authorization="Bearer word")
    twice["headers"] *= 2
    with pytest.raises(UnauthorizedError):
        await access()(twice)


@pytest.mark.parametrize("word", ["word", "ttk_word"])
async def test_valid(word: str) -> None:
    assert await access()(scope(authorization=f"Bearer {word}")) == ALICE


async def test_anonymous() -> None:
    grant = await access(subscribe=["news/**"])(scope())
    assert grant == Grant(subscribe=("news/**",), anonymous=True)
    with pytest.raises(UnauthorizedError):
        grant.check_publish("news/1")


async def test_invalid_where_none_is_needed() -> None:
    with pytest.raises(UnauthorizedError):
        await access(subscribe=["**"])(scope(authorization="Bearer wrong"))


@pytest.mark.parametrize("options", [{"authorization": "Bearer word"}, {"authorization": "Bearer ttk_word"}])
async def test_kind_that_is_not_configured(options: dict[str, str]) -> None:
    with pytest.raises(UnauthorizedError, match="not configured"):
        await CredentialAccess()(scope(**options))
    with pytest.raises(UnauthorizedError, match="tickets are not configured"):
        await CredentialAccess()(scope("ticket=abc"))


async def test_long_credential() -> None:
    with pytest.raises(UnauthorizedError, match="at most 16384 characters"):
        await access()(scope(authorization="Bearer " + "x" * 16_385))


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, None),
        ({"sec_fetch_site": "same-origin"}, None),
        ({"sec_fetch_site": "none"}, None),
        ({"sec_fetch_site": "cross-site"}, "cross-site"),
        ({"sec_fetch_site": "same-site", "origin": "https://a.example"}, "https://a.example"),
        ({"origin": "https://hub.example"}, None),
        ({"origin": "https://evil.example"}, "https://evil.example"),
        ({"origin": "null"}, "null"),
        ({"origin": "http://["}, "http://["),
        ({"origin": "https://friend.example", "sec_fetch_site": "cross-site"}, None),
    ],
)
async def test_cookie_of_a_page(headers: dict[str, str], foreign: str | None) -> None:
    """A cookie counts for pages of the server and of named origins only; a header counts for all."""
    request = scope(host="hub.example", cookie="session=word", **headers)
    assert find_foreign_origin(request, ["https://friend.example"]) == foreign
    checked = access(cookie="session", origins=["https://friend.example"])
    if foreign is None:
        assert await checked(request) == ALICE
    else:
        with pytest.raises(ForbiddenError, match="may not use the cookie"):
            await checked(request)
    assert await checked(scope(host="hub.example", authorization="Bearer word", **headers)) == ALICE
