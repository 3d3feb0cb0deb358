"""A hub that cannot open its log: it reports the reason in one line and exits."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from support.command import PATIENCE, SCRIPT, Outcome, environment, run
from support.servers import free_port

from .disks import tmpfs
from .servers import Servers

PASSWORD = "s3cret"

SERVERS = {
    "redis": "redis://:{password}@127.0.0.1:{port}/0?timeout=1",
    "postgres": "postgresql://postgres:{password}@127.0.0.1:{port}/postgres?timeout=1",
    "nats": "nats://tester:{password}@127.0.0.1:{port}/log?connect_timeout=1",
}


def serve(url: str, workers: str = "1") -> Outcome:
    return run("serve", "--port", "0", "--workers", workers, "--broker", url)


def check(outcome: Outcome, *reasons: str) -> None:
    """Check the exit of a hub that could not start."""
    status, output, errors = outcome
    assert (status, output) == (1, "")
    assert errors.startswith("tickertape: the broker ")
    assert errors.count("\n") == 1, "one line"
    assert any(each in errors for each in reasons), errors
    assert PASSWORD not in errors


@pytest.fixture
def mute() -> Iterator[int]:
    """Return the port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("kind", "workers"), [("redis", "2"), ("postgres", "1"), ("nats", "1")])
def test_no_server(kind: str, workers: str) -> None:
    check(serve(SERVERS[kind].format(password=PASSWORD, port=free_port()), workers), "Connect call failed", "refused")


@pytest.mark.parametrize(("kind", "workers"), [("redis", "1"), ("postgres", "2"), ("nats", "1")])
def test_silent_server(kind: str, workers: str, mute: int) -> None:
    check(serve(SERVERS[kind].format(password=PASSWORD, port=mute), workers), "within 1 s")


def test_startup_limit(mute: int) -> None:
    check(serve(f"redis://:{PASSWORD}@127.0.0.1:{mute}/0?timeout=60&connect_timeout=60"), "within 5 seconds")


@pytest.mark.parametrize("kind", SERVERS)
def test_host_without_an_address(kind: str) -> None:
    url = SERVERS[kind].format(password=PASSWORD, port=1).replace("127.0.0.1", "nowhere.invalid")
    check(serve(url), "Name or service not known", "name resolution", "No address associated")


@pytest.mark.parametrize(("kind", "workers"), [("redis-locked", "1"), ("postgres", "1"), ("nats", "2")])
def test_wrong_password(kind: str, workers: str, servers: Servers) -> None:
    with servers.log(kind) as log:
        url = SERVERS[kind.partition("-")[0]].format(password=PASSWORD, port=log.server.port)
        reasons = ("invalid username-password", "password authentication failed", "Authorization Violation")
        check(serve(url, workers), *reasons)


def test_token_is_not_printed() -> None:
    check(serve(f"nats://{PASSWORD}@127.0.0.1:{free_port()}/log"), "cannot connect to NATS")


def test_password_of_a_broken_url_is_not_printed() -> None:
    status, output, errors = serve(f"postgresql://u:{PASSWORD}#1@127.0.0.1/x")
    assert (status, output) == (2, "")
    assert "percent-encoded" in errors
    assert PASSWORD not in errors


@pytest.mark.parametrize(
    ("content", "workers"),
    [(b"no database", "1"), (b"SQLite format 3\0" + b"\xff" * 8000, "2")],
    ids=["other", "corrupt"],
)
def test_file_that_is_no_log(content: bytes, workers: str, tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(content)
    check(serve(f"sqlite:///{tmp_path}/log.db", workers), "its content is damaged")
    assert (tmp_path / "log.db").read_bytes() == content


def test_damaged_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("PRAGMA application_id = 0x7469636B; PRAGMA user_version = 2; CREATE TABLE t (x);")
        database.execute("INSERT INTO t VALUES (zeroblob(100000))")
        database.commit()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 2000)
    check(serve(f"sqlite:///{path}"), "its content is damaged")


def test_no_directory(tmp_path: Path) -> None:
    check(serve(f"sqlite:///{tmp_path}/missing/log.db"), "no such directory")


def test_read_only_file(tmp_path: Path) -> None:
    with ExitStack() as stack:
        if os.geteuid() == 0:  # root may write to any file, but not on a read-only file system
            disk = stack.enter_context(tmpfs(tmp_path))
            path = disk.folder / "log.db"
            path.touch()
            disk.remount("ro")
        else:
            path = tmp_path / "log.db"
            path.touch()
            path.chmod(0o400)
        check(serve(f"sqlite:///{path}"), "this process may not write to it")


def test_full_disk(tmp_path: Path) -> None:
    with tmpfs(tmp_path) as disk:
        disk.fill(os.getpid())
        check(serve(f"sqlite:///{disk.folder}/log.db", "2"), "the disk is full", "or is full")


def test_file_size_limit(tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", SCRIPT, "serve", "--port", "0"]
    done = subprocess.run(
        [*command, "--broker", f"sqlite:///{tmp_path}/log.db"],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(None),
    )
    check(Outcome(done.returncode, done.stdout, done.stderr), "or is full")
