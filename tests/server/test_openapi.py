"""The description of the interface: valid, and true of the routes and their responses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from support.access import ADMIN, bearer, protect
from support.http import JSON, Site, site
from tickertape.errors import AccessUnavailableError
from tickertape.hub import Grant, Hub, OverflowPolicy
from tickertape.server.app import create_app
from tickertape.server.limits import Guard, Limits
from tickertape.server.metrics import Audience
from tickertape.server.openapi import describe

DOCUMENT = describe()

OPERATIONS = {
    (method.upper(), path): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}


def test_version() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


async def test_served() -> None:
    async with site() as hub:
        answer = await hub.ask("GET", "/openapi.json")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == DOCUMENT


def test_routes() -> None:
    routes = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in create_app(Hub()).routes
        if isinstance(route, Route) and route.include_in_schema
        for method in route.methods or ()
    }
    heads = {("HEAD", path) for method, path in OPERATIONS if method == "GET"}
    assert routes == set(OPERATIONS) | heads


def test_operation_ids() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(ids) == len(set(ids))


ASKED: list[tuple[str, str, str, int, bytes]] = [
    ("GET", "/events", "?topic=a", 200, b""),
    (
        "GET",
        "/events",
        "?topic=a&last=1&on_overflow=skip&envelope=topic&subscription=true&last_event_id=x&lastEventId=x",
        200,
        b"",
    ),
    ("GET", "/events", "?topic=a", 204, b""),
    ("GET", "/events", "", 400, b""),
    ("GET", "/events", "?topic=a", 429, b""),
    ("GET", "/events", "?topic=a", 503, b""),
    ("POST", "/events", "", 201, b'{"topic":"a","data":"x"}'),
    ("POST", "/events", "", 201, b'[{"topic":"a","data":{"b":1},"event":"e","key":"k"}]'),
    ("POST", "/events", "", 400, b"{"),
    ("POST", "/events", "", 413, b" " * 801),
    ("POST", "/events", "", 415, b""),
    ("POST", "/events", "", 422, b"{}"),
    ("POST", "/events", "", 403, b'{"topic":"a","data":"x"}'),
    ("POST", "/events", "", 429, b'{"topic":"a","data":"x"}'),
    ("POST", "/events", "", 503, b'{"topic":"a","data":"x"}'),
    ("POST", "/events/{topic}", "?event=e&key=k", 201, b"x"),
    ("POST", "/events/{topic}", "", 400, b"\xff"),
    ("POST", "/events/{topic}", "", 403, b"x"),
    ("POST", "/events/{topic}", "", 413, b"x" * 101),
    ("POST", "/events/{topic}", "", 415, b"x"),
    ("POST", "/events/{topic}", "?event=stream:x", 422, b"x"),
    ("POST", "/events/{topic}", "", 429, b"x"),
    ("POST", "/events/{topic}", "", 503, b"x"),
    ("GET", "/events", "?topic=a", 401, b""),
    ("GET", "/events", "?topic=a", 403, b""),
    ("POST", "/events", "", 401, b'{"topic":"a","data":"x"}'),
    ("POST", "/events/{topic}", "", 401, b"x"),
    ("POST", "/topics/{topic}/end", "", 401, b""),
    ("GET", "/runs", "", 401, b""),
    ("GET", "/runs", "", 403, b""),
    ("GET", "/runs/{name}", "", 401, b""),
    ("POST", "/runs/{name}", "", 401, b"{}"),
    ("POST", "/runs/{name}/events", "", 401, b'"x"'),
    ("POST", "/runs/{name}/end", "", 401, b"{}"),
    ("POST", "/runs/{name}/cancel", "", 401, b""),
    *(
        (method, path, query, status, b"")
        for method, path, query in (
            ("GET", "/history", "?topic=a"),
            ("GET", "/topics", ""),
            ("GET", "/subscribers", ""),
            ("GET", "/statistics", ""),
        )
        for status in (401, 403)
    ),
    ("GET", "/subscribers", "", 503, b""),
    *(
        ("POST", path, "", status, body)
        for path, good in (("/tickets", b'{"topics":["a"]}'), ("/revocations", b'{"user":"alice"}'))
        for status, body in (
            *((status, good) for status in (201, 401, 403, 404, 503)),
            (400, b"{"),
            (413, b" " * 70_000),
            (422, b"{}"),
        )
    ),
    *(
        ("PATCH", "/subscriptions/{id}", "", status, body)
        for status, body in (
            (200, b'{"add":["b"],"remove":["a"],"last":1.0}'),
            (400, b'{"remove":["a"]}'),
            *((status, b'{"add":["b"]}') for status in (401, 403, 404, 429, 503)),
            (413, b" " * 70_000),
            (415, b"x"),
            (422, b'{"last":1001}'),
        )
    ),
    ("GET", "/history", "?topic=a&after=a-1&limit=1", 200, b""),
    ("GET", "/history", "", 400, b""),
    ("GET", "/history", "?topic=a", 503, b""),
    ("GET", "/topics", "?after=a&limit=1&search=a", 200, b""),
    ("GET", "/topics", "?limit=0", 400, b""),
    ("GET", "/topics", "", 503, b""),
    ("POST", "/topics/{topic}/end", "", 200, b'{"reason":"done"}'),
    ("POST", "/topics/{topic}/end", "", 400, b"{"),
    ("POST", "/topics/{topic}/end", "", 403, b""),
    ("POST", "/topics/{topic}/end", "", 413, b" " * 70_000),
    ("POST", "/topics/{topic}/end", "", 415, b"x"),
    ("POST", "/topics/{topic}/end", "", 422, b'{"reason":""}'),
    ("POST", "/topics/{topic}/end", "", 429, b""),
    ("POST", "/topics/{topic}/end", "", 503, b""),
    ("GET", "/runs", "?finished=true&after=a-1&limit=1", 200, b""),
    ("GET", "/runs", "?limit=0", 400, b""),
    ("GET", "/runs", "", 503, b""),
    ("GET", "/runs/{name}", "?run=&framing=events&after=now&last_event_id=x&lastEventId=x", 200, b""),
    ("GET", "/runs/{name}", "", 204, b""),
    ("GET", "/runs/{name}", "?framing=x", 400, b""),
    ("GET", "/runs/{name}", "?owner=x", 403, b""),
    ("GET", "/runs/{name}", "", 404, b""),
    ("GET", "/runs/{name}", "?framing=openai_chat", 410, b""),
    ("GET", "/runs/{name}", "", 503, b""),
    ("POST", "/runs/{name}", "", 200, b'{"key":"k"}'),
    ("POST", "/runs/{name}", "", 201, b'{"key":"k","owner":"o","ttl":1.5,"replace":true}'),
    ("POST", "/runs/{name}", "", 400, b"{"),
    ("POST", "/runs/{name}", "", 403, b'{"key":"k","owner":"o"}'),
    ("POST", "/runs/{name}", "", 409, b'{"key":"other"}'),
    ("POST", "/runs/{name}", "", 413, b'{"owner":"' + b"x" * 2000 + b'"}'),
    ("POST", "/runs/{name}", "", 415, b"x"),
    ("POST", "/runs/{name}", "", 422, b'{"ttl":0}'),
    ("POST", "/runs/{name}", "", 429, b""),
    ("POST", "/runs/{name}", "", 503, b""),
    ("POST", "/runs/{name}/events", "?run=&event=e&key=k", 201, b'["x",{"data":{"progress":1},"event":"e"}]'),
    ("POST", "/runs/{name}/events", "", 400, b"{"),
    ("POST", "/runs/{name}/events", "?owner=x", 403, b'"x"'),
    ("POST", "/runs/{name}/events", "", 404, b'"x"'),
    ("POST", "/runs/{name}/events", "", 409, b'"x"'),
    ("POST", "/runs/{name}/events", "", 413, b'"' + b"x" * 2000 + b'"'),
    ("POST", "/runs/{name}/events", "", 415, b"x"),
    ("POST", "/runs/{name}/events", "", 422, b'{"data":"x","event":"run:end"}'),
    ("POST", "/runs/{name}/events", "", 429, b'"x"'),
    ("POST", "/runs/{name}/events", "", 503, b'"x"'),
    ("POST", "/runs/{name}/end", "?run=", 200, b'{"state":"error","error":"no"}'),
    ("POST", "/runs/{name}/end", "", 400, b"{"),
    ("POST", "/runs/{name}/end", "?owner=x", 403, b""),
    ("POST", "/runs/{name}/end", "", 404, b""),
    ("POST", "/runs/{name}/end", "", 413, b'{"error":"' + b"x" * 2000 + b'"}'),
    ("POST", "/runs/{name}/end", "", 415, b"x"),
    ("POST", "/runs/{name}/end", "", 422, b'{"state":"active"}'),
    ("POST", "/runs/{name}/end", "", 429, b""),
    ("POST", "/runs/{name}/end", "", 503, b""),
    ("POST", "/runs/{name}/cancel", "?run=", 200, b""),
    ("POST", "/runs/{name}/cancel", "", 400, b""),
    ("POST", "/runs/{name}/cancel", "?owner=x", 403, b""),
    ("POST", "/runs/{name}/cancel", "", 404, b""),
    ("POST", "/runs/{name}/cancel", "", 413, b" " * 70_000),
    ("POST", "/runs/{name}/cancel", "", 415, b"x"),
    ("POST", "/runs/{name}/cancel", "", 429, b""),
    ("POST", "/runs/{name}/cancel", "", 503, b""),
    ("GET", "/subscribers", "?limit=1&search=a", 200, b""),
    ("GET", "/statistics", "", 200, b""),
    ("GET", "/statistics", "", 429, b""),
    ("GET", "/statistics", "", 503, b""),
    ("GET", "/subscribers", "?limit=0", 400, b""),
    ("GET", "/health/live", "", 200, b""),
    ("GET", "/health/ready", "", 200, b""),
    ("GET", "/health/ready", "", 503, b""),
    ("GET", "/metrics", "", 200, b""),
    ("GET", "/metrics", "", 401, b""),
    ("GET", "/metrics", "", 403, b""),
    ("GET", "/metrics", "", 404, b""),
    ("GET", "/metrics", "", 503, b""),
    ("GET", "/openapi.json", "", 200, b""),
    ("GET", "/", "", 200, b""),
    ("GET", "/", "", 304, b""),
    ("GET", "/console", "", 200, b""),
    ("GET", "/console", "", 304, b""),
]
"""Method, path, query, expected status, body. The test prepares the hub as the status needs it."""


def test_all_statuses_are_tested() -> None:
    named = {(*key, int(status)) for key, operation in OPERATIONS.items() for status in operation["responses"]}
    assert {(method, path, status) for method, path, _, status, _ in ASKED} == named


def test_all_parameters_are_tested() -> None:
    for (method, path), operation in OPERATIONS.items():
        asked = {name for how, where, query, *_ in ASKED if (how, where) == (method, path) for name in names_in(query)}
        named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
        assert asked == named, path


def names_in(query: str) -> list[str]:
    return re.findall(r"[?&](\w+)=", query)


@pytest.mark.parametrize(("method", "path", "query", "status", "body"), ASKED)
async def test_answers(method: str, path: str, query: str, status: int, body: bytes) -> None:
    guard = Guard(Limits(publish_rate=10, stream_rate=1)) if status == 429 else None
    # An invalid name is 400 where there is nothing else to refuse.
    name = "a/*" if (path, status) == ("/runs/{name}/cancel", 400) else "a/b"
    metrics: Audience = "off" if (path, status) == ("/metrics", 404) else "admin"
    async with site(max_event_size=1000 if "{name}" in path else 100, guard=guard, metrics=metrics) as hub:
        run = await prepare_run(hub, path, status) if "{name}" in path else ""
        if guard is not None:
            guard.published("", 100, 0)
            guard.open_stream("", 0)
        url = path.replace("{topic}", "a").replace("{name}", name) + query.replace("run=", f"run={run}")
        if "{id}" in url:
            subscription = hub.hub.delivery.subscribe(("a",), 0, None, OverflowPolicy.DISCONNECT, None)
            url = url.replace("{id}", "none" if status == 404 else hub.hub.presence.name(subscription))
        headers = dict(JSON)
        if path in ("/tickets", "/revocations") or status == 401 or (status == 403 and method == "GET"):
            grants = {"admin": ADMIN, "none": Grant()}
            if status != 404:
                protect(hub.hub, grants)
            if status != 401:
                headers |= bearer("none" if status == 403 else "admin")
        if status == 415:
            headers = {"content-type": "text/plain", "content-encoding": "gzip"}
        elif status == 403:
            headers["origin"] = "https://elsewhere.example"
        elif status == 304:
            headers["if-none-match"] = (await hub.ask("GET", path)).headers["etag"]
        elif status == 503 and path in ("/subscribers", "/statistics", "/metrics"):
            hub.hub.access = find_nothing
        elif status == 503:
            await hub.hub.close()
        elif status == 204:
            await hub.ask("POST", "/topics/a/end")
            headers["last-event-id"] = f"{hub.hub.epoch}-{(await hub.hub.check()).newest}"
        async with hub.client.open(url, method=method, body=body, headers=headers) as response:
            assert response.status == status
            described = OPERATIONS[method, path]["responses"][str(status)]
            for content_type, content in described.get("content", {}).items():
                assert response.headers["content-type"].partition(";")[0] == content_type
                if "json" in content_type:
                    validate(content["schema"], await response.read())


async def prepare_run(hub: Site, path: str, status: int) -> str:
    """Open a run, if there must be one, and return its id."""
    if status == 404 or (path, status) == ("/runs/{name}", 201):
        return ""
    run: str = (await hub.post({"key": "k"}, "/runs/a/b")).json()["run"]
    if status == 204 or (path, status) == ("/runs/{name}/events", 409):
        await hub.ask("POST", "/runs/a/b/end")
    if status == 410:
        await hub.post(["1", "2"], "/runs/a/b/events")
        hub.broker.trim(keep=1)
    return run


async def find_nothing(request: object) -> Grant:
    raise AccessUnavailableError("the keys cannot be fetched")


def validate(schema: dict[str, Any], body: bytes) -> None:
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    assert [error.message for error in validator.iter_errors(json.loads(body))] == []
