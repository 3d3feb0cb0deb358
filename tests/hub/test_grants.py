"""Grants: their values, and the errors for what they do not cover."""

from __future__ import annotations

from typing import Any

import pytest

from tickertape.errors import AccessError, ForbiddenError, InvalidTopicError, UnauthorizedError
from tickertape.hub import EVERYTHING, Grant
from tickertape.wire import is_internal


@pytest.mark.parametrize(
    ("grant", "topics", "refused"),
    [
        (Grant(subscribe=("orders/**",)), ["orders/*", "orders/1"], None),
        (Grant(subscribe=("orders/**",)), ["orders/*", "chat"], "subscribe to 'chat'"),
        (Grant(subscribe=("**",)), ["runs/**"], "subscribe to 'runs/**'"),
        (Grant(), ["a"], "subscribe to 'a'"),
        (Grant(admin=True), ["runs/**"], None),
        (EVERYTHING, ["runs/**", "**"], None),
    ],
)
@pytest.mark.parametrize("anonymous", [True, False])
def test_check_subscribe(grant: Grant, topics: list[str], refused: str | None, anonymous: bool) -> None:
    grant = Grant(subscribe=grant.subscribe, admin=grant.admin, anonymous=anonymous)
    assert grant.may_subscribe(topics) is (refused is None)
    if refused is None:
        grant.check_subscribe(topics)
        return
    with pytest.raises(UnauthorizedError if anonymous else ForbiddenError, match=refused.replace("*", r"\*")):
        grant.check_subscribe(topics)


@pytest.mark.parametrize(
    ("publish", "topic", "allowed"),
    [(("a/*",), "a/1", True), (("a/*",), "a", False), (("**",), "runs/a", False), ((), "a", False)],
)
def test_check_publish(publish: tuple[str, ...], topic: str, allowed: bool) -> None:
    grant = Grant(publish=publish, subscribe=("**",))
    assert grant.may_publish(topic) is allowed
    if not allowed:
        with pytest.raises(ForbiddenError, match=f"publish to '{topic}'"):
            grant.check_publish(topic)


def test_check_admin() -> None:
    Grant(admin=True).check_admin("list subscribers")
    with pytest.raises(AccessError, match="does not allow it to list subscribers"):
        Grant(subscribe=("**",)).check_admin("list subscribers")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"user": 7}, ValueError),
        ({"until": "tomorrow"}, ValueError),
        ({"until": float("nan")}, ValueError),
        ({"subscribe": ("a//b",)}, InvalidTopicError),
        ({"publish": ("a/*b",)}, InvalidTopicError),
    ],
)
def test_invalid_grant(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Grant(**options)


def test_patterns_are_normal() -> None:
    assert Grant(subscribe=("b", "a/**/**", "b")).subscribe == ("a/**", "b")


@pytest.mark.parametrize(("topic", "internal"), [("runs/a", True), ("run", True), ("a/runs", False), ("runsx", False)])
def test_is_internal(topic: str, internal: bool) -> None:
    assert is_internal(topic) is internal
