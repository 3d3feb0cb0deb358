"""A FastAPI application whose processes share a log: its URL stands in the variable ``LOG``."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, Request

from tickertape import Hub

__all__ = ["app"]

hub = Hub(os.environ["LOG"], drain_window=0.2)
app = FastAPI(lifespan=hub.lifespan)


@app.get("/events")
async def events(request: Request, topic: str) -> Any:
    """Stream a topic; a header says which worker does."""
    response = hub.response(request, topic)
    response.headers["x-worker"] = str(os.getpid())
    return response


@app.post("/publish")
async def publish(topic: str) -> Any:
    """Publish who this is, and say it."""
    cursor = await hub.publish(topic, os.getpid())
    return {"worker": os.getpid(), "cursor": str(cursor)}
