"""The access log without the secrets in the queries of requests."""

from __future__ import annotations

import logging
from typing import Final

from ..redaction import redact_target


class RedactQueries(logging.Filter):
    """Remove secrets from the records of ``uvicorn.access``, whose third argument is the target of the request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record; log every one."""
        if isinstance(record.args, tuple) and len(record.args) > 2 and isinstance(record.args[2], str):
            record.args = (*record.args[:2], redact_target(record.args[2]), *record.args[3:])
        return True


REDACT_QUERIES: Final = RedactQueries()
"""One for the process: a logger keeps an equal filter once."""
