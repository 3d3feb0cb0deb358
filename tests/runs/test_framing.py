"""Framings: what a run's items and its end become in each protocol."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tickertape import Decoder
from tickertape.runs import RunEnd, RunEvent, RunInfo, RunState
from tickertape.runs.framing import FRAMINGS, Frame, find_framing

INFO: Final = RunInfo(name="chat/1", run="e-5", state=RunState.ACTIVE, started=1_700_000_000.5)

TEXTS: Final = [RunEvent(None, "Hel", True, "e-6"), RunEvent(None, "lo", True, "e-7")]
PARTS: Final[dict[str, list[dict[str, Any]]]] = {
    "ai_sdk": [{"type": "start", "messageId": "m"}, {"type": "data-x", "data": 1}, {"type": "finish"}],
    "ag_ui": [{"type": "RUN_STARTED", "threadId": "t", "runId": "r"}, {"type": "RUN_FINISHED"}],
    "openai_chat": [{"id": "x", "choices": []}],
    "openai_responses": [{"type": "response.created"}, {"type": "response.completed"}],
    "anthropic": [{"type": "message_start", "message": {}}, {"type": "message_stop"}],
    "events": [{"progress": 0.5}],
}


def end(state: RunState, error: str | None = None) -> RunEnd:
    return RunEnd(state, error, "e-8")


def types(frames: list[Frame]) -> list[str]:
    """Return the types of frames, as their protocol gives them."""
    return [str(_type(frame)) for frame in frames]


def _type(frame: Frame) -> Any:
    if frame.data == "[DONE]":
        return frame.data
    data = json.loads(frame.data)
    if frame.event is not None:
        assert data.get("type", frame.event) == frame.event
        return frame.event
    if "choices" in data:
        return data["choices"][0]["finish_reason"] or data["choices"][0]["delta"]["content"]
    return data.get("type") or next(iter(data))


def run(name: str, items: list[RunEvent], last: RunEnd) -> list[Frame]:
    framing = FRAMINGS[name](INFO)
    return [frame for item in items for frame in framing.frames(item)] + framing.end(last)


@pytest.mark.parametrize(
    ("name", "state", "expected"),
    [
        ("openai_chat", "done", ["Hel", "lo", "stop", "[DONE]"]),
        ("openai_chat", "error", ["Hel", "lo", "error"]),
        ("openai_chat", "cancelled", ["Hel", "lo", "error"]),
        (
            "openai_responses",
            "done",
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ],
        ),
        ("anthropic", "error", ["message_start", "content_block_start", *["content_block_delta"] * 2, "error"]),
        ("ai_sdk", "done", ["start", "text-start", *["text-delta"] * 2, "text-end", "finish", "[DONE]"]),
        ("ai_sdk", "cancelled", ["start", "text-start", *["text-delta"] * 2, "text-end", "abort", "[DONE]"]),
        ("ai_sdk", "orphaned", ["start", "text-start", *["text-delta"] * 2, "text-end", "error", "[DONE]"]),
        (
            "ag_ui",
            "done",
            [
                "RUN_STARTED",
                "TEXT_MESSAGE_START",
                *["TEXT_MESSAGE_CONTENT"] * 2,
                "TEXT_MESSAGE_END",
                "RUN_FINISHED",
            ],
        ),
        ("ag_ui", "error", ["RUN_STARTED", "TEXT_MESSAGE_START", *["TEXT_MESSAGE_CONTENT"] * 2, "RUN_ERROR"]),
    ],
)
def test_text(name: str, state: str, expected: list[str]) -> None:
    """Pieces of text get what the protocol wants around them, and an end with its reason."""
    assert types(run(name, TEXTS, end(RunState(state), None if state == "done" else "No."))) == expected


@pytest.mark.parametrize("name", PARTS)
def test_items_of_the_protocol_go_out_as_they_are(name: str) -> None:
    items = [RunEvent(None, json.dumps(part), False, f"e-{number}") for number, part in enumerate(PARTS[name], 6)]
    frames = run(name, items, end(RunState.DONE))
    sent = [json.loads(frame.data) for frame in frames if frame.data != "[DONE]"]
    for part, found in zip(PARTS[name], sent, strict=False):
        assert part.items() <= found.items()
    more = {"events": 1}.get(name, 0)
    assert len(sent) == len(PARTS[name]) + more


@pytest.mark.parametrize("name", [name for name in FRAMINGS if name != "events"])
@pytest.mark.parametrize("state", [state for state in RunState if state not in ("active", "refused")])
def test_other_protocols_get_only_their_own_events(name: str, state: RunState) -> None:
    """No block without data, no event of the hub, and after a failure no end that looks clean."""
    frames = run(name, TEXTS, end(state, "No."))
    wire = b"".join(frame.encode("e-6") for frame in frames)
    events = Decoder().feed(wire)
    assert len(events) == len(frames)
    assert not [event for event in events if (event.event or "").startswith("stream:")]
    if state != "done":
        text = wire.decode()
        assert "No." in text or "abort" in text or "cancelled" in text
        assert '"finish"' not in text
        assert "RUN_FINISHED" not in text
        assert "response.completed" not in text
        assert "message_stop" not in text


def test_ag_ui_text_after_a_tool_call() -> None:
    """Each text is a message with a new id, and the end has the ids of the beginning."""
    started = {"type": "RUN_STARTED", "threadId": "t", "runId": "r"}
    items = [started, "a", {"type": "TOOL_CALL_START"}, "b", ""]
    events = [
        RunEvent(None, item if isinstance(item, str) else json.dumps(item), isinstance(item, str), f"e-{number}")
        for number, item in enumerate(items, 6)
    ]
    sent = [json.loads(frame.data) for frame in run("ag_ui", events, end(RunState.DONE))]
    assert [(data["type"], data.get("messageId")) for data in sent] == [
        ("RUN_STARTED", None),
        ("TEXT_MESSAGE_START", "e-5-1"),
        ("TEXT_MESSAGE_CONTENT", "e-5-1"),
        ("TEXT_MESSAGE_END", "e-5-1"),
        ("TOOL_CALL_START", None),
        ("TEXT_MESSAGE_START", "e-5-2"),
        ("TEXT_MESSAGE_CONTENT", "e-5-2"),
        ("TEXT_MESSAGE_END", "e-5-2"),
        ("RUN_FINISHED", None),
    ]
    assert sent[-1] == {**started, "type": "RUN_FINISHED"}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]),
        (
            ["a", {"type": "ping"}, "b"],
            [
                "message_start",
                "content_block_start",
                "content_block_delta",
                "ping",
                *["content_block_delta", "content_block_stop", "message_delta", "message_stop"],
            ],
        ),
        (
            ["a", {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}],
            [
                "message_start",
                *["content_block_start", "content_block_delta", "content_block_stop"],
                "message_delta",
                "message_stop",
            ],
        ),
    ],
)
def test_end_of_anthropic(items: list[Any], expected: list[str]) -> None:
    events = [
        RunEvent(None, item if isinstance(item, str) else json.dumps(item), isinstance(item, str), f"e-{number}")
        for number, item in enumerate(items, 6)
    ]
    assert types(run("anthropic", events, end(RunState.DONE))) == expected


def test_sequence_numbers() -> None:
    frames = run("openai_responses", TEXTS, end(RunState.DONE))
    assert [json.loads(frame.data)["sequence_number"] for frame in frames] == list(range(len(frames)))


def test_unknown_framing() -> None:
    with pytest.raises(ValueError, match="expected framing to be one of events, openai_chat"):
        find_framing("soap")  # type: ignore[arg-type]
