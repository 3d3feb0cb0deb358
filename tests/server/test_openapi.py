"""The description of the interface: valid, and true of the routes and their responses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from support.http import JSON, site
from tickertape.hub import Hub
from tickertape.server.app import create_app
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
    ("GET", "/events", "?topic=a&last=1&on_overflow=skip&envelope=topic&last_event_id=x&lastEventId=x", 200, b""),
    ("GET", "/events", "", 400, b""),
    ("GET", "/events", "?topic=a", 503, b""),
    ("POST", "/events", "", 201, b'{"topic":"a","data":"x"}'),
    ("POST", "/events", "", 201, b'[{"topic":"a","data":{"b":1},"event":"e","key":"k"}]'),
    ("POST", "/events", "", 400, b"{"),
    ("POST", "/events", "", 413, b" " * 801),
    ("POST", "/events", "", 415, b""),
    ("POST", "/events", "", 422, b"{}"),
    ("POST", "/events", "", 403, b'{"topic":"a","data":"x"}'),
    ("POST", "/events", "", 503, b'{"topic":"a","data":"x"}'),
    ("POST", "/events/{topic}", "?event=e&key=k", 201, b"x"),
    ("POST", "/events/{topic}", "", 400, b"\xff"),
    ("POST", "/events/{topic}", "", 403, b"x"),
    ("POST", "/events/{topic}", "", 413, b"x" * 101),
    ("POST", "/events/{topic}", "", 415, b"x"),
    ("POST", "/events/{topic}", "?event=stream:x", 422, b"x"),
    ("POST", "/events/{topic}", "", 503, b"x"),
    ("GET", "/history", "?topic=a&after=a-1&limit=1", 200, b""),
    ("GET", "/history", "", 400, b""),
    ("GET", "/history", "?topic=a", 503, b""),
    ("GET", "/topics", "?after=a&limit=1", 200, b""),
    ("GET", "/topics", "?limit=0", 400, b""),
    ("GET", "/topics", "", 503, b""),
    ("GET", "/subscribers", "?limit=1", 200, b""),
    ("GET", "/subscribers", "?limit=0", 400, b""),
    ("GET", "/health/live", "", 200, b""),
    ("GET", "/health/ready", "", 200, b""),
    ("GET", "/health/ready", "", 503, b""),
    ("GET", "/metrics", "", 200, b""),
    ("GET", "/openapi.json", "", 200, b""),
    ("GET", "/", "", 200, b""),
    ("GET", "/", "", 304, b""),
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
    url = path.replace("{topic}", "a") + query
    async with site(max_event_size=100) as hub:
        headers = dict(JSON)
        if status == 415:
            headers = {"content-type": "text/plain", "content-encoding": "gzip"}
        elif status == 403:
            headers["origin"] = "https://elsewhere.example"
        elif status == 304:
            headers["if-none-match"] = (await hub.ask("GET", path)).headers["etag"]
        elif status == 503:
            await hub.hub.close()
        async with hub.client.open(url, method=method, body=body, headers=headers) as response:
            assert response.status == status
            described = OPERATIONS[method, path]["responses"][str(status)]
            for content_type, content in described.get("content", {}).items():
                assert response.headers["content-type"].partition(";")[0] == content_type
                if "json" in content_type:
                    validate(content["schema"], await response.read())


def validate(schema: dict[str, Any], body: bytes) -> None:
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    assert [error.message for error in validator.iter_errors(json.loads(body))] == []
