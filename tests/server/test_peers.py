"""Questions between workers: answers of all of them, and of those that cannot answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tickertape.errors import HubClosedError
from tickertape.server.peers import Peers, WorkerShare


@pytest.fixture
def share() -> Iterator[WorkerShare]:
    with closing(WorkerShare(2)) as share:
        yield share


def peers_with(share: WorkerShare | None, **answers: Any) -> Peers:
    peers = Peers(share)
    for name, value in answers.items():
        peers.answer(name, lambda *, times=1, value=value: value * times)
    return peers


async def test_alone() -> None:
    peers = peers_with(None, word="ab")
    async with peers.serving():
        assert await peers.ask("word", times=2) == {str(os.getpid()): "abab"}


async def test_all_answer(share: WorkerShare) -> None:
    other = peers_with(share, word="b")
    async with other.serving():
        own = share.directory / str(os.getpid())
        own.rename(share.directory / "1")  # as if it were another process
        assert await peers_with(share, word="a").ask("word", times=3) == {str(os.getpid()): "aaa", "1": "bbb"}
        (share.directory / "1").rename(own)
    assert [*share.directory.iterdir()] == []
    assert Peers(share).node == Peers(share).node == share.node
    assert Peers().node != Peers().node


@pytest.mark.parametrize("kind", ["gone", "breaks off", "nonsense"])
async def test_worker_that_does_not_answer(kind: str, share: WorkerShare, caplog: pytest.LogCaptureFixture) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        if kind == "nonsense":
            writer.write(b"{")
        writer.close()

    server = await asyncio.start_unix_server(serve, share.directory / "1")
    if kind == "gone":
        server.close()
        await server.wait_closed()
    assert await peers_with(share, word="a").ask("word") == {str(os.getpid()): "a"}
    server.close()
    assert ("no answer from the worker with pid 1" in caplog.text) is (kind == "nonsense")


async def test_no_answer(share: WorkerShare, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that is stopping does not answer, and one that leaves before its question gets no answer."""

    def stopping() -> None:
        raise HubClosedError("the hub is closed")

    peers = Peers(share)
    peers.answer("state", stopping)
    async with peers.serving():
        path = share.directory / str(os.getpid())
        for question in (b'{"name": "state", "arguments": {}}\n', b""):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(question)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    assert caplog.text == ""


def test_directory_is_removed() -> None:
    with closing(WorkerShare(2)) as share:
        assert share.directory.stat().st_mode & 0o077 == 0
        (share.directory / "1").touch()
        share.count_restart(1)
        assert [*share.restarts] == [0, 1]
    assert not share.directory.exists()
