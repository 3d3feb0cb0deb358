"""Event streams of FastAPI's path operations: those that yield, and the description of all in the OpenAPI document."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing
from functools import partial, wraps
from typing import Any, Final, get_args

import fastapi.sse
from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from ..asgi import EventSourceResponse
from ..wire import ServerSentEvent

__all__ = ["EventSourceRoute", "stream_of"]

_RESPONSE: Final = "_tickertape_response"  # a parameter: FastAPI passes what dependencies set, such as cookies


def stream_of(model: Any, *, event: str | None = None, description: str = "An event stream.") -> dict[str, Any]:
    """Return the arguments of a path operation that describe its event stream.

    Use them as ``@app.get("/events", **stream_of(News))``, also for a hub's stream, whose data FastAPI cannot know.
    Each event is described by ``itemSchema``, and its data by ``contentSchema``. This belongs to OpenAPI 3.2: set
    ``app.openapi_version = "3.2.0"`` if a tool checks the document.

    Arguments:
        model: the type of the data: a model, or any type that Pydantic knows, such as ``int | str``.
        event: the only type of the events, if they have one.
        description: of the response.

    Follows the OpenAPI Specification 3.2, "Sequential Media Types" and "Server-Sent Event Streams".

    Raises:
        PydanticUserError: Pydantic cannot describe the type.
    """
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _schema(model)}
    properties: dict[str, Any] = {
        "data": {"type": "string"} if model is str else data,
        "event": {"type": "string"} if event is None else {"const": event},
        "id": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0},
    }
    required = ["data"] if event is None else ["data", "event"]
    item = {"type": "object", "required": required, "properties": properties}
    content = {"text/event-stream": {"itemSchema": item}}
    return {"response_model": None, "responses": {200: {"description": description, "content": content}}}


class EventSourceRoute(APIRoute):
    """A route whose path operation may yield the events of its stream, as with ``fastapi.sse``.

    Use it as ``app.router.route_class = EventSourceRoute``, or ``APIRouter(route_class=EventSourceRoute)``, before the
    path operations. It applies to those that yield and have ``response_class=EventSourceResponse``, a subclass
    with your own defaults, or the class of ``fastapi.sse``; others stay as they are.

    Each item is checked against the return annotation, such as ``AsyncIterator[News]``, and encoded as FastAPI
    encodes models. The annotation is also the description of the stream; see :func:`stream_of`. The generator is
    closed before the dependencies end. With the class of ``fastapi.sse``, text is sent as JSON, as there.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        given: Any = options.get("response_class")
        native = inspect.isclass(given) and issubclass(given, fastapi.sse.EventSourceResponse)
        streams = native or (inspect.isclass(given) and issubclass(given, EventSourceResponse))
        if streams and (inspect.isasyncgenfunction(endpoint) or inspect.isgeneratorfunction(endpoint)):
            options.update(response_class=EventSourceResponse if native else given, response_model=None)
            signature = inspect.signature(endpoint, eval_str=True)
            (item, *_) = [*get_args(signature.return_annotation), Any]
            status = options.get("status_code") or 200
            if item is not Any and not _is_event(item):
                options["responses"] = {status: stream_of(item)["responses"][200], **(options.get("responses") or {})}
            respond = partial(options["response_class"], status_code=status)
            endpoint = _returning(endpoint, signature, respond, _encoder(item, native))
        super().__init__(path, endpoint, **options)


def _returning(endpoint: Any, signature: inspect.Signature, respond: Any, encode: Callable[[Any], Any]) -> Any:
    """Return a path operation with the same parameters that returns the stream of one that yields."""
    parameters = list(signature.parameters.values())
    kinds = {found.name: found.annotation for found in parameters}
    own = [name for name, kind in kinds.items() if inspect.isclass(kind) and issubclass(kind, Response)]
    if not own:
        parameters.append(inspect.Parameter(_RESPONSE, inspect.Parameter.KEYWORD_ONLY, annotation=Response))

    @wraps(endpoint)
    async def run(**values: Any) -> Any:
        set_by_dependencies = values[own[0]] if own else values.pop(_RESPONSE)
        encoded = _encoded if inspect.isasyncgenfunction(endpoint) else _encoded_sync
        response = respond(encoded(endpoint(**values), encode))
        response.raw_headers.extend(set_by_dependencies.raw_headers)
        response.status_code = set_by_dependencies.status_code or response.status_code
        return response

    del run.__wrapped__  # FastAPI looks for a generator there
    run.__signature__ = signature.replace(parameters=parameters, return_annotation=Response)  # type: ignore[attr-defined]
    return run


async def _encoded(items: AsyncGenerator[Any], encode: Callable[[Any], Any]) -> AsyncGenerator[Any]:
    async with aclosing(items):
        async for item in items:
            yield encode(item)


def _encoded_sync(items: Generator[Any], encode: Callable[[Any], Any]) -> Generator[Any]:
    with closing(items):
        yield from map(encode, items)


def _is_event(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, (bytes, ServerSentEvent, fastapi.sse.ServerSentEvent))


def _encoder(kind: Any, native: bool) -> Callable[[Any], Any]:
    """Return a function that checks an item of a type and encodes it, unless it is an event already."""
    adapter = TypeAdapter(Any if _is_event(kind) else kind)

    def encode(item: Any) -> Any:
        value = item if _is_event(type(item)) else adapter.validate_python(item, from_attributes=True)
        if _is_event(type(item)) or (isinstance(value, str) and not native):
            return value
        return ServerSentEvent(adapter.dump_json(value, by_alias=True).decode())

    return encode


def _schema(model: Any) -> Any:
    """Return a schema without ``$defs``: a reference to them has no meaning inside the OpenAPI document."""
    schema = TypeAdapter(model).json_schema(mode="serialization")
    definitions = schema.pop("$defs", {})

    def inline(value: Any, inside: tuple[str, ...] = ()) -> Any:
        if isinstance(value, list):
            return [inline(each, inside) for each in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        if name in inside:
            return {"title": name}  # a model inside itself is described once
        if name in definitions:
            return inline({**definitions[name], **{key: value[key] for key in value if key != "$ref"}}, (*inside, name))
        # A discriminator's `mapping` has references. A model's own fields are below `properties`, as schemas.
        mapped = {"mapping"} if isinstance(value.get("propertyName"), str) else set()
        return {key: inline(each, inside) for key, each in value.items() if key not in mapped}

    return inline(schema)
