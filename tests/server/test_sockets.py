"""Unix sockets, sockets of a service manager, and HTTPS: the real program at each of them."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx2
import pytest

from support.program import serving
from support.servers import BIN, Connection, Program, until
from support.tls import certify
from tickertape.client import Publisher
from tickertape.server import inherited_socket, listen_at_path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")


@asynccontextmanager
async def at_path(path: Path, *options: str) -> AsyncIterator[Program]:
    """Run the program at a Unix socket."""
    program = Program([str(BIN / "tickertape"), "serve", "--uds", str(path), "--broker", "memory://", *options])
    try:
        await program.says("To stop: Ctrl-C", within=30)
        yield program
    finally:
        program.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_unix_socket(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "hub.sock"
    options = () if workers == 1 else ("--workers", "2", "--broker", f"sqlite:///{tmp_path}/log.db")
    async with at_path(path, *options) as program:
        assert f"tickertape serve at unix:{path}\n" in program.output
        assert f"curl --unix-socket {path} -N 'http://localhost/events?topic=greetings'" in program.output
        async with await Connection.open(str(path)) as stream, await Connection.open(str(path)) as publisher:
            assert await stream.get("/events?topic=a") == 200
            assert await publisher.get("/events/a?event=e", method="POST") == 201
            assert (await stream.event()).event == "e"
        await program.end()
        assert program.process.returncode == 0
        assert not path.exists()
        assert "Traceback" not in program.output


def test_socket_of_a_dead_server(tmp_path: Path) -> None:
    path = tmp_path / "hub.sock"
    listen_at_path(path).close()
    assert path.is_socket()
    with closing(listen_at_path(path)) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_path_in_use(tmp_path: Path) -> None:
    path = tmp_path / "hub.sock"
    with closing(listen_at_path(path)), pytest.raises(OSError, match="in use"):
        listen_at_path(path)
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        listen_at_path(file)
    assert file.read_text() == "precious"


async def test_error_of_a_path(tmp_path: Path) -> None:
    program = Program([str(BIN / "tickertape"), "serve", "--uds", str(tmp_path / "none" / "hub.sock")])
    await until(lambda: program.process.poll() is not None, lambda: "an end", within=30)
    assert program.output == f"tickertape: cannot listen at {tmp_path}/none/hub.sock: No such file or directory\n"
    program.close()


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_socket_activation(tmp_path: Path, workers: str) -> None:
    """A connection made before the server runs is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()[1]
        early = await Connection.open(address)
        await early.ask("/health/live")
        serve = [str(BIN / "tickertape"), "serve", "--workers", workers, "--broker", f"sqlite:///{tmp_path}/log.db"]
        command = [sys.executable, "-c", ACTIVATE, str(listener.fileno()), "1", *serve]
        program = Program(command, pass_fds=[listener.fileno()])
    try:
        await program.says("To stop: Ctrl-C", within=30)
        assert f"http://127.0.0.1:{address}/" in program.output
        assert await early.head() == 200
        await early.close()
        await program.end()
        assert program.process.returncode == 0
    finally:
        program.close()


@pytest.mark.parametrize(
    ("environ", "found"),
    [({}, None), ({"LISTEN_PID": "1", "LISTEN_FDS": "1"}, None)],
    ids=["no manager", "for another process"],
)
def test_no_activation(environ: dict[str, str], found: object) -> None:
    assert inherited_socket(environ) is found


def test_several_sockets() -> None:
    with pytest.raises(OSError, match="expected one socket from the service manager, got 2"):
        inherited_socket({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})


async def fingerprint(port: int, certificate: str) -> bytes:
    """Return the certificate that the server shows."""
    context = ssl.create_default_context(cafile=certificate)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_new_certificate(tmp_path: Path, workers: str) -> None:
    certificate, key = certify(tmp_path)
    async with serving("--workers", workers, "--tls-cert", certificate, "--tls-key", key) as program:
        before = await fingerprint(program.port, certificate)
        stream = await asyncio.open_connection(
            "127.0.0.1", program.port, ssl=ssl.create_default_context(cafile=certificate)
        )
        stream[1].write(b"GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await stream[0].readline() == b"HTTP/1.1 200 OK\r\n"
        await asyncio.to_thread(Path(key).write_text, "no key")
        program.process.send_signal(1)
        await program.says("the certificate cannot be read, and the former one is still used")
        assert await fingerprint(program.port, certificate) == before
        certify(tmp_path)
        program.process.send_signal(1)
        await until(
            lambda: program.output.count("read the certificate again") == int(workers),
            lambda: f"new certificates, got:\n{program.output}",
        )
        assert await fingerprint(program.port, certificate) != before
        trusting = ssl.create_default_context(cafile=certificate)
        async with httpx2.AsyncClient(verify=trusting) as client, Publisher(program.url, client=client) as publisher:
            await publisher.publish("a", "x")
        await stream[0].readuntil(b"data: x\n")
        stream[1].close()
        await program.end()
        assert "Traceback" not in program.output
