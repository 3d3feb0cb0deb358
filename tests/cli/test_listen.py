"""``tickertape listen``: its output, resuming, and its end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import PATIENCE, SCRIPT, Command, HubProgram, hub_program, run
from support.raw_server import RawServer, answer, stream
from tickertape.client import SyncPublisher

EVENTS = b'id: e-1\ndata: a\n\nid: e-2\nevent: paid\ndata: {"n": 1}\n\n'
FAST = b"retry: 500\n\n"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProgram]:
    with hub_program() as program:
        yield program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_json_in_pipe(number: signal.Signals) -> None:
    with RawServer(stream(EVENTS, then="hold")) as server, Command("listen", server.url) as command:
        assert json.loads(command.line()) == {"id": "e-1", "event": "message", "data": "a"}
        assert json.loads(command.line()) == {"id": "e-2", "event": "paid", "data": {"n": 1}}
        assert command.end(number) == 0
        assert command.line() == ""
        assert command.errors.splitlines() == [
            f"tickertape: connected to {server.url}",
            "tickertape: ended; to resume here: --since e-2",
        ]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--event", "paid"], ["e-2"]),
        (["--event", "message"], ["e-1"]),
        (["--event", "paid", "--event", "message"], ["e-1", "e-2"]),
        (["--event", "other"], []),
    ],
)
def test_events_by_type(options: list[str], ids: list[str]) -> None:
    with RawServer(stream(FAST + EVENTS)) as server:
        outcome = run("listen", server.url, *options)
    assert [json.loads(line)["id"] for line in outcome.output.splitlines()] == ids
    assert outcome.status == 0
    assert server.requests[1].headers["last-event-id"] == b"e-2"  # events that are not shown count as handled


def test_since_and_headers() -> None:
    with RawServer() as server:
        outcome = run("listen", server.url, "--since", "e-7", "-H", "Authorization: Bearer x", "-H", "X-A:b")
    (request,) = server.requests
    assert outcome.status == 0
    assert {name: request.headers[name] for name in ("last-event-id", "authorization", "x-a")} == {
        "last-event-id": b"e-7",
        "authorization": b"Bearer x",
        "x-a": b"b",
    }


def test_cursor_file(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    with RawServer(stream(FAST + EVENTS)) as server:
        run("listen", server.url, "--cursor", str(path))
        assert path.read_text() == "e-2"
        run("listen", server.url, "--cursor", str(path))
    assert [request.headers.get("last-event-id") for request in server.requests] == [None, b"e-2", b"e-2"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (answer(404, body=b"nowhere"), ["got 404: nowhere; next step: give the URL of an event stream"]),
        (answer(401), ["got 401; next step: --header 'Authorization: Bearer …'"]),
        (answer(400, body=b"no \x1b[31mtopic"), ["got 400: no \\x1b[31mtopic; next step:"]),
        (answer(200, "Content-Type: text/html"), ["got 'text/html'; next step: give the URL of an event stream"]),
        (stream(b"data: " + b"x" * 9_000_000), ["expected an event of at most 8388608 bytes", "next step:"]),
        (
            answer(302, "Location: ftp://h/"),
            ["cannot follow the redirect to 'ftp://h/'", "next step: tickertape doctor"],
        ),
        (answer(302), ["the redirect with status 302 has no Location; next step: tickertape doctor"]),
    ],
    ids=["404", "401", "400", "html", "large", "scheme", "redirect"],
)
def test_final_errors(script: object, message: list[str]) -> None:
    with RawServer(script) as server:  # type: ignore[arg-type]
        status, output, errors = run("listen", server.url)
    assert (status, output) == (1, "")
    assert [text for text in message if text not in errors.splitlines()[-1]] == []
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["http://127.0.0.1/a", "topic"], "expected one URL, or topics, got 2"),
        (["http:///a"], "expected a URL that starts with http:// or https://"),
        (["http://127.0.0.1:x/"], "expected a URL"),
        (["t", "--url", "ftp://127.0.0.1"], "expected a URL that starts with http:// or https://"),
        (["t", "--since", "a", "--cursor", "b"], "pass --since or --cursor, not both"),
        (["t", "--since", "a\nb"], "expected id without"),
        (["t", "--last", "-1"], "--last"),
        (["t", "--data", "@/nowhere/at/all"], "No such file"),
        (["t", "--count", "0"], "--count"),
        (["t", "-H", "nonsense"], "expected a header as 'Name: value', got 'nonsense'"),
        (["t", "-H", "Last-Event-ID: 1"], "Last-Event-ID"),
    ],
)
def test_mistakes(arguments: list[str], message: str) -> None:
    status, output, errors = run("listen", *arguments)
    assert (status, output) == (2, "")
    assert message in errors
    assert "Traceback" not in errors


def test_topics_of_a_hub(hub: HubProgram) -> None:
    with SyncPublisher(hub.url) as publisher:
        cursors = [publisher.publish("past/1", {"n": n}, event="count") for n in range(3)]
        with Command("listen", "past/1", "--url", hub.url, "--last", "2") as command:
            lines = [json.loads(command.line()) for _ in range(2)]
    assert (
        lines
        == [{"id": cursor, "event": "count", "topic": "past/1", "data": {"n": n}} for n, cursor in enumerate(cursors)][
            1:
        ]
    )


def test_hub_from_environment(hub: HubProgram) -> None:
    with SyncPublisher(hub.url) as publisher:
        publisher.publish("env/1", "x")
    with Command("listen", "env/*", "--last", "1", env={"TICKERTAPE_URL": hub.url}) as command:
        assert json.loads(command.line())["data"] == "x"
        assert command.end() == 0


def test_gap_after_restart() -> None:
    with (
        hub_program() as hub,
        SyncPublisher(hub.url) as publisher,
        Command("listen", "a", "--url", hub.url) as command,
    ):
        command.says("connected to")
        publisher.publish("a", "1")
        assert json.loads(command.line())["data"] == "1"
        hub.kill()
        command.says("connection lost")
        hub.start()
        command.says("events are missing after")
        publisher.publish("a", "2")
        assert json.loads(command.line())["data"] == "2"
        assert command.end() == 0
        assert "the log was replaced" in command.errors
        assert "Traceback" not in command.errors


def test_wait_for_server() -> None:
    hub = HubProgram()
    with Command("listen", "a", "--url", hub.url) as command:
        command.says("no connection (")
        try:
            hub.start()
            command.says("connected to")
        finally:
            hub.kill()


def test_closed_pipe() -> None:
    with RawServer(stream(EVENTS, then="hold")) as server:
        process = subprocess.Popen([SCRIPT, "listen", server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(PATIENCE) == 0
            assert process.stderr.read().decode() == f"tickertape: connected to {server.url}\n"


@pytest.mark.parametrize(("options", "coloured"), [([], True), (["--no-color"], False)])
def test_text_on_terminal(options: list[str], coloured: bool) -> None:
    data = b"id: e-1\nevent: paid\ndata: one\ndata: two\x1b]0;title\x07\n\n"
    env = {"TERM": "xterm-256color", "NO_COLOR": "" if coloured else "1"}
    with (
        RawServer(stream(data, then="hold")) as server,
        Command("listen", server.url, *options, terminal=True, env=env) as command,
    ):
        assert "connected to" in command.line()
        first, second = command.line(), command.line()
        assert command.end() == 0
    assert ("\x1b[1;9" in first or "\x1b[1;3" in first) is coloured
    assert "paid" in first
    assert second == "    two\\x1b]0;title\\x07\r\n"


def test_text_in_pipe_and_json_on_terminal() -> None:
    with RawServer(stream(EVENTS, then="hold"), stream(EVENTS, then="hold")) as server:
        with Command("listen", server.url, "--text") as command:
            assert [command.line(), command.line()] == ["e-1  a\n", 'e-2  paid  {"n": 1}\n']
        with Command("listen", server.url, "--json", terminal=True, env={"NO_COLOR": "1"}) as command:
            command.line()
            assert json.loads(command.line())["id"] == "e-1"


def test_json_on_terminal_is_harmless() -> None:
    data = "id: e-1\ndata: \x9b2J\u202e\x7f\n\n".encode()
    with (
        RawServer(stream(data, then="hold")) as server,
        Command("listen", server.url, "--json", terminal=True, env={"NO_COLOR": "1"}) as command,
    ):
        command.line()
        line = command.line()
    assert line == '{"id": "e-1", "event": "message", "data": "\\u009b2J\\u202e\\u007f"}\r\n'


@pytest.mark.parametrize("content", [b"a\nb", b"a\0b", b"\xff"])
def test_invalid_cursor_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cursor"
    path.write_bytes(content)
    with RawServer() as server:
        status, output, errors = run("listen", server.url, "--cursor", str(path))
    assert (status, output) == (1, "")
    assert "next step:" in errors
    assert "Traceback" not in errors
    assert server.requests == []


def test_address_without_scheme() -> None:
    with RawServer(stream(EVENTS, then="hold")) as server:
        outcome = run("listen", server.url.removeprefix("http://"), "--count", "1")
    assert (outcome.status, json.loads(outcome.output)["id"]) == (0, "e-1")


@pytest.mark.parametrize(
    ("options", "ids", "since"),
    [
        (["--count", "1"], ["e-1"], "e-1"),
        (["--count", "2"], ["e-1", "e-2"], "e-2"),
        (["--count", "1", "--event", "paid"], ["e-2"], "e-2"),
        (["--until", '{"n": 1}'], ["e-1"], "e-2"),
        (["--until", "a"], [], "e-1"),
    ],
)
def test_end_of_a_look(options: list[str], ids: list[str], since: str) -> None:
    with RawServer(stream(EVENTS, then="hold")) as server:
        outcome = run("listen", server.url, *options)
    assert outcome.status == 0
    assert [json.loads(line)["id"] for line in outcome.output.splitlines()] == ids
    assert outcome.errors.splitlines()[-1] == f"tickertape: ended; to resume here: --since {since}"


@pytest.mark.parametrize(
    ("options", "method", "body", "content_type"),
    [
        (["--data", '{"a": 1}'], "POST", b'{"a": 1}', b"application/json"),
        (["--data", '{"a": 1}', "-H", "content-type: text/x"], "POST", b'{"a": 1}', b"text/x"),
        (["--data", "text", "--method", "put"], "PUT", b"text", None),
        (["--data", "-"], "POST", b"typed", None),
        (["--method", "POST"], "POST", b"", None),
    ],
)
def test_request(options: list[str], method: str, body: bytes, content_type: bytes | None) -> None:
    with RawServer(stream(EVENTS)) as server:
        outcome = run("listen", server.url, *options, "--count", "2", stdin=b"typed")
    (request,) = server.requests
    assert outcome.status == 0
    assert (request.method, request.body, request.headers.get("content-type")) == (method, body, content_type)


def test_stream_of_a_post_ends() -> None:
    with RawServer(stream(EVENTS)) as server:
        assert run("listen", server.url, "--data", "x").status == 0
    assert len(server.requests) == 1


def test_token_command(tmp_path: Path) -> None:
    """The command runs before each attempt, and again after a refusal."""
    log = tmp_path / "log"
    command = f'echo "${{TICKERTAPE_TOKEN_REFUSED:-0}}" >> {log}; wc -l < {log}'
    with RawServer(stream(FAST + EVENTS), answer(401), answer(204)) as server:
        outcome = run("listen", server.url, "--token-command", command)
    assert outcome.status == 0
    assert [request.headers["authorization"] for request in server.requests] == [b"Bearer 1", b"Bearer 2", b"Bearer 3"]
    assert log.read_text().split() == ["0", "0", "1"]


@pytest.mark.parametrize(("command", "message"), [("exit 3", "failed with status 3"), ("true", "printed nothing")])
def test_token_command_fails(command: str, message: str) -> None:
    with RawServer() as server:
        status, output, errors = run("listen", server.url, "--token-command", command)
    assert (status, output, server.requests) == (1, "", [])
    assert f"tickertape: the command of --token-command {message}; next step:" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("since", ["nonsense", "0123456789ab-1"])
def test_wrong_since(hub: HubProgram, since: str) -> None:
    status, output, errors = run("listen", "past/**", "--url", hub.url, "--since", since)
    assert (status, output) == (1, "")
    assert f"tickertape: '{since}' is not a cursor of this log; next step: --last NUMBER" in errors.splitlines()[-1]


def test_topics_are_shown(hub: HubProgram) -> None:
    with SyncPublisher(hub.url) as publisher:
        cursors = [publisher.publish(topic, data) for topic, data in (("shown/1", "x"), ("shown/2", {"topic": "y"}))]
    options = ("listen", "shown/*", "--url", hub.url, "--last", "2", "--count", "2")
    assert [json.loads(line) for line in run(*options).output.splitlines()] == [
        {"id": cursors[0], "event": "message", "topic": "shown/1", "data": "x"},
        {"id": cursors[1], "event": "message", "topic": "shown/2", "data": {"topic": "y"}},
    ]
    assert run(*options, "--text").output.splitlines() == [
        f"{cursors[0]}  shown/1  x",
        f'{cursors[1]}  shown/2  {{"topic":"y"}}',
    ]


def test_interrupt_on_terminal() -> None:
    """The terminal shows ``^C``, and the message at the end begins on the next line."""
    with (
        RawServer(stream(EVENTS, then="hold")) as server,
        Command("listen", server.url, terminal=True, env={"NO_COLOR": "1"}) as command,
    ):
        before = [command.line() for _ in range(3)]
        assert command.end() == 0
        assert "e-2" in before[2]
        assert command.line() == "\r\n"
        assert "tickertape: ended; to resume here: --since e-2" in command.line()


PROGRESS = (
    b'id: e-1\ndata: {"progress": 0.1}\n\nid: e-2\nevent: log\ndata: a line\n\nid: e-3\ndata: {"progress": 2}\n\n'
    b'id: e-4\ndata: {"progress": 0.7, "step": "linking"}\n\n'
    b'id: e-5\nevent: stream:end\ndata: {"topic": "build", "reason": "stopped"}\n\n'
)


@pytest.mark.parametrize(
    ("options", "terminal", "term", "bars"),
    [
        ([], True, "xterm-256color", True),
        (["--text"], True, "xterm-256color", True),
        (["--json"], True, "xterm-256color", False),
        ([], True, "dumb", False),
        (["--text"], False, "xterm-256color", False),
        ([], False, "xterm-256color", False),
    ],
)
def test_progress(options: list[str], terminal: bool, term: str, bars: bool) -> None:
    """A bar on a terminal, and an ordinary line everywhere else."""
    env = {"TERM": term, "NO_COLOR": "1"}
    with (
        RawServer(stream(PROGRESS, then="hold")) as server,
        Command("listen", server.url, *options, terminal=terminal, env=env) as command,
    ):
        output = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", "".join(iter(command.line, "")))
        assert command.end(None) == 0
        errors = output if terminal else command.errors
    assert ("━" in output) is bars
    assert (" 70% " in output) is bars
    assert ("step: linking" in output) is bars
    assert ("e-4" in output) is not bars
    assert "a line" in output
    assert '"progress": 2' in output
    assert "stream:end" in output
    assert "tickertape: the topic has ended: stopped" in errors


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        ('{"reason": "done", "run": "e-1"}', 0, "the run has ended: done"),
        ('{"reason": "error", "run": "e-1", "message": "no disk"}', 3, "the run has ended: error (no disk)"),
        ('{"reason": "cancelled", "run": "e-1"}', 4, "the run has ended: cancelled"),
        ('{"reason": "orphaned", "run": "e-1"}', 5, "the run has ended: orphaned"),
        ('{"reason": "error", "topic": "a"}', 0, "the topic has ended: error"),
        ('{"reason": "\\u001b[31m"}', 0, "the stream has ended: \\x1b[31m"),
    ],
)
def test_status_of_the_end(data: str, status: int, sentence: str) -> None:
    """The end is the last line of the output, and no other request follows."""
    body = b"id: e-8\ndata: x\n\nid: e-9\nevent: stream:end\ndata: " + data.encode() + b"\n\n"
    with RawServer(stream(body), stream(body)) as server:
        outcome = run("listen", server.url)
        assert len(server.requests) == 1
    assert outcome.status == status
    assert outcome.errors.splitlines()[-1] == f"tickertape: {sentence}"
    last = json.loads(outcome.output.splitlines()[-1])
    assert (last["id"], last["event"], last["data"]) == ("e-9", "stream:end", json.loads(data))


def test_end_among_unwanted_types() -> None:
    body = EVENTS + b"id: e-9\nevent: stream:end\ndata: {}\n\n"
    with RawServer(stream(body)) as server:
        outcome = run("listen", server.url, "--event", "paid")
    assert [json.loads(line)["id"] for line in outcome.output.splitlines()] == ["e-2"]


def test_topic_of_a_hub_ends() -> None:
    with hub_program() as program, Command("listen", "job", "--url", program.url) as command:
        command.says("connected to")
        with SyncPublisher(program.url) as publisher:
            publisher.publish("job", "1")
        ended = subprocess.run(
            ["curl", "-s", "--json", '{"reason": "done"}', f"{program.url}/topics/job/end"],
            check=True,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0
        assert json.loads(command.line())["data"] == "1"
        assert json.loads(command.line())["data"] == {"topic": "job", "reason": "done"}
        assert command.end(None) == 0
