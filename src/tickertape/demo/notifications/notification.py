"""What a notification is, whose it is, and the topic on which its user hears of it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

__all__ = [
    "MAX_BODY",
    "MAX_LINK",
    "MAX_TITLE",
    "MAX_USER",
    "Draft",
    "Notification",
    "read_draft",
    "topic_of",
    "user_id",
]

MAX_USER: Final = 32
"""Characters of a user's name, as for signing in."""

MAX_USER_ID: Final = 3 * MAX_USER
"""Characters: some letters become up to three others in lower case."""

MAX_TITLE: Final = 120
"""Characters: two lines on a phone."""

MAX_BODY: Final = 1_000
"""Characters: what is longer belongs on the page that the link leads to."""

MAX_LINK: Final = 2_000
"""Characters: what browsers and proxies are sure to take as an address."""

_FIELDS: Final = {"user": MAX_USER, "title": MAX_TITLE, "body": MAX_BODY, "link": MAX_LINK}
_REQUIRED: Final = ("user", "title")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_SEGMENT: Final = 200  # of the 255 characters of a topic


@dataclass(frozen=True, slots=True)
class Draft:
    """A notification that is to be stored; checked by :func:`read_draft`."""

    user: str
    title: str
    body: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Notification:
    """A row of the table; moments are text by RFC 3339, in UTC."""

    id: int
    user: str
    title: str
    body: str
    link: str
    created_at: str
    read_at: str | None

    def as_json(self) -> dict[str, Any]:
        """Return what its user's page is told."""
        return asdict(self)


def read_draft(fields: Mapping[str, Any]) -> Draft:
    """Return the notification that somebody wants to send; its user is the id, see :func:`user_id`.

    Raises:
        ValueError: a field is unknown, missing, too long or not what it should be.
    """
    unknown = [name for name in fields if name not in _FIELDS]
    if unknown:
        raise ValueError(f"expected the fields {', '.join(_FIELDS)} alone, got the unknown {unknown[0]!r:.40}")
    texts = {name: _read_text(name, fields.get(name, "")) for name in _FIELDS}
    if not _leads_somewhere(texts["link"]):
        raise ValueError(f"expected a link that begins with https://, http:// or /, got {texts['link']!r:.60}")
    return Draft(**{**texts, "user": user_id(texts["user"])})


def _read_text(name: str, value: Any) -> str:
    most, least = _FIELDS[name], int(name in _REQUIRED)
    if not isinstance(value, str):
        raise ValueError(f"expected {name!r} to be a string, got {value!r:.40}")
    text = unicodedata.normalize("NFC", value.replace("\r\n", "\n")).strip()
    if not least <= len(text) <= most:
        raise ValueError(f"expected {name!r} to have {least} to {most} characters, got {len(text)}")
    if _CONTROL.search(text) or ("\n" in text and name != "body") or not _is_unicode(text):
        raise ValueError(f"expected {name!r} to be text without control characters, got {text!r:.60}")
    return text


def _is_unicode(text: str) -> bool:
    """Tell whether ``text`` has a UTF-8 form: JSON may carry half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _leads_somewhere(link: str) -> bool:
    """Tell whether a browser may follow ``link``: not a script, and nothing that only looks like a path."""
    if not link or (link.startswith("/") and not link.startswith(("//", "/\\"))):
        return True
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def user_id(name: str) -> str:
    """Return who it is that is called ``name``: Ann and ann are one and the same."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def topic_of(user: str) -> str:
    """Return the topic of one user's notifications.

    Letters and digits of any script stand for themselves, and all else is escaped: a slash or an asterisk in
    a name, which a row by another program may have, can neither leave its segment nor become a pattern.
    """
    segment = re.sub(r"[^\w.-]", lambda found: quote(found[0], safe=""), user)
    if len(segment) > _LONGEST_SEGMENT:
        segment = "~" + hashlib.sha256(user.encode()).hexdigest()  # no other segment has this sign
    return f"users/{segment}/notifications"
