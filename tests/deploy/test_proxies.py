"""The configurations of proxies, with their own programs, in front of the real server."""

from __future__ import annotations

import asyncio
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from support.program import Serve, serving
from support.servers import START, Program, free_port
from support.tls import certify
from support.tools import require
from tickertape.client import Publisher

FOLDER = Path(__file__).parents[2] / "deploy" / "proxies"


class Proxy(NamedTuple):
    """A proxy, and what it can do.

    Attributes:
        file: its configuration.
        command: its program, and the package that has it.
        prepare: returns the arguments of the program, for a changed configuration in a folder.
        http: the versions of HTTP that browsers get.
        notices: a client that leaves is noticed at once.
        waits: requests wait while the server restarts.
    """

    file: str
    command: str
    package: str
    prepare: Callable[[Path, str, int], list[str]]
    http: tuple[str, ...] = ("HTTP/1.1", "HTTP/2")
    notices: bool = True
    waits: bool = False


def nginx(folder: Path, text: str, port: int) -> list[str]:
    text = re.sub(r"server \{\n    listen 80;.*?\n\}\n", "", text, flags=re.DOTALL)
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in names)
    process = f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\n"
    (folder / "nginx.conf").write_text(f"{process}http {{\naccess_log off;\ngzip on;\ngzip_types *;\n{paths}{text}}}\n")
    return ["-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def caddy(folder: Path, text: str, port: int) -> list[str]:
    site = f"https://127.0.0.1:{port} {{\n\ttls {folder}/certificate.pem {folder}/key.pem\n"
    options = "{\n\tadmin off\n\tauto_https off\n}\n"
    (folder / "Caddyfile").write_text(options + text.replace("hub.example.org {\n", site))
    return ["run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def haproxy(folder: Path, text: str, port: int) -> list[str]:
    both = (folder / "certificate.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "both.pem").write_text(both)
    text = text.replace("/etc/ssl/hub.example.org/fullchain-and-key.pem", str(folder / "both.pem"))
    text = text.replace("bind :443", f"bind 127.0.0.1:{port}").replace("maxconn 200000", "maxconn 1000")
    (folder / "haproxy.cfg").write_text(text)
    return ["-db", "-f", str(folder / "haproxy.cfg")]


def apache(folder: Path, text: str, port: int) -> list[str]:
    modules = "/usr/lib/apache2/modules"
    names = "mpm_event authz_core proxy proxy_http http2 ssl socache_shmcb headers deflate filter env"
    loads = "".join(f"LoadModule {name}_module {modules}/mod_{name}.so\n" for name in names.split())
    whole = (
        f"ServerRoot {folder}\nServerName 127.0.0.1\nPidFile {folder}/pid\nErrorLog {folder}/error.log\n{loads}"
        f"DefaultRuntimeDir {folder}\nMutex file:{folder} default\nListen 127.0.0.1:{port} https\n"
        f"SetOutputFilter DEFLATE\n{text.replace('*:443', f'127.0.0.1:{port}')}"
    )
    (folder / "apache.conf").write_text(whole)
    return ["-D", "FOREGROUND", "-f", str(folder / "apache.conf")]


def varnish(folder: Path, text: str, port: int) -> list[str]:
    (folder / "varnish.vcl").write_text(text)
    place = ["-n", str(folder / "work"), "-j", "none"]
    return ["-F", "-a", f"127.0.0.1:{port}", "-f", str(folder / "varnish.vcl"), "-s", "malloc,16m", *place]


PROXIES = {
    "nginx": Proxy("nginx.conf", "nginx", "nginx", nginx),
    "caddy": Proxy("Caddyfile", "caddy", "caddy", caddy, waits=True),
    "haproxy": Proxy("haproxy.cfg", "haproxy", "haproxy", haproxy, waits=True),
    "apache": Proxy("apache.conf", "apache2", "apache2", apache, notices=False),
    "varnish": Proxy("varnish.vcl", "varnishd", "varnish", varnish, http=("HTTP/1.1",)),
}


class Site:
    """A server behind a proxy.

    Attributes:
        program: the server.
        url: the address of the proxy.
        trusting: trusts its certificate.
    """

    def __init__(self, program: Serve, url: str, trusting: ssl.SSLContext) -> None:
        self.program = program
        self.url = url
        self.trusting = trusting

    def client(self, http: str = "HTTP/1.1") -> httpx2.AsyncClient:
        return httpx2.AsyncClient(verify=self.trusting, http2=http == "HTTP/2", http1=http != "HTTP/2", timeout=START)

    async def subscribers(self) -> int:
        async with httpx2.AsyncClient() as client:
            found = (await client.get(f"{self.program.url}subscribers")).json()
        return int(found["subscribers"])


@asynccontextmanager
async def behind(name: str, *options: str, port: int = 0) -> AsyncIterator[Site]:
    """Run the server and a proxy in front of it."""
    proxy = PROXIES[name]
    program = require(proxy.command, proxy.package)
    async with serving(*options, *(["--port", str(port)] if port else [])) as server:
        with tempfile.TemporaryDirectory(prefix="proxy", ignore_cleanup_errors=True) as folder:
            certificate, key = certify(Path(folder))
            text = (FOLDER / proxy.file).read_text()
            assert "127.0.0.1:8000" in text or '"8000"' in text
            text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace('"8000"', f'"{server.port}"')
            text = text.replace("/etc/ssl/hub.example.org/fullchain.pem", certificate)
            text = text.replace("/etc/ssl/hub.example.org/key.pem", key)
            own = free_port()
            arguments = proxy.prepare(Path(folder), text, own)
            scheme = "https" if "HTTP/2" in proxy.http else "http"
            with closing(Program([program, *arguments])) as running:
                running.wait_for(own)
                yield Site(server, f"{scheme}://127.0.0.1:{own}", ssl.create_default_context(cafile=certificate))


@pytest.mark.parametrize(("name", "http"), [(name, http) for name, proxy in PROXIES.items() for http in proxy.http])
async def test_events_pass_at_once(name: str, http: str) -> None:
    async with behind(name) as site, site.client(http) as client:
        headers = {"accept-encoding": "gzip"}
        async with client.stream("GET", f"{site.url}/events?topic=a", headers=headers) as response:
            assert (response.status_code, response.http_version) == (200, http)
            assert "content-encoding" not in response.headers
            lines = response.aiter_lines()
            async with Publisher(site.program.url) as publisher:
                for number in range(5):
                    await publisher.publish("a", str(number))
                    async with asyncio.timeout(START):
                        while await anext(lines) != f"data: {number}":
                            pass


@pytest.mark.parametrize("name", PROXIES)
async def test_client_that_leaves(name: str) -> None:
    """Without the option, the heartbeat finds it."""
    options = [] if PROXIES[name].notices else ["--heartbeat", "0.5"]
    async with behind(name, *options) as site:
        async with site.client() as client, client.stream("GET", f"{site.url}/events?topic=a") as response:
            assert response.status_code == 200
            assert await site.subscribers() == 1
        async with asyncio.timeout(START):
            while await site.subscribers():
                pass


@pytest.mark.parametrize("name", [name for name, proxy in PROXIES.items() if proxy.waits])
async def test_restart_is_hidden(name: str) -> None:
    """A request that arrives while the server is down gets 200, so a browser does not give up."""
    port = free_port()
    async with (
        behind(name, "--broker", f"sqlite:///{tempfile.mkdtemp()}/log.db", port=port) as site,
        site.client() as client,
    ):
        assert (await client.get(f"{site.url}/health/live")).status_code == 200
        await site.program.end()
        asking = asyncio.create_task(client.get(f"{site.url}/health/live"))
        await asyncio.wait([asking], timeout=1.0)
        assert not asking.done()
        async with serving("--port", str(port)):
            assert (await asking).status_code == 200
