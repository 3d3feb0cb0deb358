"""``Topics``: the topics in the URL of a source, and their changes on an open stream. All of it is pure.

A hub changes an open stream on ``PATCH /subscriptions/{id}``. A server that cannot do that gets a new request with the
new topics, after the last event that was handled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import httpx2

from ..errors import (
    ClientError,
    ForbiddenError,
    InvalidTopicError,
    StatusError,
    SubscriptionBusyError,
    TickertapeError,
    UnauthorizedError,
)
from ..wire import check_patterns
from .http import Answer, error_detail, excerpt, without_secrets

MAX_LAST: Final = 1_000
"""Past events that one change can bring: the limit of a hub."""

_ERRORS: Final[dict[int, type[TickertapeError]]] = {
    400: InvalidTopicError,
    401: UnauthorizedError,
    403: ForbiddenError,
    429: SubscriptionBusyError,
}

_UNSUPPORTED: Final = frozenset({404, 405, 501})
"""The server has no such path or method, or it does not know the stream: it has ended."""


class Change(NamedTuple):
    """A change of topics.

    Attributes:
        add, remove: patterns.
        last: the number of past events of the added topics.
    """

    add: tuple[str, ...]
    remove: tuple[str, ...]
    last: int

    @classmethod
    def create(cls, add: Iterable[str], remove: Iterable[str], last: int) -> Change:
        """Return a checked change.

        Raises:
            InvalidTopicError: a pattern breaks the syntax, or there is none.
            ValueError: ``last`` is out of its range.
        """
        if type(last) is not int or not 0 <= last <= MAX_LAST:
            raise ValueError(f"expected last to be an int from 0 to {MAX_LAST}, got {last!r}")
        change = cls(tuple(add), tuple(remove), last)
        check_patterns(change.add + change.remove, limit=None)
        return change

    @property
    def body(self) -> bytes:
        """The body of the request."""
        return json.dumps(self._asdict()).encode()


@dataclass
class Topics:
    """The topics of a source, for the URL of its next request.

    Arguments:
        url: as given to the source.

    Attributes:
        patterns: the current topics.
        is_changed: they differ from those of the URL, or did.
    """

    url: httpx2.URL

    def __post_init__(self) -> None:
        self.patterns = tuple(dict.fromkeys(self.url.params.get_list("topic")))
        self.is_changed = False

    def target(self) -> httpx2.URL:
        """Return the URL of a stream with the current topics. After a change, it also asks for the id of the stream."""
        if not self.is_changed:
            return self.url
        query = self.url.params.remove("topic").set("subscription", "true")
        for pattern in self.patterns:
            query = query.add("topic", pattern)
        return self.url.copy_with(params=query)

    def target_of_change(self, subscription: str) -> httpx2.URL:
        """Return the URL at which an open stream can be changed."""
        return self.url.join(f"subscriptions/{subscription}")

    def after(self, change: Change) -> tuple[str, ...]:
        """Return the topics after a change.

        Raises:
            InvalidTopicError: there are none left.
        """
        kept = [each for each in self.patterns if each not in change.remove or each in change.add]
        patterns = tuple(dict.fromkeys((*kept, *change.add)))
        check_patterns(patterns, limit=None)
        return patterns

    def set(self, patterns: tuple[str, ...]) -> None:
        """Use other topics from now on."""
        self.is_changed = True
        self.patterns = patterns


def cursor_of(answer: Answer | Exception, url: httpx2.URL) -> str | None:
    """Return the cursor in a hub's answer to a change; ``None`` if the stream must be opened again instead.

    That is so if the server has no streams that change, if this stream has ended, and if it is not known whether the
    stream has changed.

    Arguments:
        answer: the response; an exception if there was none.
        url: of the request; for messages.

    Raises:
        UnauthorizedError: status 401.
        ForbiddenError: status 403.
        InvalidTopicError: status 400.
        SubscriptionBusyError: status 429.
        StatusError: another status that refuses the change.
        ClientError: the response is not a hub's.
    """
    if isinstance(answer, Exception) or answer.status in _UNSUPPORTED or answer.status >= 500:
        return None
    if 300 <= answer.status < 400:
        return None  # a PATCH must not be repeated elsewhere without asking
    if answer.status >= 400:
        detail = error_detail(answer.body, answer.headers.get("content-type", ""))
        error = _ERRORS.get(answer.status)
        if error is None:
            raise StatusError(answer.status, without_secrets(url), detail)
        raise error(detail or f"status {answer.status}")
    try:
        content: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        content = None
    cursor = content.get("cursor") if isinstance(content, dict) else None
    if not isinstance(cursor, str):
        start = excerpt(answer.body[:100].decode("utf-8", "replace"))
        raise ClientError(f"expected a cursor in the hub's response, got {start!r}")
    return cursor
