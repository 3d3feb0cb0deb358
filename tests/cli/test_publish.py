"""``tickertape publish``: its requests, its output and its exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from support.command import Command, HubProgram, hub_program, run
from support.raw_server import RawServer, answer

PROBLEM = "Content-Type: application/problem+json"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProgram]:
    with hub_program("--max-event-size", "1000") as program:
        yield program


def history(hub: HubProgram, topic: str) -> list[dict[str, Any]]:
    with urlopen(f"{hub.url}/history?limit=1000&topic={topic}") as response:
        events: list[dict[str, Any]] = json.load(response)["events"]
    return events


@pytest.mark.parametrize(
    ("topic", "arguments", "stdin", "expected"),
    [
        ("one/1", ["hello"], b"", [("hello", None)]),
        ("one/2", ['{"a": 1}', "--event", "paid"], b"", [('{"a": 1}', "paid")]),
        ("one/3", [""], b"", [("", None)]),
        ("one/4", ["@-"], b"all\nof it\n", [("all\nof it\n", None)]),
        ("lines/1", [], b"one\ntwo\n", [("one", None), ("two", None)]),
        ("lines/2", ["-", "--event", "e"], "é\r\n\nlast".encode(), [("é", "e"), ("last", "e")]),
        ("lines/3", ["-"], b"", []),
        ("lines/4", ["-"], b"".join(b"%d\n" % n for n in range(900)), [(str(n), None) for n in range(900)]),
    ],
)
def test_events_and_lines(
    hub: HubProgram, topic: str, arguments: list[str], stdin: bytes, expected: list[tuple[str, str | None]]
) -> None:
    status, output, errors = run("publish", topic, *arguments, "--url", hub.url, stdin=stdin)
    events = history(hub, topic)
    assert [(event["data"], event["event"]) for event in events] == expected
    assert status == 0
    assert output == (f"{events[-1]['cursor']}\n" if events else "")
    if topic.startswith("lines"):
        assert errors == f"tickertape: published {len(expected)} event{'' if len(expected) == 1 else 's'}\n"


def test_file(hub: HubProgram, tmp_path: Path) -> None:
    path = tmp_path / "event.json"
    path.write_text('{"from": "a file"}\n')
    assert run("publish", "file/1", f"@{path}", "--url", hub.url).status == 0
    assert [event["data"] for event in history(hub, "file/1")] == ['{"from": "a file"}\n']


def test_lines_are_published_at_once(hub: HubProgram) -> None:
    with Command("listen", "live/1", "--url", hub.url) as listening:
        listening.says("connected to")
        with Command("publish", "live/1", "--url", hub.url) as publishing:
            for line in ("first", "second"):
                publishing.write(line.encode() + b"\n")
                assert json.loads(listening.line())["data"] == line


@pytest.mark.parametrize(
    ("topic", "arguments", "stdin", "count"),
    [("keys/1", ["x"], b"", 1), ("keys/2", ["-"], b"a\n\nb\n", 2)],
)
def test_key(hub: HubProgram, topic: str, arguments: list[str], stdin: bytes, count: int) -> None:
    first, second = (
        run("publish", topic, *arguments, "--key", f"k-{topic}", "--url", hub.url, stdin=stdin) for _ in range(2)
    )
    assert first == second
    assert first.status == 0
    assert len(history(hub, topic)) == count


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["a/*", "x"], b"", "wildcards are for subscriptions; next step:"),
        (["a", "x" * 2000], b"", "next step: correct the event as the hub explains"),
        (["a", "x", "--event", "stream:x"], b"", "stream:"),
        (["a", "x", "--event", "a\nb"], b"", "expected event without"),
        (["a", "-"], b"fine\n\n" + b"x" * 2000, "line 3: "),
        (["a", "-"], b"\xff\n", "the input is not UTF-8"),
    ],
)
def test_refused_events(hub: HubProgram, arguments: list[str], stdin: bytes, message: str) -> None:
    status, output, errors = run("publish", *arguments, "--url", hub.url, stdin=stdin)
    assert status == 1
    assert bool(output) == stdin.startswith(b"fine")  # events before the mistake are published
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (answer(401), "next step: --header 'Authorization: Bearer …'"),
        (answer(503), "events: expected status 201, got 503; next step: tickertape serve"),
        (answer(200, body=b"hello"), "next step: --url with the address of a hub"),
        (answer(308, "Location: /x"), "a redirect to '/x'"),
        (answer(422, PROBLEM, body=b'{"title": "No\\u001b[1m"}'), "No\\x1b[1m"),
    ],
    ids=["401", "503", "not a hub", "redirect", "controls"],
)
def test_other_servers(script: object, message: str) -> None:
    with RawServer(script) as server:  # type: ignore[arg-type]
        status, output, errors = run("publish", "a", "x", "--url", server.url, "--attempts", "1")
    assert (status, output) == (1, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_no_hub() -> None:
    with RawServer() as server:
        url = server.url
    status, output, errors = run("publish", "a", "x", "--url", url, "--attempts", "1")
    assert (status, output) == (1, "")
    assert errors.startswith(f"tickertape: cannot reach {url}/events: ")
    assert errors.endswith("; next step: tickertape serve, or --url with its address\n")


def test_error_after_some_lines() -> None:
    one = answer(201, "Content-Type: application/json", body=b'{"cursors":["e-1"]}')
    with RawServer(one, answer(400)) as server, Command("publish", "a", "--url", server.url) as command:
        command.write(b"one\n")
        while len(server.requests) < 1:
            command.says("")
        command.write(b"two\n")
        assert command.line() == "e-1\n"
        assert command.end(None) == 1
        assert "published 1 event\n" in command.errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["a", "x", "--url", "ftp://localhost:8000"], "expected a URL that starts with http:// or https://"),
        (["a", "@/nowhere/at/all"], "No such file"),
        (["a", "x", "--attempts", "0"], "--attempts"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    status, output, errors = run("publish", *arguments)
    assert (status, output) == (2, "")
    assert message in errors
    assert "Traceback" not in errors
