"""Headers, credentials, and what may cross a redirect."""

from __future__ import annotations

import httpx2
import pytest

from tickertape.client.headers import credential_headers, header_list, merged, redirected, shown


def redirect(url: str, location: str) -> httpx2.Response:
    headers = {"Authorization": "a", "X-Key": "k", "X-Who": "me"}
    answer = httpx2.Response(307, headers={"location": location})
    with httpx2.Client(transport=httpx2.MockTransport(lambda request: answer)) as client:
        return client.get(url, headers=headers)


def test_values_are_utf_8_without_the_spaces_around_them() -> None:
    assert header_list({"X": " é\t"}) == [("X", "é".encode())]
    assert header_list(None) == []


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "é"])
def test_a_name_that_breaks_the_request_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a header name"):
        header_list({name: "x"})


@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b"])
def test_a_value_that_breaks_the_request_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="expected a value of header 'X'"):
        header_list({"X": value})


def test_credentials() -> None:
    assert credential_headers("t") == [("Authorization", b"Bearer t")]
    assert credential_headers({"X-Key": "k"}) == [("X-Key", b"k")]
    assert credential_headers(None) == []


def test_later_headers_take_the_place_of_earlier_ones() -> None:
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
def test_credentials_stay_where_they_belong(url: str, location: str, stays: bool) -> None:
    request, at_home = redirected(redirect(url, location), ["X-Key"])
    assert at_home == stays
    assert request.headers["x-who"] == "me"
    assert request.headers.get("x-key") == ("k" if stays else None)
    assert request.headers.get("authorization") == ("a" if stays else None)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://me:secret@a:8000/x?token=secret#secret", "https://a:8000/x"),
        ("http://a", "http://a"),
        ("events?token=secret", "events"),
    ],
)
def test_what_is_shown_of_a_url_has_no_secrets(url: str, text: str) -> None:
    assert shown(httpx2.URL(url)) == text
