"""``parse_notification``, and the topics of users."""

from __future__ import annotations

from typing import Any

import pytest

from tickertape.demo.notifications.notification import NewNotification, parse_notification, topic_of, user_id
from tickertape.wire import check_topic


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"user": "Ann", "title": "Hi"}, NewNotification("ann", "Hi")),
        (
            {"user": " Zoë Ö. ", "title": " T ", "body": "a\r\nb\tc\n", "link": " /inbox?x=1#y "},
            NewNotification("zoë ö.", "T", "a\nb\tc", "/inbox?x=1#y"),
        ),
        ({"user": "a" * 32, "title": "t" * 120, "body": "b" * 1000}, NewNotification("a" * 32, "t" * 120, "b" * 1000)),
        ({"user": "e\u0301", "title": "名前 <b>"}, NewNotification("\u00e9", "名前 <b>")),
        (
            {"user": "a", "title": "b", "link": "HTTPS://example.com"},
            NewNotification("a", "b", link="HTTPS://example.com"),
        ),
    ],
)
def test_valid(fields: dict[str, Any], expected: NewNotification) -> None:
    assert parse_notification(fields) == expected


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"users": "a", "title": "b"}, "unknown field 'users' (known: user, title, body, link)"),
        ({"title": "b"}, "expected 'user' to have 1 to 32 characters, got 0"),
        ({"user": "a"}, "expected 'title' to have 1 to 120 characters, got 0"),
        ({"user": "a", "title": " \n "}, "expected 'title' to have 1 to 120 characters, got 0"),
        ({"user": "a" * 33, "title": "b"}, "expected 'user' to have 1 to 32 characters, got 33"),
        ({"user": "a", "title": "b" * 121}, "expected 'title' to have 1 to 120 characters, got 121"),
        ({"user": "a", "title": "b", "body": "c" * 1001}, "expected 'body' to have 0 to 1000 characters, got 1001"),
        (
            {"user": "a", "title": "b", "link": "/" + "c" * 2000},
            "expected 'link' to have 0 to 2000 characters, got 2001",
        ),
        ({"user": 7, "title": "b"}, "expected 'user' to be a string, got 7"),
        ({"user": "a", "title": "b", "body": None}, "expected 'body' to be a string, got None"),
        ({"user": "a", "title": "b\x00c"}, "expected 'title' to be text without control characters, got 'b\\x00c'"),
        ({"user": "a", "title": "b\nc"}, "expected 'title' to be text without control characters, got 'b\\nc'"),
        ({"user": "a", "title": "\ud800"}, "expected 'title' to be text without control characters, got '\\ud800'"),
    ],
)
def test_invalid(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        parse_notification(fields)
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,<script>",
        "//evil.example",
        "/\\evil.example",
        "https:evil.example",
        "https://",
        "http://[",
        "ftp://host",
        "page",
        "mailto:a@b",
    ],
)
def test_unsafe_links(link: str) -> None:
    with pytest.raises(ValueError, match="expected a link that starts with https://, http:// or /, got "):
        parse_notification({"user": "a", "title": "b", "link": link})


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("Ann", "notifications/ann"),
        ("ANN", "notifications/ann"),
        ("Ann Lee", "notifications/ann%20lee"),
        ("Zoë_1.2-3", "notifications/zoë_1.2-3"),
        ("名前", "notifications/名前"),
        ("Straße", "notifications/strasse"),
        ("a/b", "notifications/a%2Fb"),
        ("*", "notifications/%2A"),
        ("**", "notifications/%2A%2A"),
        ("a%20b", "notifications/a%2520b"),
        ("../bob", "notifications/..%2Fbob"),
        ("a\n\u200b", "notifications/a%0A%E2%80%8B"),
    ],
)
def test_topic_of(name: str, topic: str) -> None:
    assert topic_of(user_id(name)) == check_topic(topic)


def test_topics_are_unique() -> None:
    users = [
        "\N{PARTY POPPER}" * 96,
        "\N{PARTY POPPER}" * 95,
        "a" * 96,
        "~",
        "%",
        "a",
        "a ",
        " a",
        "ａ",
        "/",
        "a/",
        "*",
    ]
    topics = [topic_of(user) for user in users]
    assert len(set(map(check_topic, topics))) == len(users)
    assert all(topic.count("/") == 1 for topic in topics)
