"""A server of answers in the protocols of others, as runs. What a client asks decides what the answer does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import FastAPI, Request

from tickertape import Hub
from tickertape.runs import Runs

__all__ = ["ARGUMENTS", "TEXTS", "TOOLS", "app"]

TEXTS: Final = ("One", " two", " \u2028three", " four")
"""Pieces of an answer. The last one waits for ``/go`` if the question is "wait"."""

ARGUMENTS: Final = ('{"place": ', '"Łódź \u2028"}')
"""Pieces of the arguments of a tool call."""

_CHUNK: Final = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_RESPONSE: Final[dict[str, Any]] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "parallel_tool_calls": False,
    "tool_choice": "auto",
    "tools": [],
}
_CALL: Final = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather"}


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {**_CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _function(**fields: str) -> dict[str, Any]:
    return {"index": 0, "function": fields}


def _done(call: dict[str, Any]) -> dict[str, Any]:
    return {**call, "arguments": "".join(ARGUMENTS), "status": "completed"}


TOOLS: Final[dict[str, list[Any]]] = {
    "openai_chat": [
        _choice({"role": "assistant", "content": None}),
        _choice({"tool_calls": [{**_function(name="weather", arguments=""), "id": "call_1", "type": "function"}]}),
        *(_choice({"tool_calls": [_function(arguments=piece)]}) for piece in ARGUMENTS),
        _choice({}, "tool_calls"),
        {**_CHUNK, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
    ],
    "openai_responses": [
        {"type": "response.created", "response": {**_RESPONSE, "status": "in_progress", "output": []}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**_CALL, "arguments": "", "status": "in_progress"},
        },
        *(
            {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1", "delta": piece}
            for piece in ARGUMENTS
        ),
        {
            "type": "response.function_call_arguments.done",
            "output_index": 0,
            "item_id": "fc_1",
            "name": "weather",
            "arguments": "".join(ARGUMENTS),
        },
        {"type": "response.output_item.done", "output_index": 0, "item": _done(_CALL)},
        {"type": "response.completed", "response": {**_RESPONSE, "status": "completed", "output": [_done(_CALL)]}},
    ],
    "anthropic": [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 3, "output_tokens": 0},
            },
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
        },
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": piece},
            }
            for piece in ARGUMENTS
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 4},
        },
        {"type": "message_stop"},
    ],
    "ai_sdk": [
        {"type": "start", "messageId": "m-1", "messageMetadata": {"model": "m"}},
        {"type": "start-step"},
        "Let me",
        " look.",
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "weather"},
        *({"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": piece} for piece in ARGUMENTS),
        {
            "type": "tool-input-available",
            "toolCallId": "call_1",
            "toolName": "weather",
            "input": {"place": "Łódź \u2028"},
        },
        {"type": "tool-output-available", "toolCallId": "call_1", "output": {"sky": "clear"}},
        {"type": "finish-step"},
        {"type": "start-step"},
        "It is",
        " clear.",
        {"type": "finish-step"},
        {"type": "finish", "messageMetadata": {"tokens": 7}},
    ],
    "ag_ui": [
        {"type": "RUN_STARTED", "threadId": "t-1", "runId": "r-1"},
        {"type": "STEP_STARTED", "stepName": "look"},
        "Let me",
        " look.",
        {"type": "TOOL_CALL_START", "toolCallId": "call_1", "toolCallName": "weather"},
        *({"type": "TOOL_CALL_ARGS", "toolCallId": "call_1", "delta": piece} for piece in ARGUMENTS),
        {"type": "TOOL_CALL_END", "toolCallId": "call_1"},
        {"type": "TOOL_CALL_RESULT", "messageId": "m-2", "toolCallId": "call_1", "content": "clear", "role": "tool"},
        {"type": "STATE_SNAPSHOT", "snapshot": {"sky": "clear"}},
        {"type": "STEP_FINISHED", "stepName": "look"},
        "It is",
        " clear.",
    ],
}
"""Items of an answer with a tool call. If the question is "tool wait", the answer waits for ``/go`` after them."""

CALLS: Final[dict[str, list[Any]]] = {
    "openai_chat": TOOLS["openai_chat"][1:-2],
    "openai_responses": [
        item if "output_index" not in item else {**item, "output_index": 1} for item in TOOLS["openai_responses"][1:-1]
    ],
    "anthropic": [{**item, "index": 1} for item in TOOLS["anthropic"][1:-2]],
}
"""The same tool calls without the beginning and the end of the answer. They follow a text in "text and tool"."""

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


async def call_tool(name: str, question: str, framing: str) -> AsyncIterator[Any]:
    """Produce an answer with a tool call."""
    for item in TOOLS[framing] if question.startswith("tool") else [*TEXTS, *CALLS[framing]]:
        yield item
        await asyncio.sleep(0)
    if question == "tool wait":
        await gates[name].wait()


async def serve(request: Request, name: str, question: str, framing: Any) -> Any:
    def items() -> AsyncIterator[Any]:
        return call_tool(name, question, framing) if "tool" in question else answer(name, question)

    run = await runs.start(name, items)
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
