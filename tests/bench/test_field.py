"""The benchmark of the field: the reader counts exactly, a peer of each kind delivers, the page shows the results."""

from __future__ import annotations

import copy
import json
import socket
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any, Final, cast

import pytest
from bench.field import __main__ as field_main
from bench.field import peers as peers_module
from bench.field.measure import Measured, Plan, StormFailed, measure, running, storm
from bench.field.peers import PEERS, Absent, Peer
from bench.field.report import charts, first, markdown, medians, verdicts
from bench.field.report import columns as columns_of
from bench.pages import section
from bench.reader import MARK, Publisher, Reader, compile_reader, compiler

ROOT: Final = Path(__file__).parents[2]
HEAD: Final = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no C compiler")
    return compile_reader(tmp_path_factory.mktemp("reader"))


@pytest.fixture
def reader(program: Path) -> Iterator[Reader]:
    with Reader(program) as reader:
        yield reader


def event(number: int) -> bytes:
    return b"data: " + MARK.format(1, number).encode() + b"xxx\n\n"


def serve_bytes(reader: Reader, count: int, pieces: list[bytes], total: int) -> dict[str, Any]:
    """Connect streams to a server that sends these pieces to each, and return the figures."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def accept() -> None:
            for _ in range(count):
                connection = server.accept()[0]
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(4096)
                connection.sendall(HEAD)
                connections.append(connection)

        accepting = Thread(target=accept)
        accepting.start()
        connected = reader.connect(server.getsockname()[1], count, b"GET / HTTP/1.1\r\n\r\n")
        accepting.join()
        assert (connected["opened"], connected["refused"]) == (count, 0)
        reader.expect(1)
        for piece in pieces:
            for connection in connections:
                connection.sendall(piece)
        result = reader.read(total, 0.2)
        reader.close()
        for connection in connections:
            connection.close()
    return result


@pytest.mark.parametrize(
    ("pieces", "received", "lost", "doubled"),
    [
        ([event(1) + event(2) + event(3)], 3, 0, 0),
        ([event(1)[:9], event(1)[9:20], event(1)[20:] + event(2)], 2, 0, 0),
        ([bytes([each]) for each in event(1)], 1, 0, 0),
        ([event(1), event(4)], 2, 2, 0),
        ([event(1), event(1), event(2)], 3, 0, 1),
        ([b"@@12" + event(1) + b"@" * 40 + event(2)], 2, 0, 0),
        ([b"data: @1#1~\n\n" + event(1)[:-12], b"\n\n"], 0, 0, 0),
    ],
    ids=["together", "split", "bytes", "lost", "twice", "noise", "none"],
)
def test_reader(reader: Reader, pieces: list[bytes], received: int, lost: int, doubled: int) -> None:
    for count in (1, 30):
        found = serve_bytes(reader, count, pieces, count * received + 1)
        assert (found["received"], found["lost"], found["doubled"]) == (
            count * received,
            count * lost,
            count * doubled,
        )
        assert found["bytes"] == count * sum(map(len, pieces))


SMALL: Final = Plan(subscribers=(5,), burst=0.01, paced=1, exit=20.0, rounds=1)


@pytest.mark.parametrize("name", ["bare loop", "tickertape", "tickertape serve", "nchan", "websockets"])
def test_peer(name: str, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each kind: Python, ours, another server, a WebSocket."""
    monkeypatch.setattr(peers_module, "python", lambda: sys.executable)
    monkeypatch.setattr(peers_module, "installed", present)
    monkeypatch.setattr(peers_module, "HOME", tmp_path)
    peer = next(peer for peer in PEERS if peer.name == name)
    try:
        found = measure(peer, reader, 5, SMALL)
    except Absent as error:
        pytest.skip(f"{name}: {error}")
    assert found.total >= 5 * 7
    assert (found.lost, found.failed) == (0, "")
    assert all(found.rate[size] > 0 and found.cpu[size] > 0 for size in ("120", "4096"))
    assert 120 < found.wire["120"] < 200 < 4096 < found.wire["4096"] < 4200
    assert found.exit is not None
    if peer.resumes:
        assert storm(peer, reader, 5) > 0


def present(program: str, package: str) -> str:
    """Return a program, and install nothing."""
    for folder in ("/usr/bin", "/usr/sbin"):
        if (Path(folder) / program).exists():
            return f"{folder}/{program}"
    raise Absent(f"{program} is missing")


def missing(port: int) -> list[str]:
    raise Absent("no such package")


@pytest.mark.parametrize(("command", "error"), [(missing, Absent), (lambda port: ["false"], RuntimeError)])
def test_absent_peer(
    command: Callable[[int], list[str]], error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.processes.PATIENCE", 0.1)
    monkeypatch.setattr("bench.field.measure.HOME", tmp_path)
    with pytest.raises(error), running(Peer("x", "", command)):
        pass


RESULTS: Final = json.loads((ROOT / "docs" / "field.json").read_text("utf-8"))


def test_page_shows_the_results() -> None:
    """The section and the charts are those of the stored results."""
    page = (ROOT / "docs" / "performance.md").read_text("utf-8")
    files, alternatives = charts(RESULTS)
    assert section(page, "field").strip() == markdown(RESULTS, alternatives).strip()
    for name, chart in files.items():
        assert (ROOT / "docs" / "images" / name).read_text("utf-8") == chart


def test_best_of_a_column() -> None:
    """The bare loop is never the best; equal figures share the place."""
    row = {"rate": {"120": 9.0}, "cpu": {"120": 1.0}, "wire": {"120": 130.0}, "p50": 0.1, "p99": 0.1}
    row |= {"connect": 1.0, "memory": 1.0, "storm": None, "exit": None, "lost": 0}
    rows = {"bare loop": row, "a": {**row, "rate": {"120": 5.0}}, "b": {**row, "rate": {"120": 4.0}}}
    by_title = {column.title: column for column in columns_of("120")}
    assert first(rows, by_title["deliveries/s"]) == ["a"]
    assert first(rows, by_title["p50 ms"]) == ["a", "b"]
    assert first(rows, by_title["storm s"]) == []
    found = medians(RESULTS, max(RESULTS["plan"]["subscribers"]))
    assert all(found["tickertape"][name] is not None for name in ("connect", "memory", "p99", "storm"))


def test_failed_rounds_are_named() -> None:
    """A round that failed is not in the medians, and the page reports it. Without a storm, the other figures count."""
    subscribers = max(RESULTS["plan"]["subscribers"])
    results = copy.deepcopy(RESULTS)
    rows = [row for row in results["measured"] if (row["peer"], row["subscribers"]) == ("tickertape", subscribers)]
    rows[0]["failed"] = "9 of 10 events"
    rows[1] |= {"storm": None, "storm_failed": "7 of 8 clients"}
    found = medians(results, subscribers)["tickertape"]
    expected = "1 of 3 rounds failed: 9 of 10 events; median of 2; 1 of 3 storms failed: 7 of 8 clients"
    assert found["failures"] == expected
    assert found["p50"] == statistics.median(row["p50"] for row in rows[1:])
    assert found["storm"] == statistics.median(row["storm"] for row in rows[2:])
    assert f"- tickertape: {expected}.\n" in markdown(results, {})


@pytest.mark.parametrize(
    ("rounds", "failures"),
    [
        ([("", ""), ("", ""), ("", "")], ""),
        ([("slow", ""), ("", ""), ("", "")], "1 of 3 rounds failed: slow; median of 2"),
        ([("slow", ""), ("late", ""), ("", "")], "2 of 3 rounds failed: slow, late; median of 1"),
        ([("slow", ""), ("late", "")], "2 of 2 rounds failed: slow, late"),
        ([("", "short"), ("", "")], "1 of 2 storms failed: short"),
    ],
)
def test_failures_of_made_up_rounds(rounds: list[tuple[str, str]], failures: str) -> None:
    """Each reason is printed, and the true number of rounds; the losses of failed rounds count."""
    template = next(row for row in RESULTS["measured"] if row["peer"] == "tickertape")
    measured = [template | {"failed": one, "storm_failed": other, "lost": 2} for one, other in rounds]
    found = medians({**RESULTS, "measured": measured}, template["subscribers"])["tickertape"]
    assert found["failures"] == failures
    assert found["lost"] == (None if all(one for one, _ in rounds) else 2 * len(rounds))


def test_losses_of_a_storm_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """If only the storm loses events, the other figures stay, and its losses are added to theirs."""

    def measured(*_: object, found: Measured, **__: object) -> Measured:
        found.p50, found.lost, found.total = 0.5, 1, 10
        return found

    def failing(*_: object) -> float:
        raise StormFailed("6 of 8 events", 2, 8)

    monkeypatch.setattr(field_main, "measure", measured)
    monkeypatch.setattr(field_main, "storm", failing)
    rows: list[Measured] = []
    peer = next(peer for peer in PEERS if peer.resumes)
    field_main._measure_one(peer, cast(Reader, None), 1, Plan(), rows, {}, stop=False)
    assert [(row.p50, row.lost, row.total, row.failed, row.storm_failed) for row in rows] == [
        (0.5, 3, 18, "", "6 of 8 events")
    ]


def test_verdict_is_honest() -> None:
    """Each column in which another server is better is named, also if ours has no figure."""
    results = {**RESULTS, "measured": [dict(row) for row in RESULTS["measured"]]}
    for row in results["measured"]:
        if row["peer"] == "tickertape":
            row["exit"] = None
    subscribers = max(results["plan"]["subscribers"])
    best = min(row["exit"] or 99.0 for name, row in medians(results, subscribers).items() if name != "bare loop")
    lines = [line for line in verdicts(results).splitlines() if line.startswith(f"- {subscribers:,} subscribers, 120")]
    assert [line for line in lines if f"exit s: more than {results['plan']['exit']:g}, and {best:.2f} of" in line]


def test_publisher_refuses_errors() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(Publisher(server.getsockname()[1], 120)) as publisher,
        server.accept()[0] as connection,
    ):
        connection.sendall(b"HTTP/1.1 503 no\r\ncontent-length: 2\r\n\r\nno")
        with pytest.raises(RuntimeError, match="got status 503"):
            publisher.publish()
