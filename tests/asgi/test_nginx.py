"""A real nginx in front of uvicorn, with clients that do not read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.servers import Connection, Program, Server, free_port, serve

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""


@pytest.fixture(params=["uvicorn-httptools", "uvicorn-h11"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(request.param, "support.streams:app") as running:
        yield running


@pytest.fixture
def port(server: Server, tmp_path: Path) -> Iterator[int]:
    """The port of an nginx that forwards to the server."""
    port = free_port()
    path = tmp_path / "nginx.conf"
    path.write_text(CONFIGURATION.format(folder=tmp_path, port=port, upstream=server.address))
    with closing(Program([str(shutil.which("nginx")), "-c", str(path), "-e", str(tmp_path / "error.log")])) as nginx:
        nginx.wait_for(port)
        yield port


async def test_events_are_not_buffered(server: Server, port: int) -> None:
    async with await Connection.open(port) as connection:
        await connection.get("/idle")
        assert (await connection.event()).data == "hello"


async def test_stop(server: Server, port: int) -> None:
    async with await Connection.open(port, receive_buffer=4096) as connection:
        await connection.get("/flood")
        await connection.stall()
        assert await server.end() < 3.0, server.output
    assert "ERROR" not in server.output


async def test_send_timeout(server: Server, port: int) -> None:
    async with await Connection.open(port, receive_buffer=4096) as connection:
        await connection.get("/stalled")
        await server.says("[send_timeout stalled]")
        await connection.rest()
        assert not connection.complete
