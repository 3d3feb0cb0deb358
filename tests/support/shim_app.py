"""A program of sse-starlette that says goodbye, on our package; run by tests under a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.routing import Route

from tickertape.integrations.sse_starlette import EventSourceResponse


async def stream(request: Any) -> Any:
    stopping = anyio.Event()

    async def content() -> AsyncIterator[str]:
        yield "first"
        await stopping.wait()
        yield "bye"

    return EventSourceResponse(content(), shutdown_event=stopping, shutdown_grace_period=1)


app = Starlette(routes=[Route("/", stream)])
