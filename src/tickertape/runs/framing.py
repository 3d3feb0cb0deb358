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

from ..broker import Record
from ..wire import ServerSentEvent, encode_fields
from .records import END, TEXT, RunEnd, RunInfo, RunState, parse_end

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
        return [self.end_frame(end, self._info.run)]

    @staticmethod
    def end_frame(end: RunEnd, run: str) -> Frame:
        """Return the block for the end of the run with an id."""
        data: dict[str, Any] = {"reason": end.state, "run": run}
        if end.error is not None:
            data["message"] = end.error
        return Frame(json.dumps(data), "stream:end")


class _EventsForm:
    """The blocks of :class:`Events`, made once for all readers: those of an event depend on nothing but the event."""

    def encode(self, record: Record, id: str) -> bytes:
        """Return the block of an item, or of the end."""
        if not self.ends(record):
            return encode_fields(record.data, None if record.event == TEXT else record.event, id)
        end = parse_end(record.data, id)
        return Events.end_frame(end, record.topic.rpartition("/")[2]).encode(id)

    def ends(self, record: Record) -> bool:
        """Return whether the record is the end of its run."""
        return record.event == END


EVENTS_FORM: Final = _EventsForm()


class OpenAIChat:
    """OpenAI's chat completions: chunks, and ``[DONE]``. See the OpenAI API reference, "Chat Completions streaming"."""

    headers: ClassVar[Mapping[str, str]] = {}
    native = False

    def __init__(self, info: RunInfo) -> None:
        self._info = info
        self._wrote_text = False
        self._empty = True
        self._called = False  # a tool
        self._finished = False

    def frames(self, event: RunEvent) -> list[Frame]:
        self._empty = False
        if not event.text:
            self._observe(event.json())
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
        if self._finished or not (self._wrote_text or self._called):
            return [Frame(DONE)]
        return [self._chunk({}, "tool_calls" if self._called else "stop"), Frame(DONE)]

    def _observe(self, chunk: Any) -> None:
        """Record if a chunk calls a tool or ends the answer, so that the end does not contradict it."""
        for choice in _dicts(_field(chunk, "choices")):
            self._finished = self._finished or choice.get("finish_reason") is not None
            self._called = self._called or bool(_field(choice.get("delta"), "tool_calls"))

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
        self._text: list[str] | None = None  # of the item that is open
        self._index = 0  # of that item, or of the next one
        self._output: list[Any] = []
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
        opening = self._close()
        if kind != "response.created":
            opening = [*self._begin(), *opening]
        if kind == "response.output_item.added":
            self._index = max(self._index, int(data.get("output_index", 0)) + 1)
        elif kind == "response.output_item.done":
            self._output.append(data.get("item"))
        self._finished = kind in ("response.completed", "response.failed", "response.incomplete")
        fields = {name: value for name, value in data.items() if name != "type"}
        self._number = int(fields.pop("sequence_number", self._number))
        return [*opening, self._frame(kind, **fields)]

    def end(self, end: RunEnd) -> list[Frame]:
        # Clients fail on an end without a beginning.
        return [*self._begin(), *self._finish(end)]

    def _finish(self, end: RunEnd) -> list[Frame]:
        if end.state is RunState.DONE:
            closing = self._close()
            if self._finished:
                return closing
            response = self._response("completed", output=self._output)
            return [*closing, self._frame("response.completed", response=response)]
        if end.state is RunState.CANCELLED:
            response = self._response("incomplete", incomplete_details={"reason": "cancelled"})
            return [self._frame("response.incomplete", response=response)]
        response = self._response("failed", error={"code": "server_error", "message": end.error})
        return [self._frame("response.failed", response=response)]

    @property
    def _part(self) -> dict[str, Any]:
        return {"output_index": self._index, "content_index": 0, "item_id": f"msg_{self._index}"}

    def _begin(self) -> list[Frame]:
        if self._number:
            return []
        response = self._response("in_progress")
        return [
            self._frame("response.created", response=response),
            self._frame("response.in_progress", response=response),
        ]

    def _open(self) -> list[Frame]:
        self._text = []
        item = self._item("in_progress", [])
        return [
            *self._begin(),
            self._frame("response.output_item.added", output_index=self._index, item=item),
            self._frame("response.content_part.added", **self._part, part=self._content("")),
        ]

    def _close(self) -> list[Frame]:
        if self._text is None:
            return []
        content = self._content("".join(self._text))
        item = self._item("completed", [content])
        frames = [
            self._frame("response.output_text.done", **self._part, text=content["text"], logprobs=[]),
            self._frame("response.content_part.done", **self._part, part=content),
            self._frame("response.output_item.done", output_index=self._index, item=item),
        ]
        self._output.append(item)
        self._index += 1
        self._text = None
        return frames

    def _content(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        fields = {"type": "message", "id": f"msg_{self._index}", "role": "assistant"}
        return {**fields, "status": status, "content": content}

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
        self._begun = False
        self._in_text = False
        self._blocks = 0
        self._reason = "end_turn"
        self._last = ""

    def frames(self, event: RunEvent) -> list[Frame]:
        if event.text:
            opening = [] if self._in_text else self._open_text()
            delta = {"type": "text_delta", "text": event.data}
            return [*opening, self._frame("content_block_delta", index=self._blocks - 1, delta=delta)]
        data = event.json()
        kind = _field(data, "type")
        if kind == "ping":
            return [Frame(event.data, "ping")]
        self._last = kind if isinstance(kind, str) else event.event or ""
        opening = self._close_text()
        if self._last == "message_start":
            self._begun = True
        elif self._last == "content_block_start":
            opening = [*opening, *self._begin()]
            self._blocks = max(self._blocks, int(data.get("index", 0)) + 1)
            is_call = _field(data.get("content_block"), "type") == "tool_use"
            self._reason = "tool_use" if is_call else self._reason
        return [*opening, Frame(event.data, self._last or None)]

    def end(self, end: RunEnd) -> list[Frame]:
        if end.state is not RunState.DONE:
            return [self._frame("error", error={"type": "api_error", "message": end.error})]
        if self._last == "message_stop":
            return []
        # An answer without any event is a message with an empty text.
        opening = [] if self._begun or self._last else self._open_text()
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        has_reason = self._last == "message_delta"
        return [
            *opening,
            *self._close_text(),
            *([] if has_reason else [self._frame("message_delta", delta=delta, usage={"output_tokens": 0})]),
            self._frame("message_stop"),
        ]

    def _begin(self) -> list[Frame]:
        if self._begun:
            return []
        self._begun = True
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
        return [self._frame("message_start", message=message)]

    def _open_text(self) -> list[Frame]:
        self._in_text = True
        self._last = ""
        block = {"type": "text", "text": ""}
        start = self._frame("content_block_start", index=self._blocks, content_block=block)
        self._blocks += 1
        return [*self._begin(), start]

    def _close_text(self) -> list[Frame]:
        if not self._in_text:
            return []
        self._in_text = False
        return [self._frame("content_block_stop", index=self._blocks - 1)]

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
"""The framings of this package by name."""


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


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
