"""A server for pages that answers requests by a script, and records them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

__all__ = ["Answer", "Asked", "Script", "problem", "stream"]

End: TypeAlias = Literal["end", "stay", "cut"]


@dataclass(frozen=True)
class Answer:
    """One answer; ``then`` is the end of its body: complete, never, or a broken connection."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    then: End = "end"


def stream(body: str, then: End = "end") -> Answer:
    """Return an event stream."""
    return Answer(200, {"content-type": "text/event-stream"}, body, then)


def problem(status: int, detail: str, **headers: str) -> Answer:
    """Return a problem response."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"status": status, "detail": detail})
    return Answer(status, {"content-type": "application/problem+json", **names}, body)


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str
    at: float


class Script:
    """Answer each request with the next answer for its path. The last one stays.

    Arguments:
        answers: by path.
    """

    def __init__(self, answers: Mapping[str, list[Answer]]) -> None:
        self._answers = {path: list(given) for path, given in answers.items()}
        self._over = asyncio.Event()
        self.asked: list[Asked] = []

    @property
    def routes(self) -> list[Route]:
        """The routes of all paths."""
        methods = ["GET", "POST", "QUERY", "PUT"]
        return [Route(path, self._answer, methods=methods) for path in self._answers]

    def end(self) -> None:
        """End the streams that stay open."""
        self._over.set()

    async def _answer(self, request: Request) -> Response:
        body = (await request.body()).decode()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.asked.append(Asked(request.method, path, dict(request.headers), body, time.monotonic()))
        left = self._answers[request.url.path]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer.then == "end":
            return Response(answer.body, answer.status, dict(answer.headers))
        return StreamingResponse(self._chunks(answer), answer.status, dict(answer.headers))

    async def _chunks(self, answer: Answer) -> AsyncIterator[Any]:
        yield answer.body
        if answer.then == "cut":
            await asyncio.sleep(0)
            raise ConnectionAbortedError("as the script demands")
        await self._over.wait()
