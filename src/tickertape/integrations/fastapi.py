"""Describe event streams in the OpenAPI document of a FastAPI application."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

__all__ = ["stream_of"]


def stream_of(model: Any, *, event: str | None = None, description: str = "An event stream.") -> dict[str, Any]:
    """Return the arguments of a path operation that describe its event stream.

    Use them as ``@app.get("/events", **stream_of(News))``, also for a hub's stream, whose data FastAPI cannot know.
    Each event is described by ``itemSchema``, and its data by ``contentSchema``.

    Arguments:
        model: the type of the data: a model, or any type that Pydantic knows, such as ``int | str``.
        event: the only type of the events, if they have one.
        description: of the response.

    Follows the OpenAPI Specification 3.2, "Sequential Media Types" and "Server-Sent Event Streams".

    Raises:
        PydanticUserError: Pydantic cannot describe the type.
    """
    schema = TypeAdapter(model).json_schema()
    properties: dict[str, Any] = {
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": schema},
        "event": {"type": "string"} if event is None else {"const": event},
        "id": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0},
    }
    required = ["data"] if event is None else ["data", "event"]
    item = {"type": "object", "required": required, "properties": properties}
    content = {"text/event-stream": {"itemSchema": item}}
    return {"response_model": None, "responses": {200: {"description": description, "content": content}}}
