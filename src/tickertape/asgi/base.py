"""What every response of ours is to the frameworks."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from .headers import EVENT_STREAM_HEADERS, Headers
from .types import Message, Send

__all__ = ["StreamResponse"]


class StreamResponse:
    """Hold the status and the headers of an event stream.

    Arguments:
        status_code: the HTTP status. Browsers take none but 200.
        headers: more headers; one of the same name takes the place of ours.
        background: an object called, and awaited, after the stream, as Starlette's ``BackgroundTask``.
    """

    media_type: ClassVar = EVENT_STREAM_HEADERS["content-type"]
    """What FastAPI's description of the API says of ``response_class=``."""

    def __init__(
        self,
        status_code: int,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
        background: Callable[[], Awaitable[Any]] | None,
    ) -> None:
        self.status_code = status_code
        self.headers = Headers(headers or ())
        for name, value in EVENT_STREAM_HEADERS.items():
            self.headers.setdefault(name, value)
        self.background = background

    def _start(self) -> Message:
        return {"type": "http.response.start", "status": self.status_code, "headers": self.headers.raw}

    async def _answer_head(self, send: Send) -> None:
        await send(self._start())
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    # FastAPI encodes what a path operation returns as JSON unless it is an instance of Starlette's
    # Response, and builds a model from a return annotation that is not a subclass of it. We are such
    # a response in all that FastAPI asks of one, without importing a framework into every program.

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:
        starlette = sys.modules.get("starlette.responses")
        return type(self) if starlette is None else cast("type[Any]", starlette.Response)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, str]:
        return {"type": "any"}
