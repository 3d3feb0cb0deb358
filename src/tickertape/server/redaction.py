"""Secrets in the queries of requests: they do not go into the access log."""

from __future__ import annotations

import logging
import re
from typing import Final
from urllib.parse import unquote_plus

_SECRET: Final = re.compile(r"ticket|token|secret|passw|auth|api.?key|signature|jwt|session|credential", re.IGNORECASE)
"""Parts of the names of parameters that carry a secret. The ``key`` of a publication is none."""


def redact(target: str) -> str:
    """Return the target of a request with ``***`` in place of the secrets in its query."""
    path, mark, query = target.partition("?")
    return path + mark + "&".join([_redact_parameter(each) for each in query.split("&")])


def _redact_parameter(text: str) -> str:
    name, equals, _ = text.partition("=")
    return f"{name}=***" if equals and _SECRET.search(unquote_plus(name)) else text


class RedactQueries(logging.Filter):
    """Remove secrets from the records of ``uvicorn.access``, whose third argument is the target of the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record; log every one."""
        if isinstance(record.args, tuple) and len(record.args) > 2 and isinstance(record.args[2], str):
            record.args = (*record.args[:2], redact(record.args[2]), *record.args[3:])
        return True


REDACT_QUERIES: Final = RedactQueries()
"""One for the process: a logger keeps an equal filter once."""
