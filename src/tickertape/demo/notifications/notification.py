"""Notifications, the ids of their users, and the topics of the users."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

MAX_USER: Final = 32
"""Characters in the name of a user, as for signing in."""

MAX_USER_ID: Final = 3 * MAX_USER
"""Characters in a user id: some letters become up to three letters in lower case."""

MAX_TITLE: Final = 120
"""Characters in a title: two lines on a phone."""

MAX_BODY: Final = 1_000
"""Characters in a body. A longer text belongs on a page that the notification links to."""

MAX_LINK: Final = 2_000
"""Characters in a link: the length that all browsers and proxies accept."""

_FIELDS: Final = {"user": MAX_USER, "title": MAX_TITLE, "body": MAX_BODY, "link": MAX_LINK}
_REQUIRED: Final = ("user", "title")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_MAX_SEGMENT: Final = 200  # of the 255 characters of a topic


@dataclass(frozen=True, slots=True)
class NewNotification:
    """A notification that is not stored yet. Create it with :func:`parse_notification`, which checks it."""

    user: str
    title: str
    body: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Notification:
    """A row of the table. Times are in UTC, formatted by RFC 3339."""

    id: int
    user: str
    title: str
    body: str
    link: str
    created_at: str
    read_at: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the notification as the page receives it."""
        return asdict(self)


def parse_notification(fields: Mapping[str, Any]) -> NewNotification:
    """Check the fields of a request or a message and return the notification, with the name replaced by the user id.

    Raises:
        ValueError: a field is unknown, missing, too long, or not valid.
    """
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r:.40} (known: {', '.join(_FIELDS)})")
    texts = {name: _check_text(name, fields.get(name, "")) for name in _FIELDS}
    if not _is_safe(texts["link"]):
        raise ValueError(f"expected a link that starts with https://, http:// or /, got {texts['link']!r:.60}")
    return NewNotification(**{**texts, "user": user_id(texts["user"])})


def _check_text(name: str, value: Any) -> str:
    longest, shortest = _FIELDS[name], int(name in _REQUIRED)
    if not isinstance(value, str):
        raise ValueError(f"expected {name!r} to be a string, got {value!r:.40}")
    text = unicodedata.normalize("NFC", value.replace("\r\n", "\n")).strip()
    if not shortest <= len(text) <= longest:
        raise ValueError(f"expected {name!r} to have {shortest} to {longest} characters, got {len(text)}")
    if _CONTROL.search(text) or ("\n" in text and name != "body") or not _is_unicode(text):
        raise ValueError(f"expected {name!r} to be text without control characters, got {text!r:.60}")
    return text


def _is_unicode(text: str) -> bool:
    """Return False if ``text`` contains a lone surrogate, which JSON allows and UTF-8 does not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _is_safe(link: str) -> bool:
    """Return True if a browser may follow ``link``: it is not a script, and a path does not point to another host."""
    if not link or (link.startswith("/") and not link.startswith(("//", "/\\"))):
        return True
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def user_id(name: str) -> str:
    """Return the id of the user with this name. Names that differ only in case have the same id."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def topic_of(user: str) -> str:
    """Return the topic for the notifications of a user.

    All characters except letters and digits are escaped, because another program may store any user id: a slash or an
    asterisk must not change the topic or turn it into a pattern.
    """
    segment = re.sub(r"[^\w.-]", lambda found: quote(found[0], safe=""), user)
    if len(segment) > _MAX_SEGMENT:
        segment = "~" + hashlib.sha256(user.encode()).hexdigest()  # no other segment contains this character
    return f"notifications/{segment}"
