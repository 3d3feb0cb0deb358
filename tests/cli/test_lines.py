"""The two forms of an event, for programs and for people."""

from __future__ import annotations

import json
import subprocess

import pytest

from tickertape import ServerSentEvent
from tickertape.cli.lines import json_line, out_of_envelope, since_option, styled_event, visible
from tickertape.wire import ReceivedEvent


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("[1,\n 2]", "[1,  2]"),
        (' {"digits": 12345678901234567890.10, "big": 1e999}', ' {"digits": 12345678901234567890.10, "big": 1e999}'),
        ('{"half": "\\ud800"}', '{"half": "\\ud800"}'),
        ("42", '"42"'),
        ("true", '"true"'),
        ("null", '"null"'),
        ('"quoted"', '"\\"quoted\\""'),
        ("two\nlines\t\x1b", '"two\\nlines\\t\\u001b"'),
        ("é\u2028", '"é\u2028"'),
        ("", '""'),
        ("{broken", '"{broken"'),
        ('{"n": NaN}', '"{\\"n\\": NaN}"'),
        ("[-Infinity]", '"[-Infinity]"'),
        ("[" * 100_000, f'"{"[" * 100_000}"'),
    ],
)
def test_data_of_json_line(data: str, value: str) -> None:
    line = json_line(ServerSentEvent(data, id="1"), None)
    assert line.decode() == f'{{"id": "1", "event": "message", "data": {value}}}\n'
    assert line.count(b"\n") == 1
    json.loads(line)


@pytest.mark.parametrize(
    ("event", "topic", "line"),
    [
        (ServerSentEvent("x"), None, '{"id": null, "event": "message", "data": "x"}\n'),
        (
            ServerSentEvent("x", event="é", id="a-1"),
            "t/1",
            '{"id": "a-1", "event": "é", "topic": "t/1", "data": "x"}\n',
        ),
    ],
)
def test_fields_of_json_line(event: ServerSentEvent, topic: str | None, line: str) -> None:
    assert json_line(event, topic).decode() == line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢 🎉\t|\n", "plain é 漢 🎉\t|\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\r\x00\x7f\x9b2J", "\\x0d\\x00\\x7f\\x9b2J"),
        ("\u202egnp\u2066\u061c", "\\u202egnp\\u2066\\u061c"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ServerSentEvent("x"), "x"),
        (ServerSentEvent("x", id="a-1"), "a-1  x"),
        (ServerSentEvent('{"a": 1}', id="a-1", event="paid"), 'a-1  paid  {"a": 1}'),
        (ServerSentEvent("a\nb\x1b", event="e\x1b", id="\x1b"), "\\x1b  e\\x1b  a\n    b\\x1b"),
        (ServerSentEvent("[bold]no markup[/bold]"), "[bold]no markup[/bold]"),
    ],
)
def test_styled_event(event: ServerSentEvent, text: str) -> None:
    assert styled_event(event).plain == text


def test_colour_of_type() -> None:
    first, second = (styled_event(ServerSentEvent(data, event="paid")) for data in ("1", "2"))
    assert first.spans == second.spans


DANGEROUS = "\x7f\x80\x9b2J\x9f\u061c\u200e\u200f\u202a\u202e\u2066\u2069"


@pytest.mark.parametrize("data", [f"text {DANGEROUS}", f'{{"key {DANGEROUS}": ["{DANGEROUS}"]}}'])
def test_json_line_for_terminal(data: str) -> None:
    """Escapes keep the terminal unharmed, and the JSON means the same."""
    event = ServerSentEvent(data, event=f"e{DANGEROUS}", id=f"i{DANGEROUS}")
    line = json_line(event, f"t{DANGEROUS}", for_terminal=True).decode()
    assert set(line).isdisjoint(DANGEROUS.replace("2J", ""))
    assert json.loads(line) == json.loads(json_line(event, f"t{DANGEROUS}"))
    assert visible(line) == line


@pytest.mark.parametrize(
    ("data", "topic", "inner"),
    [
        ('{"topic":"a/1","data":"x"}', "a/1", "x"),
        ('{"topic":"a/1","data":"{\\"n\\": 1}"}', "a/1", '{"n": 1}'),
        ('{"topic":"a/1","data":{}}', None, '{"topic":"a/1","data":{}}'),
        ('{"topic":"a/1","data":"x","more":1}', None, '{"topic":"a/1","data":"x","more":1}'),
        ("[1]", None, "[1]"),
        ("text", None, "text"),
    ],
)
def test_out_of_envelope(data: str, topic: str | None, inner: str) -> None:
    event = ReceivedEvent(data, id="1", event="e")
    assert out_of_envelope(event) == (topic, ReceivedEvent(inner, id="1", event="e"))


def test_styled_topic() -> None:
    assert styled_event(ServerSentEvent("x", id="1", event="e"), "a\x1b").plain == "1  a\\x1b  e  x"


@pytest.mark.parametrize("id", ["a-1", "a b", "$(id)'\"", "-1", "é漢", "\x1b[2J1", "a\\b\t'7", "\u202ex", "!x"])
def test_since_option(id: str) -> None:
    """A shell turns the option into the id, and the option cannot control a terminal."""
    option = since_option(id)
    assert visible(option) == option
    shown = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {option}"], capture_output=True, check=True, text=True, timeout=30
    )
    assert shown.stdout in (f"--since\n{id}\n", f"--since={id}\n")
    assert ("=" in option) == id.startswith("-")
