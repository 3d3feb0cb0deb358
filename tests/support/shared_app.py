"""A FastAPI application whose processes share a log: its URL is in the variable ``LOG``."""

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
    """Stream a topic; a header names the worker."""
    response = hub.response(request, topic)
    response.headers["x-worker"] = str(os.getpid())
    return response


@app.post("/publish")
async def publish(topic: str) -> Any:
    """Publish the number of this process, and return it."""
    cursor = await hub.publish(topic, os.getpid())
    return {"worker": os.getpid(), "cursor": str(cursor)}
