"""``Grant``, the rights of a request, and the function that finds it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from ..errors import ForbiddenError, UnauthorizedError
from ..wire import Patterns, check_patterns, covers


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The rights of a request.

    Arguments:
        user: the name of the user, for presence and :meth:`Hub.disconnect`; ``None`` for no user.
        subscribe: patterns of the topics that it may read.
        publish: patterns of the topics to which it may publish.
        admin: it may do everything, and read what describes the hub.
        until: the end of these rights, in seconds since the Unix epoch; a stream ends then. ``None`` for no end.
        anonymous: the request has no credential. Everything beyond the grant is refused with 401 then, else with 403.

    A pattern that starts with a wildcard does not cover the topics of the hub itself, such as ``runs/…``.

    Raises:
        InvalidTopicError: a pattern breaks the syntax.
        ValueError: another value is not as described.
    """

    user: str | None = None
    subscribe: Patterns = ()
    publish: Patterns = ()
    admin: bool = False
    until: float | None = None
    anonymous: bool = False

    def __post_init__(self) -> None:
        if not (self.user is None or isinstance(self.user, str)):
            raise ValueError(f"expected user to be a str or None, got {self.user!r}")
        if self.until is not None and not _is_time(self.until):
            raise ValueError(f"expected until to be a time in seconds or None, got {self.until!r}")
        object.__setattr__(self, "subscribe", _checked(self.subscribe))
        object.__setattr__(self, "publish", _checked(self.publish))

    def may_subscribe(self, patterns: str | Iterable[str]) -> bool:
        """Return True if the grant covers every topic that one of the patterns matches."""
        return self.admin or covers(self.subscribe, _checked(patterns))

    def may_publish(self, topic: str) -> bool:
        """Return True if the grant covers publishing to a topic, or to every topic that a pattern matches."""
        return self.admin or covers(self.publish, _checked(topic))

    def check_subscribe(self, patterns: str | Iterable[str]) -> None:
        """Refuse a subscription as a whole if the grant does not cover all of its patterns.

        Raises:
            UnauthorizedError: it does not, and the request has no credential.
            ForbiddenError: it does not.
        """
        wanted = _checked(patterns)
        if not self.may_subscribe(wanted):
            first = next((each for each in wanted if not self.may_subscribe(each)), wanted[0])
            raise self.refusal(f"subscribe to {first!r}")

    def check_publish(self, topic: str) -> None:
        """Refuse a topic to which the grant does not cover publishing. Errors as of :meth:`check_subscribe`."""
        if not self.may_publish(topic):
            raise self.refusal(f"publish to {topic[:80]!r}")

    def check_admin(self, action: str) -> None:
        """Refuse an action of administrators. Errors as of :meth:`check_subscribe`."""
        if not self.admin:
            raise self.refusal(action)

    def refusal(self, action: str) -> ForbiddenError | UnauthorizedError:
        """Return the error for an action that the grant does not cover: ``"publish to 'a'"``."""
        if self.anonymous:
            return UnauthorizedError(f"a credential is needed to {action}")
        return ForbiddenError(f"the credential of this request does not allow it to {action}")


Access: TypeAlias = Callable[[Any], Awaitable[Grant]]
"""Find the grant of a request, or raise an :class:`~tickertape.errors.UnauthorizedError`."""


@runtime_checkable
class ImmediateAccess(Protocol):
    """An access function that usually need not wait."""

    def decide(self, scope: Mapping[str, Any]) -> Grant | None:
        """Return the grant of a request by its ASGI scope; ``None`` if only a call can tell. Errors as of a call."""


def _checked(patterns: str | Iterable[str]) -> Patterns:
    given = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    return check_patterns(given, limit=None) if given else ()


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


EVERYTHING: Final = Grant(subscribe=("**",), publish=("**",), admin=True)
"""The grant of every request to a hub without access control."""
