"""Framings: the events of a run in the protocol that its reader speaks.

A run's log keeps what its producer yielded. Each reader gets it in its own framing, so that one run serves
an ``EventSource``, the ``openai`` SDK and a chat component of a JavaScript framework at the same time. A
``str`` that was yielded is a piece of text and becomes the text delta of the protocol, with what the protocol
wants around it. Anything else goes out as its JSON, as it was yielded.

Protocols of others get only what they define: no block without data, and no event of our own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias

from ..wire import ServerSentEvent, encode_fields
from .records import RunEnd, RunInfo, RunState

Name: TypeAlias = Literal["events", "openai_chat", "openai_responses", "anthropic", "ai_sdk", "ag_ui"]

DONE: Final = "[DONE]"

_SHARED: Final = 4_096
"""Characters of the longest data whose blocks are kept for the next reader."""


class RunEvent(NamedTuple):
    """One item of a run.

    Attributes:
        event: its type; ``None`` for ``message``.
        data: its payload.
        text: true if the item was a ``str``, a piece of text.
        id: its cursor.
    """

    event: str | None
    data: str
    text: bool
    id: str

    def json(self) -> Any:
        """Return the data parsed, or the data itself if it is not JSON."""
        try:
            return json.loads(self.data)
        except ValueError:
            return self.data


class Frame(NamedTuple):
    """One block for a reader.

    Attributes:
        data: its payload.
        event: its type, if the protocol has types.
    """

    data: str
    event: str | None = None

    def encode(self, id: str | None) -> bytes:
        """Return the block as sent."""
        if id is None:
            return ServerSentEvent(self.data, event=self.event).encode()
        return _shared_block(*self, id) if len(self.data) <= _SHARED else encode_fields(*self, id)


class Framing(Protocol):
    """A reader's protocol. One object serves one reader, from the first event of the run.

    A reader that starts later is numbered alike: what it has already is made and not sent.
    """

    @property
    def headers(self) -> Mapping[str, str]:
        """More headers of the response."""

    @property
    def native(self) -> bool:
        """True if the reader knows our own notices: a block with an id alone, and ``stream:gap``."""

    def frames(self, event: RunEvent) -> list[Frame]:
        """Return the blocks for an item."""

    def end(self, end: RunEnd) -> list[Frame]:
        """Return the blocks for the end."""


@lru_cache(maxsize=1_024)
def _shared_block(data: str, event: str | None, id: str) -> bytes:
    """Return a block with an id. All readers of a run get the same blocks, most of them at the same time."""
    return encode_fields(data, event, id)


FramingFactory: TypeAlias = Callable[[RunInfo], Framing]


class Events:
    """Our own events: ``id:``, ``event:`` and ``data:``, and ``stream:end`` at the end."""

    headers: ClassVar[Mapping[str, str]] = {}
    native = True

    def __init__(self, info: RunInfo) -> None:
        self._info = info

    def frames(self, event: RunEvent) -> list[Frame]:
        return [Frame(event.data, None if event.text else event.event)]

    def end(self, end: RunEnd) -> list[Frame]:
        data: dict[str, Any] = {"reason": end.state, "run": self._info.run}
        if end.error is not None:
            data["message"] = end.error
        return [Frame(json.dumps(data), "stream:end")]


class OpenAIChat:
    """OpenAI's chat completions: chunks, and ``[DONE]``. See the OpenAI API reference, "Chat Completions streaming"."""

    headers: ClassVar[Mapping[str, str]] = {}
    native = False

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._wrote_text = False
        self._empty = True

    def frames(self, event: RunEvent) -> list[Frame]:
        self._empty = False
        if not event.text:
            return [Frame(event.data)]
        delta = {"content": event.data} if self._wrote_text else {"role": "assistant", "content": event.data}
        self._wrote_text = True
        return [self._chunk(delta, None)]

    def end(self, end: RunEnd) -> list[Frame]:
        if end.state is not RunState.DONE:
            error = {"message": end.error, "type": "server_error", "code": str(end.state), "param": None}
            return [Frame(_text({"error": error}))]
        if self._empty:
            return [self._chunk({"role": "assistant", "content": ""}, "stop"), Frame(DONE)]
        return [*([self._chunk({}, "stop")] if self._wrote_text else []), Frame(DONE)]

    def _chunk(self, delta: dict[str, str], finish: str | None) -> Frame:
        return Frame(
            _text(
                {
                    "id": f"chatcmpl-{self._info.run}",
                    "object": "chat.completion.chunk",
                    "created": int(self._info.started),
                    "model": self._info.name,
                    "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
                }
            )
        )


class OpenAIResponses:
    """OpenAI's responses: named events with a ``sequence_number``. See the OpenAI API reference, "Streaming events"."""

    headers: ClassVar[Mapping[str, str]] = {}
    native = False

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._number = 0
        self._text: list[str] | None = None
        self._finished = False

    def frames(self, event: RunEvent) -> list[Frame]:
        if event.text:
            opening = self._open() if self._text is None else []
            assert self._text is not None
            self._text.append(event.data)
            return [*opening, self._frame("response.output_text.delta", **self._part, delta=event.data, logprobs=[])]
        data = event.json()
        if not isinstance(data, dict):
            return [Frame(event.data, event.event)]
        kind = str(data.get("type") or event.event or "message")
        self._finished = kind in ("response.completed", "response.failed", "response.incomplete")
        fields = {name: value for name, value in data.items() if name != "type"}
        self._number = int(fields.pop("sequence_number", self._number))
        return [self._frame(kind, **fields)]

    def end(self, end: RunEnd) -> list[Frame]:
        # Clients fail on an end without a beginning.
        return [*([] if self._number else self._begin()), *self._finish(end)]

    def _finish(self, end: RunEnd) -> list[Frame]:
        if end.state is RunState.DONE:
            return [] if self._finished else self._complete()
        if end.state is RunState.CANCELLED:
            response = self._response("incomplete", incomplete_details={"reason": "cancelled"})
            return [self._frame("response.incomplete", response=response)]
        response = self._response("failed", error={"code": "server_error", "message": end.error})
        return [self._frame("response.failed", response=response)]

    _part: ClassVar[dict[str, Any]] = {"output_index": 0, "content_index": 0, "item_id": "msg_0"}

    def _open(self) -> list[Frame]:
        self._text = []
        return [
            *self._begin(),
            self._frame("response.output_item.added", output_index=0, item=self._item("in_progress", [])),
            self._frame("response.content_part.added", **self._part, part=self._content("")),
        ]

    def _begin(self) -> list[Frame]:
        response = self._response("in_progress")
        return [
            self._frame("response.created", response=response),
            self._frame("response.in_progress", response=response),
        ]

    def _complete(self) -> list[Frame]:
        if self._text is None:
            return [self._frame("response.completed", response=self._response("completed"))]
        content = self._content("".join(self._text))
        item = self._item("completed", [content])
        return [
            self._frame("response.output_text.done", **self._part, text=content["text"], logprobs=[]),
            self._frame("response.content_part.done", **self._part, part=content),
            self._frame("response.output_item.done", output_index=0, item=item),
            self._frame("response.completed", response=self._response("completed", output=[item])),
        ]

    def _content(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"type": "message", "id": "msg_0", "role": "assistant", "status": status, "content": content}

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        return {
            "id": f"resp_{self._info.run}",
            "object": "response",
            "created_at": int(self._info.started),
            "status": status,
            "model": self._info.name,
            "output": [],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            **more,
        }

    def _frame(self, kind: str, **fields: Any) -> Frame:
        frame = Frame(_text({"type": kind, "sequence_number": self._number, **fields}), kind)
        self._number += 1
        return frame


class Anthropic:
    """Anthropic's messages. See the Anthropic API reference, "Streaming messages"."""

    headers: ClassVar[Mapping[str, str]] = {}
    native = False

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._wrote_text = False
        self._empty = True

    def frames(self, event: RunEvent) -> list[Frame]:
        self._empty = False
        if not event.text:
            data = event.json()
            kind = data.get("type") if isinstance(data, dict) else None
            return [Frame(event.data, kind if isinstance(kind, str) else event.event)]
        opening = [] if self._wrote_text else self._open()
        self._wrote_text = True
        delta = {"type": "text_delta", "text": event.data}
        return [*opening, self._frame("content_block_delta", index=0, delta=delta)]

    def end(self, end: RunEnd) -> list[Frame]:
        if end.state is not RunState.DONE:
            return [self._frame("error", error={"type": "api_error", "message": end.error})]
        if not self._wrote_text and not self._empty:
            return []
        opening = self._open() if self._empty else []
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return [
            *opening,
            self._frame("content_block_stop", index=0),
            self._frame("message_delta", delta=delta, usage={"output_tokens": 0}),
            self._frame("message_stop"),
        ]

    def _open(self) -> list[Frame]:
        message: dict[str, Any] = {
            "id": f"msg_{self._info.run}",
            "type": "message",
            "role": "assistant",
            "model": self._info.name,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return [
            self._frame("message_start", message=message),
            self._frame("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        ]

    def _frame(self, kind: str, **fields: Any) -> Frame:
        return Frame(_text({"type": kind, **fields}), kind)


class AISDK:
    """Vercel's AI SDK: parts as ``data:``, and ``[DONE]``. See its documentation, "UI message stream protocol"."""

    headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}
    native = False

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._begun = False
        self._in_text = False
        self._finished = False

    def frames(self, event: RunEvent) -> list[Frame]:
        if event.text:
            opening = [] if self._in_text else [*self._begin(), self._part("text-start", id="0")]
            self._in_text = True
            return [*opening, self._part("text-delta", id="0", delta=event.data)]
        data = event.json()
        kind = data.get("type") if isinstance(data, dict) else None
        opening = self._close_text()
        if kind == "start":
            self._begun = True
        else:
            opening = [*opening, *self._begin()]
        self._finished = kind in ("finish", "abort", "error")
        return [*opening, Frame(event.data)]

    def end(self, end: RunEnd) -> list[Frame]:
        parts = [*self._begin(), *self._close_text()]
        if end.state is RunState.CANCELLED:
            parts.append(self._part("abort"))
        elif end.state is not RunState.DONE:
            parts.append(self._part("error", errorText=end.error))
        elif not self._finished:
            parts.append(self._part("finish"))
        return [*parts, Frame(DONE)]

    def _begin(self) -> list[Frame]:
        if self._begun:
            return []
        self._begun = True
        return [self._part("start", messageId=self._info.run)]

    def _close_text(self) -> list[Frame]:
        if not self._in_text:
            return []
        self._in_text = False
        return [self._part("text-end", id="0")]

    def _part(self, kind: str, **fields: Any) -> Frame:
        return Frame(_text({"type": kind, **fields}))


class AGUI:
    """AG-UI: events as ``data:``, from ``RUN_STARTED`` to an end. See its documentation, "Events"."""

    headers: ClassVar[Mapping[str, str]] = {}
    native = False

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._ids = {"threadId": info.name, "runId": info.run}
        self._begun = False
        self._texts = 0  # clients add the text of a known id to its message, before a tool call that came between
        self._in_text = False
        self._finished = False

    def frames(self, event: RunEvent) -> list[Frame]:
        if event.text:
            opening = [] if self._in_text else self._open_text()
            # The protocol has no empty deltas.
            delta = [self._event("TEXT_MESSAGE_CONTENT", **self._message, delta=event.data)] if event.data else []
            return [*opening, *delta]
        data = event.json()
        kind = data.get("type") if isinstance(data, dict) else None
        opening = self._close_text()
        if kind == "RUN_STARTED":
            self._begun = True
            self._ids = {name: data.get(name, value) for name, value in self._ids.items()}
        else:
            opening = [*opening, *self._begin()]
        self._finished = kind in ("RUN_FINISHED", "RUN_ERROR")
        return [*opening, Frame(event.data)]

    def end(self, end: RunEnd) -> list[Frame]:
        if self._finished:
            return []
        if end.state is RunState.DONE:
            return [*self._begin(), *self._close_text(), self._event("RUN_FINISHED", **self._ids)]
        return [*self._begin(), self._event("RUN_ERROR", message=end.error, code=str(end.state))]

    @property
    def _message(self) -> dict[str, str]:
        return {"messageId": f"{self._info.run}-{self._texts}"}

    def _begin(self) -> list[Frame]:
        if self._begun:
            return []
        self._begun = True
        return [self._event("RUN_STARTED", **self._ids)]

    def _open_text(self) -> list[Frame]:
        self._in_text = True
        self._texts += 1
        return [*self._begin(), self._event("TEXT_MESSAGE_START", **self._message, role="assistant")]

    def _close_text(self) -> list[Frame]:
        if not self._in_text:
            return []
        self._in_text = False
        return [self._event("TEXT_MESSAGE_END", **self._message)]

    def _event(self, kind: str, **fields: Any) -> Frame:
        return Frame(_text({"type": kind, **fields}))


FRAMINGS: Final[Mapping[str, FramingFactory]] = {
    "events": Events,
    "openai_chat": OpenAIChat,
    "openai_responses": OpenAIResponses,
    "anthropic": Anthropic,
    "ai_sdk": AISDK,
    "ag_ui": AGUI,
}


def find_framing(framing: Name | FramingFactory) -> FramingFactory:
    """Return the framing with this name, or the callable itself.

    Raises:
        ValueError: there is no framing with this name.
    """
    if callable(framing):
        return framing
    if framing not in FRAMINGS:
        raise ValueError(f"expected framing to be one of {', '.join(FRAMINGS)} or a callable, got {framing!r}")
    return FRAMINGS[framing]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
