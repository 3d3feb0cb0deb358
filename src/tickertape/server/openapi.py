"""The description of the HTTP interface in OpenAPI 3.1. It is written by hand; a test compares it with the routes."""

from __future__ import annotations

from typing import Any, Final

from .. import __version__
from ..hub import MAX_LAST, MAX_PAST, OverflowPolicy
from ..runs import FRAMINGS, RunState
from ..wire import (
    MAX_KEY_LENGTH,
    MAX_OFFSET,
    MAX_REASON_LENGTH,
    MAX_SEGMENTS,
    MAX_TOPIC_LENGTH,
    REFUSED_CHARACTERS,
    RESERVED_PREFIX,
)

DEFAULT_LIMIT: Final = 100
"""Items in one answer: as many as a person reads."""

MAX_LIMIT: Final = 1_000
"""Items in one answer: some hundred KiB with events of the usual size. ``after`` continues with the next page."""

MAX_SEARCH: Final = 200
"""Characters of a text to search for."""

_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}

_REASONS: Final = {
    400: "The request cannot be parsed.",
    401: "The request has no credential, or an invalid one.",
    403: "The credential does not cover this, pages of this origin may not send it, or the run has another owner.",
    404: "There is no such run or no open stream with this id, the hub has no access control, or its metrics are off.",
    409: "Another run of the name is active, or the run has ended.",
    410: "The beginning of the run is no longer kept, and the framing needs it.",
    413: "The event, the body or the batch is too large.",
    415: "The type of the body is not supported.",
    422: "The body can be parsed, but an event is invalid.",
    429: "Too many streams, too much published in a short time, a slow reader, or changes that are not read.",
    503: "The hub is draining, its broker does not work, or large bodies or unread answers use up their memory.",
}

_INNER: Final = f"[^{REFUSED_CHARACTERS}*/]"
_OUTER: Final = f"[^{REFUSED_CHARACTERS}*/ ]"
_WILD: Final = r"\*\*?"


def _topic_pattern(segments: int) -> str:
    """Return the regular expression of topics of at most so many segments."""
    return f"^{_OUTER}(?:{_INNER}*(?:/{_INNER}+){{0,{segments - 2}}}(?:/{_INNER}*)?{_OUTER})?$"


_SUBSCRIPTION: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_TOPIC_LENGTH,
    "pattern": (
        f"^(?:{_WILD}|{_OUTER}(?:{_INNER}*{_OUTER})?|(?:{_WILD}|{_OUTER}{_INNER}*)"
        f"(?:/(?:{_WILD}|{_INNER}+)){{0,{MAX_SEGMENTS - 2}}}/(?:{_WILD}|{_INNER}*{_OUTER}))$"
    ),
    "not": {"pattern": r"\*\*.*\*\*.*\*\*"},
}
_TOPIC_NAME: Final = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_TOPIC_LENGTH,
    "pattern": _topic_pattern(MAX_SEGMENTS),
}

_TOPICS: Final = {
    "name": "topic",
    "in": "query",
    "required": True,
    "description": "Topic pattern; may be repeated. `*` stands for one segment, `**` for any number.",
    "schema": {"type": "array", "items": _SUBSCRIPTION, "minItems": 1},
    "explode": True,
    "example": ["orders/42", "chat/**"],
}


def describe() -> dict[str, Any]:
    """Return the OpenAPI document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tickertape",
            "version": __version__,
            "summary": "A hub of Server-Sent Events.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "."}],
        "paths": {
            "/events": {"get": _stream(), "post": _publish()},
            "/events/{topic}": {"post": _publish_text()},
            "/tickets": {"post": _ticket()},
            "/revocations": {"post": _revoke()},
            "/subscriptions/{id}": {"patch": _change()},
            "/history": {"get": _history()},
            "/topics": {"get": _topics()},
            "/topics/{topic}/end": {"post": _end_topic()},
            "/subscribers": {"get": _subscribers()},
            "/statistics": {"get": _statistics()},
            "/runs": {"get": _runs()},
            "/runs/{name}": {"get": _read_run(), "post": _open_run()},
            "/runs/{name}/events": {"post": _append_to_run()},
            "/runs/{name}/end": {"post": _end_run()},
            "/runs/{name}/cancel": {"post": _cancel_run()},
            "/health/live": {"get": _read("The process answers.", "live", "Live", ())},
            "/health/ready": {"get": _read("The hub accepts events and subscriptions.", "ready", "Ready")},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _read("This description.", "openapi", None, ())},
            "/": {"get": _page("A page that shows the live stream.", "page")},
            "/console": {"get": _page("A page for operators, with all of this.", "console")},
        },
        "security": [{}, {"bearer": []}, {"ticket": []}],
        "components": {"schemas": _SCHEMAS, "securitySchemes": _SECURITY},
    }


def _stream() -> dict[str, Any]:
    return {
        "operationId": "subscribe",
        "summary": "Events as they are published.",
        "description": (
            "Starts after `Last-Event-ID`, else with the last events, else with the next event. An event `stream:gap` "
            "reports events that are no longer kept. The stream ends after the event `stream:end`, when all its topics "
            "have ended. HEAD returns its headers."
        ),
        "parameters": [
            _TOPICS,
            _query("last", "The number of past events to start with, if there is no `Last-Event-ID`.", 0, MAX_LAST),
            {
                "name": "on_overflow",
                "in": "query",
                "description": "The policy for a subscriber that reads too slowly.",
                "schema": {"enum": list(OverflowPolicy), "default": OverflowPolicy.DISCONNECT},
            },
            {
                "name": "envelope",
                "in": "query",
                "description": "`topic` sends an object with the texts `topic` and `data` as the data of each event.",
                "schema": {"enum": ["topic"]},
            },
            {
                "name": "subscription",
                "in": "query",
                "description": (
                    "Send the id of the subscription in an event `stream:open`, with which `PATCH /subscriptions/{id}` "
                    "changes the topics of the stream."
                ),
                "schema": {"type": "boolean", "default": False},
            },
            _text("last_event_id", "query", "The same as the header, for pages that cannot set it."),
            _text("lastEventId", "query", "The same as `last_event_id`."),
            _text("Last-Event-ID", "header", "The id of the last event that was received: a cursor."),
        ],
        "responses": {
            "200": {"description": "An event stream.", "content": {"text/event-stream": {}}},
            "204": {"description": "All topics have ended, and the client has everything: it should stop."},
            **_problems(400, 401, 403, 429, 503),
        },
    }


def _ticket() -> dict[str, Any]:
    return {
        "operationId": "createTicket",
        "summary": "A ticket for one stream, for clients that cannot send a credential with it.",
        "description": "Add it as `ticket` to the query of `GET /events`. It works once, and expires after 30 s.",
        "requestBody": _json_body(_object("topics", topics={**_list_of(_SUBSCRIPTION), "minItems": 1})),
        "responses": {
            "201": _answer("The ticket.", "Ticket"),
            **_problems(400, 401, 403, 404, 413, 422, 503),
        },
    }


def _revoke() -> dict[str, Any]:
    return {
        "operationId": "revoke",
        "summary": "End the streams of a user on all nodes, and refuse the credentials that it has now.",
        "requestBody": _json_body(_object("user", user={"type": "string", "minLength": 1, "maxLength": 1000})),
        "responses": {
            "201": _answer("The revocation is stored.", "Revocation"),
            **_problems(400, 401, 403, 404, 413, 422, 503),
        },
    }


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _publish() -> dict[str, Any]:
    event = {"$ref": "#/components/schemas/Event"}
    return {
        "operationId": "publish",
        "summary": "Publish one event, or several: either all are stored or none.",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": [event, {"type": "array", "items": event}]}},
                "application/x-ndjson": {"schema": {"description": "One event per line.", "type": "string"}},
                "application/x-www-form-urlencoded": {"schema": {"$ref": "#/components/schemas/Form"}},
            },
        },
        "responses": {
            "201": _answer("The events are stored.", "Published"),
            **_problems(400, 401, 403, 413, 415, 422, 429, 503),
        },
    }


def _publish_text() -> dict[str, Any]:
    return {
        "operationId": "publishText",
        "summary": "Publish the body as it is.",
        "description": "Its type does not matter: `curl -d hello http://127.0.0.1:8000/events/greetings`.",
        "parameters": [
            _TOPIC,
            _text("event", "query", "The event type.", _PUBLISHED_TYPE),
            _text(
                "key",
                "query",
                "An idempotency key: events with the same key are stored once. Empty for none.",
                _KEY_OR_EMPTY,
            ),
        ],
        "requestBody": {"content": {"text/plain": {"schema": _STRING}}},
        "responses": {
            "201": _answer("The event is stored.", "Cursor"),
            **_problems(400, 401, 403, 413, 415, 422, 429, 503),
        },
    }


def _change() -> dict[str, Any]:
    return {
        "operationId": "changeTopics",
        "summary": "Change the topics of an open stream.",
        "description": (
            "The stream has all events of its topics from before up to the cursor in the answer, and gets all events "
            "of its new topics after it. It gets an event `stream:topics` with this cursor as its id. Any node "
            "accepts the request; 404 may take 2 seconds, while the other nodes are asked."
        ),
        "parameters": [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": "The id of the subscription, from `stream:open`.",
                "schema": _STRING,
            }
        ],
        "requestBody": _options("Change"),
        "responses": {
            "200": _answer("The topics are changed.", "Cursor"),
            **_problems(400, 401, 403, 404, 413, 415, 422, 429, 503),
        },
    }


def _history() -> dict[str, Any]:
    return {
        "operationId": "history",
        "summary": "The kept events, oldest first.",
        "parameters": [
            _TOPICS,
            _text("after", "query", "The cursor after which to start. Default: before the oldest event.", _CURSOR),
            _query("limit", "The greatest number of events.", 1, MAX_LIMIT, DEFAULT_LIMIT),
        ],
        "responses": {"200": _answer("A page of events.", "History"), **_problems(400, 401, 403, 503)},
    }


def _topics() -> dict[str, Any]:
    return {
        "operationId": "topics",
        "summary": "Topics with events in memory, in alphabetical order.",
        "description": "The numbers of subscribers are those of all workers of one server.",
        "parameters": [
            _text("after", "query", "The topic after which to start. Default: before the first topic."),
            _search("the topics"),
            _query("limit", "The greatest number of topics.", 1, MAX_LIMIT, DEFAULT_LIMIT),
        ],
        "responses": {"200": _answer("A page of topics.", "Topics"), **_problems(400, 401, 403, 503)},
    }


def _end_topic() -> dict[str, Any]:
    return {
        "operationId": "endTopic",
        "summary": "End a topic: its readers get the events before the end, then `stream:end`.",
        "description": "If it has ended already, nothing is stored. An event that is published later opens it again.",
        "parameters": [_TOPIC],
        "requestBody": _options("Ending"),
        "responses": {
            "200": _answer("The end is stored.", "Cursor"),
            **_problems(400, 401, 403, 413, 415, 422, 429, 503),
        },
    }


def _runs() -> dict[str, Any]:
    return {
        "operationId": "listRuns",
        "summary": "The active runs, the oldest first.",
        "parameters": [
            {
                "name": "finished",
                "in": "query",
                "description": "Also list the runs that have ended and can be read.",
                "schema": {"type": "boolean", "default": False},
            },
            _text("after", "query", "The id of the run after which to start. Default: before the oldest run.", _CURSOR),
            _query("limit", "The greatest number of runs.", 1, MAX_LIMIT, DEFAULT_LIMIT),
        ],
        "responses": {"200": _answer("A page of runs.", "Runs"), **_problems(400, 401, 403, 503)},
    }


def _open_run() -> dict[str, Any]:
    return {
        "operationId": "openRun",
        "summary": "Open a run that your program fills and ends.",
        "description": (
            "If your program gives no sign of life for 7 seconds, the run ends as `orphaned`. Events are signs of "
            "life, and so is an empty array of events. A name must not end with the segment `events`, `end` or "
            "`cancel`."
        ),
        "parameters": [_NAME],
        "requestBody": _options("RunOptions"),
        "responses": {
            "200": _answer("A run with this key was opened before.", "OpenedRun"),
            "201": _answer("The run is open.", "OpenedRun"),
            **_problems(400, 401, 403, 409, 413, 415, 422, 429, 503),
        },
    }


def _read_run() -> dict[str, Any]:
    after = {"oneOf": [{"type": "integer", "minimum": 0, "maximum": MAX_OFFSET}, {"const": "now"}]}
    return {
        "operationId": "readRun",
        "summary": "The events of a run: from the beginning, then live, then the end.",
        "description": "Starts after `Last-Event-ID`, in the run that it belongs to. HEAD returns its headers.",
        "parameters": [
            _NAME,
            *_WHICH_RUN,
            {
                "name": "framing",
                "in": "query",
                "description": "The protocol of the reader.",
                "schema": {"enum": list(FRAMINGS), "default": "events"},
            },
            {
                "name": "after",
                "in": "query",
                "description": "The number of the last event that the reader has, counted from 0; or `now`.",
                "schema": after,
            },
            _text("last_event_id", "query", "The same as the header, for pages that cannot set it."),
            _text("lastEventId", "query", "The same as `last_event_id`."),
            _text("Last-Event-ID", "header", "The id of the last event that was received."),
        ],
        "responses": {
            "200": {"description": "An event stream.", "content": {"text/event-stream": {}}},
            "204": {"description": "The client has the end of the run: it should stop."},
            **_problems(400, 401, 403, 404, 410, 503),
        },
    }


def _append_to_run() -> dict[str, Any]:
    item = {"$ref": "#/components/schemas/RunItem"}
    return {
        "operationId": "appendToRun",
        "summary": "Append to a run: one item, or several, which are stored together.",
        "parameters": [
            _NAME,
            *_WHICH_RUN,
            _text("event", "query", "The event type of the items that name none.", _TYPE),
            _text(
                "key",
                "query",
                "An idempotency key: a request with the same key stores its items once. Empty for none.",
                _KEY_OR_EMPTY,
            ),
        ],
        "requestBody": {
            "content": {
                "application/json": {"schema": {"oneOf": [item, {"type": "array", "items": item}]}},
                "application/x-ndjson": {"schema": {"description": "One item per line.", "type": "string"}},
                "text/plain": {"schema": {"description": "A piece of text.", "type": "string"}},
            },
        },
        "responses": {
            "201": _answer("The items are stored.", "Published"),
            **_problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
        },
    }


def _end_run() -> dict[str, Any]:
    return {
        "operationId": "endRun",
        "summary": "End a run. The first end of a run counts.",
        "parameters": [_NAME, *_WHICH_RUN],
        "requestBody": _options("RunEnding"),
        "responses": {"200": _answer("The run.", "Run"), **_problems(400, 401, 403, 404, 413, 415, 422, 429, 503)},
    }


def _cancel_run() -> dict[str, Any]:
    return {
        "operationId": "cancelRun",
        "summary": "Ask the producer of a run to stop.",
        "description": (
            "A run that was opened over HTTP ends at once; its producer gets 409 for the next event. A producer in a "
            "program on the same log is cancelled, and the run ends soon after."
        ),
        "parameters": [_NAME, *_WHICH_RUN],
        "responses": {"200": _answer("The run.", "Run"), **_problems(400, 401, 403, 404, 413, 415, 429, 503)},
    }


def _options(schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"required": False, "content": {"application/json": {"schema": reference}}}


def _subscribers() -> dict[str, Any]:
    return {
        "operationId": "subscribers",
        "summary": "The number of subscribers, the largest audiences, and the users with the most streams.",
        "description": (
            "Describes all workers of one server. An audience is the subscribers with the same topics. Of each worker, "
            "the 10,000 largest audiences and users count."
        ),
        "parameters": [
            _search("a topic or the user of the subscribers"),
            _query("limit", "The greatest number of audiences, and of users.", 1, MAX_LIMIT, DEFAULT_LIMIT),
        ],
        "responses": {"200": _answer("The subscribers.", "Subscribers"), **_problems(400, 401, 403, 503)},
    }


def _statistics() -> dict[str, Any]:
    return {
        "operationId": "statistics",
        "summary": "The state of all workers, once a second.",
        "description": (
            "Each event `samples` has a list of samples: at first those of the last minutes, if others read them too. "
            "A sample has the state at its time, and rates for a second since the sample before. For a monitoring "
            "system, `/metrics` is better."
        ),
        "parameters": [_text("Last-Event-ID", "header", "The id of the last event that was received.")],
        "responses": {
            "200": {"description": "An event stream.", "content": {"text/event-stream": {}}},
            **_problems(401, 403, 429, 503),
        },
    }


def _search(where: str) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": MAX_SEARCH}
    return _text("search", "query", f"A text within {where}; case counts.", schema)


def _read(summary: str, name: str, schema: str | None, problems: tuple[int, ...] = (503,)) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _answer(summary, schema), **_problems(*problems)},
    }


def _page(summary: str, operation: str) -> dict[str, Any]:
    content = {"text/html": {"schema": _STRING}}
    not_modified = {"description": "The browser already has the page."}
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [_text("If-None-Match", "header", "The `ETag` of the page in the browser's cache.")],
        "responses": {"200": {"description": "The page.", "content": content}, "304": not_modified},
    }


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": _STRING}}
    return {
        "operationId": "metrics",
        "summary": "The metrics of all workers, for Prometheus.",
        "description": (
            "Prometheus' text format; OpenMetrics, if `Accept` asks for it. Where access is controlled, this needs the "
            "credential of an administrator, unless the server is set to answer everyone, or no one."
        ),
        "responses": {"200": {"description": "The metrics.", "content": content}, **_problems(401, 403, 404, 503)},
    }


def _answer(description: str, schema: str | None) -> dict[str, Any]:
    shape = {"type": "object"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": shape}}}


def _problems(*statuses: int) -> dict[str, Any]:
    problems: dict[str, Any] = {
        str(status): {"description": _REASONS[status], "content": _PROBLEM} for status in statuses
    }
    after = {"description": "Seconds after which to retry.", "schema": {"type": "integer"}}
    for status in {429, 503} & {*statuses}:
        problems[str(status)]["headers"] = {"Retry-After": after}
    return problems


def _query(name: str, description: str, least: int, most: int, default: int | None = None) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": least, "maximum": most}
    if default is not None:
        schema["default"] = default
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _text(name: str, place: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name, "in": place, "description": description, "schema": schema or _STRING}


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_STRING: Final = {"type": "string"}
_NULLABLE: Final = {"type": ["string", "null"]}
_TOPIC: Final = {
    "name": "topic",
    "in": "path",
    "required": True,
    "description": "The topic, with its slashes unescaped.",
    "schema": _TOPIC_NAME,
}
_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The name of the run: a topic, with its slashes unescaped.",
    "schema": {**_TOPIC_NAME, "maxLength": 165, "pattern": _topic_pattern(MAX_SEGMENTS - 2)},
}
_WHICH_RUN: Final = (
    _text("run", "query", "The id of the run. Default: the newest run of the name."),
    _text("owner", "query", "The owner that the run must have. Default: any."),
)
_COUNT: Final = {"type": "integer", "minimum": 0}
_NODE: Final = {"type": "string", "description": "The server that answers: a random name.", "examples": ["3fa9c1d2"]}
_CURSOR: Final = {
    "type": "string",
    "pattern": "^[0-9A-Za-z_]{1,64}-(?:0|[1-9][0-9]{0,17})$",
    "description": "The id of an event on a stream.",
    "examples": ["0a1b2c3d4e5f-42"],
}
_KEY: Final = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH}
_KEY_OR_EMPTY: Final = {"type": "string", "maxLength": MAX_KEY_LENGTH}
_TYPE: Final = {"type": "string", "pattern": r"^[^\r\n]*$"}
_PUBLISHED_TYPE: Final = {**_TYPE, "not": {"type": "string", "pattern": f"^{RESERVED_PREFIX}"}}

_RUN: Final[dict[str, Any]] = {
    "name": _STRING,
    "run": {"type": "string", "description": "The id of the run.", "examples": ["0a1b2c3d4e5f-42"]},
    "topic": {"type": "string", "description": "The topic of its events."},
    "state": {"enum": [state for state in RunState if state is not RunState.REFUSED]},
    "owner": _NULLABLE,
    "started": {"type": "number", "description": "Seconds since the Unix epoch."},
    "ended": {"type": ["number", "null"], "description": "The same; null while it is active."},
    "error": _NULLABLE,
}

_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A JSON Web Token or an API key."},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "For `GET /events`."},
}

_SCHEMAS: Final[dict[str, Any]] = {
    "Event": {
        **_object(
            "topic data",
            topic=_TOPIC_NAME,
            data={"description": "A string is sent as text, everything else as JSON."},
            event={
                **_or_null(_PUBLISHED_TYPE),
                "description": "The event type; types that start with `stream:` are reserved.",
            },
            key=_or_null(_KEY),
        ),
        "additionalProperties": False,
    },
    "Form": {
        **_object("topic data", topic=_TOPIC_NAME, data=_STRING, event=_PUBLISHED_TYPE, key=_KEY_OR_EMPTY),
        "additionalProperties": False,
        "description": "The inputs of a form, each once. An empty event type or key counts as none.",
    },
    "Cursor": _object("cursor", cursor=_CURSOR),
    "Cursors": _object("cursors", cursors=_list_of(_CURSOR)),
    "Published": {"oneOf": [{"$ref": "#/components/schemas/Cursor"}, {"$ref": "#/components/schemas/Cursors"}]},
    "History": _object(
        "events gap",
        events=_list_of(
            _object(
                "cursor topic event data",
                cursor=_CURSOR,
                topic=_STRING,
                event={"type": ["string", "null"]},
                data=_STRING,
            )
        ),
        gap={
            "description": "The reason why events before the first one are missing; null if none are.",
            "enum": ["expired", "reset", None],
        },
    ),
    "Topics": _object(
        "node topics", node=_NODE, topics=_list_of(_object("topic subscribers", topic=_STRING, subscribers=_COUNT))
    ),
    "Subscribers": _object(
        "node subscribers audience_count audiences user_count users",
        node=_NODE,
        subscribers=_COUNT,
        audience_count=_COUNT,
        audiences=_list_of(_object("topics subscribers", topics=_list_of(_STRING), subscribers=_COUNT)),
        user_count=_COUNT,
        users=_list_of(_object("user subscribers", user=_STRING, subscribers=_COUNT)),
    ),
    "Change": _closed(
        add={
            **_list_of(_SUBSCRIPTION),
            "description": "Topics or patterns to add. Those that the stream has are ignored.",
        },
        remove={**_list_of(_SUBSCRIPTION), "description": "Topics or patterns to remove. Others are ignored."},
        last={
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_PAST,
            "default": 0,
            "description": "Past events of the added topics to send first, without ids, at most 256 KiB.",
        },
    ),
    "Ending": _closed(reason={**_NULLABLE, "minLength": 1, "maxLength": MAX_REASON_LENGTH, "default": "ended"}),
    "Run": _object("name run topic state owner started ended error", **_RUN),
    "OpenedRun": _object(
        "name run topic state owner started ended error joined",
        **_RUN,
        joined={"type": "boolean", "description": "True if the run had been opened before, with the same key."},
    ),
    "Runs": _object("runs", runs=_list_of({"$ref": "#/components/schemas/Run"})),
    "RunOptions": _closed(
        key={**_NULLABLE, "description": "Identifies the request, so that it can be repeated."},
        owner={**_NULLABLE, "description": "The owner of the run."},
        ttl={"type": ["number", "null"], "exclusiveMinimum": 0, "description": "Seconds to keep it after its end."},
        replace={"type": ["boolean", "null"], "description": "End the active run of the name first."},
    ),
    "RunItem": {
        "oneOf": [
            {"type": "string", "description": "A piece of text."},
            {
                **_object(
                    "data",
                    data={"description": "A string is sent as text, everything else as JSON."},
                    event=_or_null(_TYPE),
                ),
                "additionalProperties": False,
            },
        ],
    },
    "RunEnding": _closed(
        state={"enum": ["done", "error", "cancelled", None], "default": "done"},
        error={**_NULLABLE, "description": "A text for readers."},
    ),
    "Ticket": _object(
        "ticket valid",
        ticket=_STRING,
        valid={"type": "number", "description": "Seconds for which it is valid."},
    ),
    "Revocation": _object("user", user=_STRING),
    "Live": _object("status", status={"const": "live"}),
    "Ready": _object(
        "status epoch oldest newest", status={"const": "ready"}, epoch=_STRING, oldest=_COUNT, newest=_COUNT
    ),
    "Problem": {
        **_object(
            "type title status detail",
            type=_STRING,
            title=_STRING,
            status={"type": "integer"},
            detail={"type": "string", "description": "One sentence about the mistake."},
            index={"type": "integer", "minimum": 0, "description": "The invalid event of a batch, counted from 0."},
            request={"type": "string", "description": "The id of the request, as in the header `X-Request-ID`."},
        ),
        "description": "Problem details (RFC 9457).",
    },
}
