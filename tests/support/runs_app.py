"""A server of answers in the protocols of others, as runs. What a client asks decides what the answer does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI, Request

from tickertape import Hub
from tickertape.runs import Runs

__all__ = ["TEXTS", "app"]

TEXTS: Final = ("One", " two", " \u2028three", " four")
"""Pieces of an answer. The last one waits for ``/go`` if the question is "wait"."""

hub = Hub(drain_window=0.2)
runs = Runs(hub, on_error=str)
gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
stopped: list[str] = []
app = FastAPI(lifespan=hub.lifespan)


async def answer(name: str, question: str) -> AsyncIterator[str]:
    """Produce an answer: whole, at a signal, up to a failure, or nothing."""
    if question == "nothing":
        return
    if question == "fail at once":
        raise RuntimeError("The model is gone.")
    try:
        for text in TEXTS[:-1]:
            yield text
            await asyncio.sleep(0)
        if question == "wait":
            await gates[name].wait()
        if question == "fail":
            raise RuntimeError("The model is gone.")
        yield TEXTS[-1]
    except asyncio.CancelledError:
        stopped.append(name)
        raise


async def serve(request: Request, name: str, question: str, framing: Any) -> Any:
    run = await runs.start(name, lambda: answer(name, question))
    return run.response(request, framing=framing)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Any:
    body = await request.json()
    return await serve(request, body["model"], body["messages"][-1]["content"], "openai_chat")


@app.post("/v1/responses")
async def respond(request: Request) -> Any:
    body = await request.json()
    return await serve(request, body["model"], body["input"], "openai_responses")


@app.get("/v1/responses/{response}")
async def retrieve(request: Request, response: str, starting_after: int | None = None) -> Any:
    run = response.removeprefix("resp_")
    name = next(info.name for info in await runs.list_runs(active=False) if info.run == run)
    return await runs.response(request, name, run=run, framing="openai_responses", after=starting_after)


@app.post("/v1/messages")
async def messages(request: Request) -> Any:
    body = await request.json()
    return await serve(request, body["model"], body["messages"][-1]["content"], "anthropic")


@app.post("/ai")
async def ai(request: Request) -> Any:
    body = await request.json()
    return await serve(request, body["id"], body["messages"][-1]["parts"][0]["text"], "ai_sdk")


@app.get("/ai/{name:path}/stream")
async def resume(request: Request, name: str) -> Any:
    return await runs.response(request, name, framing="ai_sdk", missing=204)


@app.get("/replay/{name:path}/stream")
async def replay(request: Request, name: str) -> Any:
    return await runs.response(request, name, framing="ai_sdk", missing=204, finished="replay")


@app.post("/ag-ui")
async def ag_ui(request: Request) -> Any:
    body = await request.json()
    return await serve(request, body["threadId"], body["messages"][-1]["content"], "ag_ui")


@app.get("/ag-ui/{name:path}")
async def join(request: Request, name: str) -> Any:
    return await runs.response(request, name, framing="ag_ui")


@app.post("/events")
async def events(request: Request, name: str, question: str) -> Any:
    return await serve(request, name, question, "events")


@app.get("/events")
async def follow(request: Request, name: str) -> Any:
    return await runs.response(request, name)


@app.post("/go/{name:path}")
async def go(name: str) -> None:
    gates[name].set()


@app.post("/stop/{name:path}")
async def stop(name: str) -> list[str]:
    """Cancel a run, and return the names of those whose producers were cancelled."""
    await runs.cancel(name)
    run = await runs.get(name)
    if run is not None:
        await run.wait()
    return stopped
