"""Serve answers with one of the contenders: ``python -m bench.resumable.servers NAME PORT PREFIX``, and ``REDIS_URL``.

All of them answer the same requests: ``/start`` begins an answer and streams it, ``/resume`` continues it, ``/stop``
cancels it, and ``/produced`` returns how many chunks were produced in this process.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request, Response

REDIS: Final = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

produced: dict[str, int] = {}


async def words(id: str, chunks: int, pace: float) -> AsyncIterator[str]:
    """Yield an answer, chunk by chunk."""
    for number in range(chunks):
        produced[id] = number + 1
        yield f"word{number}."
        await asyncio.sleep(pace)


def tickertape_app(prefix: str) -> FastAPI:
    """Return an application on runs."""
    from tickertape import Hub
    from tickertape.runs import Runs

    hub = Hub(f"{REDIS}?prefix={prefix}", drain_window=0.1)
    runs = Runs(hub)
    app = FastAPI(lifespan=hub.lifespan)

    @app.post("/start")
    async def start(id: str, chunks: int, pace: float, request: Request) -> Any:
        run = await runs.start(id, lambda: words(id, chunks, pace), key=id)
        return run.response(request)

    @app.get("/resume")
    async def resume(id: str, request: Request) -> Any:
        return await runs.response(request, id)

    @app.post("/stop")
    async def stop(id: str) -> Any:
        return {"stopped": await runs.cancel(id) is not None}

    return app


def fastapi_resumable_stream_app(prefix: str) -> FastAPI:
    """Return an application on fastapi-resumable-stream, as its README shows it."""
    from fastapi_resumable_stream import (  # type: ignore[import-not-found]
        ActiveStreamRegistry,
        ResumableStream,
        StopController,
        resume_conversation_stream,
        start_conversation_stream,
        stop_conversation_stream,
        streaming_response,
    )
    from redis.asyncio import Redis

    redis = Redis.from_url(REDIS)
    streams = ResumableStream(redis, prefix=prefix)
    registry = ActiveStreamRegistry(redis, prefix=prefix)
    stops = StopController(redis, prefix=prefix)
    app = FastAPI()

    async def blocks(id: str, chunks: int, pace: float) -> AsyncIterator[str]:
        async for word in words(id, chunks, pace):
            yield f"data: {word}\n\n"

    @app.post("/start")
    async def start(id: str, chunks: int, pace: float) -> Any:
        return await start_conversation_stream(
            streams, registry, stops, id, id, producer=lambda: blocks(id, chunks, pace)
        )

    @app.get("/resume")
    async def resume(id: str, after: int = 0) -> Any:
        found = await resume_conversation_stream(streams, registry, id, after=after)
        return Response(status_code=204) if found is None else streaming_response(found)

    @app.post("/stop")
    async def stop(id: str) -> Any:
        return {"stopped": await stop_conversation_stream(registry, stops, id)}

    return app


APPS: Final[dict[str, Callable[[str], FastAPI]]] = {
    "tickertape": tickertape_app,
    "fastapi-resumable-stream": fastapi_resumable_stream_app,
}


def main() -> None:
    name, port, prefix = sys.argv[1:]
    app = APPS[name](prefix)

    @app.get("/produced")
    async def count(id: str) -> Response:
        return Response(str(produced.get(id, 0)))

    uvicorn.run(app, port=int(port), log_level="error", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
