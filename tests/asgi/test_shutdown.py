"""Open streams and the servers that stop under them, with listening sockets and no server."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from support.asgi import Wire, open_response, settle
from tickertape import DisconnectReason, close_streams
from tickertape.asgi.shutdown import OpenStreams, open_streams
from tickertape.asgi.sockets import Ends, Unknown, find_connection
from tickertape.asgi.types import Scope
from tickertape.testing import EventStream


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


async def idle() -> AsyncIterator[str]:
    yield "a"
    await asyncio.Event().wait()


def open_at(listener: socket.socket, items: Any = None, **options: Any) -> EventStream:
    """A stream whose server listens at ``listener``."""
    return open_response(idle() if items is None else items, scope={"server": listener.getsockname()}, **options)


async def test_listener_closes(listener: socket.socket) -> None:
    reasons: list[DisconnectReason] = []
    async with open_at(listener, on_disconnect=reasons.append) as stream:
        listener.close()
        assert await stream.read() == b"data: a\n\n"
        assert stream.complete
    assert reasons == [DisconnectReason.DRAINING]
    assert len(open_streams) == 0


async def test_other_listeners(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        async with open_at(listener) as ending, open_at(other) as staying, open_response(idle()) as unknown:
            listener.close()
            await ending.read()
            await settle()
            assert (ending.complete, staying.complete, unknown.complete) == (True, False, False)
            assert len(open_streams) == 2


async def test_late_stream(listener: socket.socket) -> None:
    pulled = []

    async def items() -> AsyncIterator[str]:
        pulled.append("item")
        yield "a"

    address = listener.getsockname()
    async with open_at(listener):
        listener.close()
        async with open_response(items(), scope={"server": address}) as late:
            assert late.status == 200  # a browser does not reconnect after another status
            assert await late.read() == b""
            assert late.complete
    assert pulled == []


async def test_restart_at_same_port(listener: socket.socket) -> None:
    address = listener.getsockname()
    async with open_at(listener) as before:
        listener.close()
        await before.read()
    with socket.create_server(address) as again:
        async with open_at(again) as after:
            await settle()
            assert not after.complete
            again.close()
            await after.read()
            assert after.complete


@pytest.mark.parametrize("from_thread", [True, False])
async def test_close_streams(from_thread: bool) -> None:
    reasons: list[DisconnectReason] = []
    async with (
        open_response(idle(), on_disconnect=reasons.append) as one,
        open_response(idle(), on_disconnect=reasons.append) as two,
    ):
        if from_thread:
            await asyncio.to_thread(close_streams)
        else:
            close_streams()
        assert await one.read() == await two.read() == b"data: a\n\n"
        assert one.complete
        assert two.complete
        async with open_response(["b"]) as after:  # new streams are served
            assert await after.read() == b"data: b\n\n"
    assert reasons == [DisconnectReason.DRAINING] * 2
    close_streams()  # nothing is open: nothing to do


async def test_close_streams_of_every_loop() -> None:
    opened = threading.Event()
    ends: list[bool] = []

    async def elsewhere() -> None:
        async with open_response(idle()) as stream:
            opened.set()
            await stream.read()
            ends.append(stream.complete)

    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    assert await asyncio.to_thread(opened.wait, 10)
    async with open_response(idle()) as here:
        close_streams()
        await here.read()
    await asyncio.to_thread(thread.join, 10)
    assert ends == [True]


async def test_close_streams_in_generator() -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        close_streams()
        yield "b"
        await asyncio.Event().wait()

    async with open_response(items()) as stream:
        await stream.read()
        assert stream.complete


class FakeStream:
    """A stream of a loop that does not run any more."""

    def drain(self) -> float:
        return 0.0


def test_closed_loop() -> None:
    streams = OpenStreams()

    async def leave_open() -> weakref.ref[Any]:
        streams.add(FakeStream(), {"server": ("testserver", 80)})
        return weakref.ref(asyncio.get_running_loop())

    async def open_another() -> None:
        stream = FakeStream()
        streams.add(stream, {"server": ("testserver", 80)})
        assert len(streams) == 1
        streams.discard(stream)

    loop = asyncio.run(leave_open())
    streams.close()
    assert len(streams) == 1
    asyncio.run(open_another())
    gc.collect()
    assert len(streams) == 0
    assert loop() is None


@contextmanager
def connected(listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket, Scope]]:
    """A client, the server's end of its connection, and the scope of a request on it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        with listener.accept()[0] as server:
            server.setblocking(False)
            yield client, server, {"client": server.getpeername(), "server": server.getsockname()}


async def test_drop(listener: socket.socket) -> None:
    streams, loop = OpenStreams(), asyncio.get_running_loop()
    with connected(listener) as (_, server, scope):
        with suppress(BlockingIOError):
            while server.send(b"x" * 65536):
                pass
        streams.drop(Ends(scope["client"], scope["server"]))
        streams.drop(Unknown(scope["server"]))  # left to the server
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(server, writable.set_result, None)  # as a server waits for its client
        await asyncio.wait_for(writable, 5)
        loop.remove_writer(server)
        with pytest.raises(BrokenPipeError):
            server.send(b"x")


async def test_cut_off(
    listener: socket.socket,
) -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        raise LookupError("broken")

    with connected(listener) as (_, server, scope):
        async with open_response(items(), scope=scope) as stream:
            await stream.read()
        assert isinstance(stream.error, LookupError)
        with pytest.raises(BrokenPipeError):
            server.send(b"0\r\n\r\n")


@pytest.mark.parametrize("scope", [{}, {"client": ("1.2.3.4", 5), "server": ("testserver", 80)}])
async def test_cut_off_elsewhere(scope: Scope) -> None:
    connection = find_connection(scope, Wire().receive, Wire().send)
    waiting = OpenStreams().cut_off(connection, scope)
    with pytest.raises(StopIteration):
        waiting.send(None)


def fill(server: socket.socket) -> None:
    """Write until the kernel takes no more."""
    with suppress(BlockingIOError):
        while server.send(b"x" * 65536):
            pass


@pytest.mark.parametrize("reading", [False, True])
async def test_unknown_connection(listener: socket.socket, reading: bool) -> None:
    """The connection of a stream is not known: those of its server that make no progress are aborted."""
    streams, stream = OpenStreams(), FakeStream()
    with connected(listener) as (client, server, scope):
        fill(server)
        streams.add(stream, scope, Unknown(scope["server"]))
        listener.close()
        for _ in range(50):
            await asyncio.sleep(0.05)
            if reading and client.recv(65536):
                fill(server)
        if reading:
            server.getpeername()
            with suppress(BlockingIOError):
                server.send(b"x")
        else:
            with pytest.raises(BrokenPipeError):
                server.send(b"x")
        streams.discard(stream)


class FakeTransport(asyncio.Transport):
    """A transport that holds some bytes, and sends them after a number of looks.

    Attributes:
        calls: the methods that were called.
    """

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks
        self.calls: list[str] = []

    def get_write_buffer_size(self) -> int:
        self.looks -= 1
        return 5 if self.looks >= 0 else 0

    def abort(self) -> None:
        self.calls.append("abort")

    def close(self) -> None:
        self.calls.append("close")


@pytest.mark.parametrize(("looks", "calls"), [(0, []), (1000, ["abort"])])
async def test_drop_transport(looks: int, calls: list[str]) -> None:
    transport = FakeTransport(looks)
    OpenStreams().drop(transport)
    assert transport.calls == calls


@pytest.mark.parametrize(("looks", "calls"), [(0, ["close"]), (2, ["close"]), (1000, ["abort"])])
async def test_cut_off_transport(looks: int, calls: list[str]) -> None:
    """The bytes have half a second to leave the server, because a closing transport still accepts more."""
    transport = FakeTransport(looks)
    await OpenStreams().cut_off(transport, {})
    assert transport.calls == calls


async def test_discard_unknown() -> None:
    streams = OpenStreams()
    streams.discard(FakeStream())
    assert len(streams) == 0
