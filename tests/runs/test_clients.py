"""Runs with the clients of others: each reads an answer, a failure and the rest of an answer in its own protocol."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anthropic
import httpx2
import openai
import pytest

from support.npm import installed
from support.runs_app import ARGUMENTS, TEXTS, TOOLS
from support.servers import Server, serve
from tickertape import Decoder

TEXT: Final = "".join(TEXTS)
FAILURE: Final = "The model is gone."
WEATHER: Final = json.loads("".join(ARGUMENTS))


POSTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "openai_chat": ("/v1/chat/completions", {"model": "stop/1", "messages": [{"content": "wait"}]}),
    "openai_responses": ("/v1/responses", {"model": "stop/2", "input": "wait"}),
    "anthropic": ("/v1/messages", {"model": "stop/3", "messages": [{"content": "wait"}]}),
    "ai_sdk": ("/ai", {"id": "stop/4", "messages": [{"parts": [{"text": "wait"}]}]}),
    "ag_ui": ("/ag-ui", {"threadId": "stop/5", "messages": [{"content": "wait"}]}),
}
"""A request in each protocol whose answer does not end."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve("uvicorn-httptools", "support.runs_app:app") as server:
        yield f"http://127.0.0.1:{server.address}"


@pytest.fixture(scope="module")
def folder(pytestconfig: pytest.Config) -> Path:
    return installed(pytestconfig)


def run_node(folder: Path, client: str, url: str) -> dict[str, Any]:
    """Run a part of ``runs.mjs`` and return what it found."""
    command = ["node", str(folder / "runs.mjs"), client, url]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_openai_chat(url: str) -> None:
    client = openai_client(url)
    with client.chat.completions.stream(model="oc/1", messages=[{"role": "user", "content": "all"}]) as answer:
        completion = answer.get_final_completion()
    assert completion.choices[0].message.content == TEXT
    assert completion.choices[0].finish_reason == "stop"
    stream = client.chat.completions.create(model="oc/2", messages=[{"role": "user", "content": "fail"}], stream=True)
    seen = [next(stream).choices[0].delta.content for _ in TEXTS[:-1]]
    with pytest.raises(openai.APIError, match=FAILURE):
        next(stream)
    assert seen == [*TEXTS[:-1]]


def test_openai_responses(url: str) -> None:
    client = openai_client(url)
    with client.responses.stream(model="or/1", input="all") as stream:
        events = [*stream]
        response = stream.get_final_response()
    assert response.output_text == TEXT
    assert [event.sequence_number for event in events] == [*range(len(events))]
    for number in range(len(events)):
        rest = client.responses.retrieve(response.id, stream=True, starting_after=number)
        assert [event.type for event in rest] == [event.type for event in events[number + 1 :]]
    failed = [*client.responses.create(model="or/2", input="fail", stream=True)][-1]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert failed.response.error.message == FAILURE


def test_openai_responses_resume_an_active_run(url: str) -> None:
    client = openai_client(url)
    stream = client.responses.create(model="or/3", input="wait", stream=True)
    before = [next(stream) for _ in range(5)]
    stream.close()
    created = before[0]
    assert created.type == "response.created"
    httpx2.post(f"{url}/go/or/3").raise_for_status()
    rest = client.responses.retrieve(created.response.id, stream=True, starting_after=before[-1].sequence_number)
    events = [*before, *rest]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert [event.sequence_number for event in events] == [*range(len(events))]


def test_anthropic(url: str) -> None:
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)

    def ask(model: str, question: str) -> Any:
        return client.messages.stream(model=model, max_tokens=9, messages=[{"role": "user", "content": question}])

    with ask("an/1", "all") as stream:
        assert [*stream.text_stream] == [*TEXTS]
        message = stream.get_final_message()
    assert message.content[0].text == TEXT
    assert message.stop_reason == "end_turn"
    with ask("an/2", "fail") as stream, pytest.raises(anthropic.APIStatusError, match=FAILURE):
        stream.until_done()


async def read_data(url: str, framing: str) -> list[dict[str, Any]]:
    """Return the events of an answer with a tool call, without a number that the framing has added."""
    path, body = POSTS[framing]
    body = json.loads(json.dumps(body).replace("wait", "tool").replace("stop/", "pass/"))
    async with httpx2.AsyncClient(base_url=url) as client, client.stream("POST", path, json=body) as answer:
        events = Decoder().feed(await answer.aread())
    found = [event.json() for event in events if event.data != "[DONE]"]
    assert [event.event for event in events if event.data != "[DONE]"] == [data.get("type") for data in found]
    return [{name: value for name, value in data.items() if name != "sequence_number"} for data in found]


@pytest.mark.parametrize("framing", ["openai_chat", "openai_responses", "anthropic"])
async def test_tool_call_passes_unchanged(framing: str, url: str) -> None:
    assert await read_data(url, framing) == TOOLS[framing]


def test_tool_call_of_openai_chat(url: str) -> None:
    with openai_client(url).chat.completions.stream(
        model="tool/1", messages=[{"role": "user", "content": "tool"}]
    ) as answer:
        events = [event.type for event in answer]
        completion = answer.get_final_completion()
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert (call.id, call.function.name, json.loads(call.function.arguments)) == ("call_1", "weather", WEATHER)
    assert "tool_calls.function.arguments.done" in events
    assert completion.usage is not None
    assert completion.usage.total_tokens == 7


def test_tool_call_of_openai_responses(url: str) -> None:
    client = openai_client(url)
    with client.responses.stream(model="tool/2", input="tool") as stream:
        events = [*stream]
        (call,) = stream.get_final_response().output
    assert call.type == "function_call"
    assert (call.call_id, call.name, json.loads(call.arguments)) == ("call_1", "weather", WEATHER)
    assert [event.sequence_number for event in events] == [*range(len(events))]


def test_tool_call_of_anthropic(url: str) -> None:
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    question: Any = [{"role": "user", "content": "tool"}]
    with client.messages.stream(model="tool/3", max_tokens=9, messages=question) as stream:
        message = stream.get_final_message()
    (block,) = message.content
    assert block.type == "tool_use"
    assert (block.id, block.name, block.input) == ("toolu_1", "weather", WEATHER)
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 4)


def test_text_and_tool_call(url: str) -> None:
    """An answer of pieces of text and then a tool call has what the protocol wants around both, and the right end."""
    question: Any = [{"role": "user", "content": "text and tool"}]
    client = openai_client(url)
    with client.chat.completions.stream(model="both/1", messages=question) as chat:
        (choice,) = chat.get_final_completion().choices
    assert choice.message.tool_calls is not None
    arguments = json.loads(choice.message.tool_calls[0].function.arguments)
    assert (choice.message.content, arguments, choice.finish_reason) == (TEXT, WEATHER, "tool_calls")
    with client.responses.stream(model="both/2", input="text and tool") as stream:
        events = [*stream]
        response = stream.get_final_response()
    assert response.output_text == TEXT
    assert [item.type for item in response.output] == ["message", "function_call"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output == response.output
    assert [event.sequence_number for event in events] == [*range(len(events))]
    other = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    with other.messages.stream(model="both/3", max_tokens=9, messages=question) as messages:
        message = messages.get_final_message()
    text, call = message.content
    assert text.type == "text"
    assert call.type == "tool_use"
    assert (text.text, call.input, message.stop_reason) == (TEXT, WEATHER, "tool_use")


def test_empty_answer(url: str) -> None:
    """An answer without text is a whole answer, and a failure before the text is that failure."""
    client = openai_client(url)
    with client.chat.completions.stream(model="empty/1", messages=[{"role": "user", "content": "nothing"}]) as chat:
        assert chat.get_final_completion().choices[0].finish_reason == "stop"
    with client.responses.stream(model="empty/2", input="nothing") as response:
        assert response.get_final_response().output_text == ""
    with client.responses.stream(model="empty/3", input="fail at once") as response:
        assert [event.type for event in response][-1] == "response.failed"
    other = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    question: Any = [{"role": "user", "content": "nothing"}]
    with other.messages.stream(model="empty/4", max_tokens=9, messages=question) as messages:
        assert messages.get_final_message().stop_reason == "end_turn"


def test_ai(url: str, folder: Path) -> None:
    """A message is the same after a cut at each chunk; a stop is an abort; there is nothing to resume when idle."""
    found = run_node(folder, "ai", url)
    whole = found["whole"]
    assert [part["text"] for part in whole["parts"] if part["type"] == "text"] == [TEXT]
    assert found["chunks"] == [
        "start",
        "text-start",
        *["text-delta"] * len(TEXTS),
        "text-end",
        "finish",
    ]
    assert found["active"] == [whole] * 5
    assert found["finished"] == [None] * 3
    assert found["replayed"] == [whole] * 3
    assert found["stopped"] == ["abort"]
    assert found["cancelled"] == 1
    assert found["idle"] is None
    assert found["failure"] == FAILURE
    tool = found["tool"]
    sent = [item for item in TOOLS["ai_sdk"] if isinstance(item, dict)]
    assert [chunk for chunk in tool["chunks"] if not chunk["type"].startswith("text-")] == sent
    assert [part["text"] for part in tool["whole"]["parts"] if part["type"] == "text"] == [
        "Let me look.",
        "It is clear.",
    ]
    (call,) = (part for part in tool["whole"]["parts"] if part["type"] == "tool-weather")
    assert (call["state"], call["input"], call["output"]) == ("output-available", WEATHER, {"sky": "clear"})
    assert tool["joined"] == [tool["whole"]] * len(tool["chunks"])


def test_ag_ui(url: str, folder: Path) -> None:
    """The agent checks the order of the events itself. A join replays a run from its start, active or not."""
    found = run_node(folder, "ag-ui", url)
    whole, tool = found["whole"], found["tool"]
    assert [message["content"] for message in whole["messages"]] == [TEXT]
    assert found["finished"] == whole
    assert found["failed"]["failure"] == FAILURE
    assert tool["failure"] is None
    assert tool["types"] == [
        "RUN_STARTED",
        "STEP_STARTED",
        "TEXT_MESSAGE_START",
        *["TEXT_MESSAGE_CONTENT"] * 2,
        "TEXT_MESSAGE_END",
        "TOOL_CALL_START",
        *["TOOL_CALL_ARGS"] * 2,
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
        "STATE_SNAPSHOT",
        "STEP_FINISHED",
        "TEXT_MESSAGE_START",
        *["TEXT_MESSAGE_CONTENT"] * 2,
        "TEXT_MESSAGE_END",
        "RUN_FINISHED",
    ]
    assert [(message["role"], message.get("content")) for message in tool["messages"]] == [
        ("assistant", "Let me look."),
        ("assistant", None),
        ("tool", "clear"),
        ("assistant", "It is clear."),
    ]
    (call,) = tool["messages"][1]["toolCalls"]
    assert call["function"] == {"name": "weather", "arguments": "".join(ARGUMENTS)}
    assert tool["state"] == {"sky": "clear"}
    assert found["joined"] == [tool] * (len(tool["types"]) - 1)


def test_eventsource_parser(url: str, folder: Path) -> None:
    found = run_node(folder, "eventsource-parser", url)
    assert found["data"][:-1] == [*TEXTS]
    assert found["types"][-1] == "stream:end"
    assert len(set(found["ids"])) == len(TEXTS) + 1


def test_fetch_event_source(url: str, folder: Path) -> None:
    """It is cut after each event, and continues after it; behind the end it gets 204."""
    found = run_node(folder, "fetch-event-source", url)
    assert found["data"] == [*TEXTS]
    assert found["requests"] == len(TEXTS) + 1
    assert found["after"] == 204


async def read_rest(chunks: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """Return what else comes, and whether the connection was cut."""
    received = b""
    try:
        async for chunk in chunks:
            received += chunk
    except httpx2.TransportError:
        return received, True
    return received, False


@pytest.mark.parametrize("kind", ["uvicorn-httptools", "hypercorn", "granian"])
async def test_stop_of_the_server_is_no_clean_end(kind: str) -> None:
    """The connections of readers are cut in every protocol, so that a part is not taken for the whole answer."""
    server = Server(kind, "support.runs_app:app")
    try:
        server.wait_for(server.address)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.address}"))
            received = dict.fromkeys(POSTS, b"")
            chunks = {}
            for framing, (path, body) in POSTS.items():
                answer = await stack.enter_async_context(client.stream("POST", path, json=body))
                chunks[framing] = answer.aiter_raw()
                while b"three" not in received[framing]:
                    received[framing] += await anext(chunks[framing])
            await server.end()
            for framing, rest in chunks.items():
                more, cut = await read_rest(rest)
                assert cut, framing
                received[framing] += more
        assert "Traceback" not in server.output
        clean = (b"[DONE]", b'finish"', b"_stop", b".completed", b"FINISHED", b"stream:")
        assert not [word for word in clean if any(word in found for found in received.values())]
    finally:
        server.close()
