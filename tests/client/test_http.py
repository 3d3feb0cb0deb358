"""Headers, credentials, redirects, and texts of servers."""

from __future__ import annotations

import httpx2
import pytest

from tickertape.client.http import (
    credential_headers,
    error_detail,
    excerpt,
    header_list,
    merged,
    redirect_request,
    redirect_target,
    without_secrets,
)


def redirect(url: str, location: str) -> httpx2.Response:
    headers = {"Authorization": "a", "X-Own": "o", "X-API-Key": "k", "X-Who": "me"}
    answer = httpx2.Response(307, headers={"location": location})
    with httpx2.Client(transport=httpx2.MockTransport(lambda request: answer)) as client:
        return client.get(url, headers=headers)


def test_values() -> None:
    assert header_list({"X": " é\t"}) == [("X", "é".encode())]
    assert header_list(None) == []


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "é"])
def test_invalid_name(name: str) -> None:
    with pytest.raises(ValueError, match="expected a header name"):
        header_list({name: "x"})


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b"])
def test_invalid_value(value: str) -> None:
    with pytest.raises(ValueError, match="the value of the header 'X'"):
        header_list({"X": value})


def test_credentials() -> None:
    assert credential_headers("t") == [("Authorization", b"Bearer t")]
    assert credential_headers({"X-Key": "k"}) == [("X-Key", b"k")]
    assert credential_headers(None) == []


def test_merged() -> None:
    assert merged([("A", b"1"), ("B", b"2")], [("a", b"3")]) == [("a", b"3"), ("B", b"2")]


@pytest.mark.parametrize(
    ("url", "location", "stays"),
    [
        ("http://a/x", "/y", True),
        ("http://a/x", "http://a:80/y", True),
        ("http://a/x", "https://a/y", True),
        ("https://a/x", "http://a/y", False),
        ("http://a/x", "http://b/y", False),
        ("http://a/x", "http://a:8000/y", False),
        ("http://a:8000/x", "https://a/y", False),
        ("http://a/x", "//b/y", False),
    ],
)
def test_credentials_across_redirect(url: str, location: str, stays: bool) -> None:
    request, same_origin = redirect_request(redirect(url, location), ["X-Own"])
    assert same_origin == stays
    assert request.headers["x-who"] == "me"
    assert request.headers.get("x-own") == ("o" if stays else None)
    assert request.headers.get("x-api-key") == ("k" if stays else None)
    assert request.headers.get("authorization") == ("a" if stays else None)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://me:secret@a:8000/x?token=secret#secret", "https://a:8000/x"),
        ("http://a", "http://a"),
        ("events?token=secret", "events"),
    ],
)
def test_without_secrets(url: str, text: str) -> None:
    assert without_secrets(httpx2.URL(url)) == text


@pytest.mark.parametrize(
    ("location", "target"),
    [("/y", "http://a/y"), ("http://b/", "http://b/"), ("ftp://b/", "ftp://b/"), ("http://a:b/", "")],
)
def test_redirect_target(location: str, target: str) -> None:
    assert redirect_target(redirect("http://a/x", location)) == target


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("", ""),
        (" a\n b ", "a b"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "…"),
        ("x" * 10**6, "x" * 300 + "…"),
    ],
)
def test_excerpt(text: str, short: str) -> None:
    assert excerpt(text) == short


def test_deep_problem() -> None:
    assert error_detail(b"[" * 16_000, "application/problem+json") == "[" * 300 + "…"
