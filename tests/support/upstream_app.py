"""A substitute for a language model: it speaks the protocols of OpenAI and Anthropic, and counts its requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request

from support.runs_app import TOOLS
from tickertape import EventSourceResponse, ServerSentEvent

__all__ = ["WORDS", "app"]

WORDS: Final = ("A ", "run ", "is ", "a ", "stream.")
"""The answer. If the question is "wait", its last word does not come."""

app = FastAPI()
counts = {"requests": 0, "closed": 0}


async def answer(question: str, before: list[Any], chunk: Any, after: list[Any]) -> AsyncIterator[Any]:
    counts["requests"] += 1
    try:
        for item in before:
            yield item
        for word in WORDS:
            if question == "wait" and word == WORDS[-1]:
                await asyncio.Event().wait()
            yield chunk(word)
        for item in after:
            yield item
    finally:
        counts["closed"] += 1


async def parts(framing: str) -> AsyncIterator[Any]:
    counts["requests"] += 1
    for item in TOOLS[framing]:
        yield ServerSentEvent(item, event=item.get("type"))
    if framing == "openai_chat":
        yield "[DONE]"


def choice(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


async def question_of(request: Request) -> str:
    question = (await request.json())["messages"][-1]["content"]
    if question == "fail":
        raise HTTPException(400, "secret")
    return str(question)


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Any:
    question = await question_of(request)
    if question == "tool":
        return EventSourceResponse(parts("openai_chat"))
    begin, end = [choice({"role": "assistant", "content": ""})], [choice({}, "stop"), "[DONE]"]
    return EventSourceResponse(answer(question, begin, lambda word: choice({"content": word}), end))


@app.post("/v1/messages")
async def messages(request: Request) -> Any:
    question = await question_of(request)
    if question == "tool":
        return EventSourceResponse(parts("anthropic"))

    def event(kind: str, **fields: Any) -> ServerSentEvent:
        return ServerSentEvent({"type": kind, **fields}, event=kind)

    def delta(word: str) -> ServerSentEvent:
        return event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})

    begin = [
        ServerSentEvent(TOOLS["anthropic"][0], event="message_start"),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    stopped = {"stop_reason": "end_turn", "stop_sequence": None}
    end = [
        event("content_block_stop", index=0),
        event("message_delta", delta=stopped, usage={"output_tokens": 5}),
        event("message_stop"),
    ]
    return EventSourceResponse(answer(question, begin, delta, end))


@app.get("/counts")
async def read_counts() -> dict[str, int]:
    return counts
