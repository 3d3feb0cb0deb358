"""The id of each request: in the header of its answer, in its lines of the log, and in problems."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Sequence
from typing import Final

from ..asgi import ASGIApp, Message, Receive, Scope, Send, request_id

HEADER: Final = b"x-request-id"

_VALID: Final = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,128}")
"""Ids of proxies and clients that are kept: UUIDs, trace ids, Base64. None of these characters means anything in a log,
in JSON or in a header, and 128 are enough for all of them."""

_BYTES: Final = 8
"""Random bytes of an id: among the requests of a day, hardly two have the same."""


def choose_id(given: Sequence[bytes]) -> str:
    """Return the id of a request, by the values of its ``X-Request-ID`` headers.

    A single valid one is kept, also from a client: an id finds lines in a log, and gives no right to anything.
    """
    if len(given) == 1 and _VALID.fullmatch(given[0]):
        return given[0].decode()
    return secrets.token_hex(_BYTES)


class RequestIds:
    """ASGI middleware that assigns an id to each request.

    Arguments:
        app: the application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own = choose_id([value for name, value in scope["headers"] if name == HEADER])

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, own.encode())]}
            await send(message)

        token = request_id.set(own)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            error.add_note(f"request {own}")  # the server logs it with the traceback
            raise
        finally:
            request_id.reset(token)


class AddRequestId(logging.Filter):
    """Add the id of the request to the records of ``uvicorn.access``, which are written while it is served."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record; log every one."""
        own = request_id.get()
        record.__dict__["request"] = own
        if own is not None and isinstance(record.args, tuple):
            record.msg = f"{record.msg}, request %s"
            record.args = (*record.args, own)
        return True


ADD_REQUEST_ID: Final = AddRequestId()
"""One for the process: a logger keeps an equal filter once."""
