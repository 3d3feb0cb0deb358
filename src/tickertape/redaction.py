"""Secrets in URLs: they are not shown, and do not go into a log."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

__all__ = ["redact_target", "redact_url"]

_NAMES: Final = "ticket|token|secret|passw|auth|api.?key|signature|jwt|session|credential"

_SECRET: Final = re.compile(_NAMES, re.IGNORECASE)
"""Parts of the names of parameters that carry a secret. The ``key`` of a publication is none."""

_ASSIGNED: Final = re.compile(f"({_NAMES})[^=]*=", re.IGNORECASE)
"""A secret in the value of another parameter, because a client joined them with ``?``, ``;`` or an encoded ``&``."""


def redact_target(target: str) -> str:
    """Return the target of a request with ``***`` in place of the secrets in its query."""
    path, mark, query = target.partition("?")
    return path + mark + "&".join([_redact_parameter(each) for each in query.split("&")])


def redact_url(url: str) -> str:
    """Return a URL of HTTP with ``***`` in place of its user, its password and the secrets in its query."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    _, at, host = place.rpartition("@")
    return redact_target(f"{scheme}{mark}{'***@' if at else ''}{host}{slash}{path}")


def _redact_parameter(text: str) -> str:
    name, equals, value = text.partition("=")
    decoded = unquote_plus(name)
    if "=" in decoded and _SECRET.search(decoded):
        return "***"
    secret = _SECRET.search(decoded) or _ASSIGNED.search(unquote_plus(value))
    return f"{name}=***" if equals and secret else text
