"""Logs on servers over TLS, with a certificate that the system does not trust."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from support.servers import free_port
from tickertape.broker import Broker, create_broker
from tickertape.errors import BrokerError
from tickertape.testing.contract.steps import collect, tailing
from tickertape.wire import Draft

from .private_servers import PrivateRedis, find_program, wait_until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a directory with ``cert.pem`` and ``key.pem``."""
    directory = tmp_path_factory.mktemp("certificate")
    request = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
        " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run([find_program("openssl"), *request.split()], cwd=directory, check=True, capture_output=True)
    return directory


@pytest.fixture
def redis_port(certificate: Path, tmp_path: Path) -> Iterator[int]:
    port = free_port()
    files = ("--tls-cert-file", f"{certificate}/cert.pem", "--tls-key-file", f"{certificate}/key.pem")
    server = PrivateRedis(
        tmp_path,
        "--tls-port",
        f"{port}",
        *files,
        "--tls-ca-cert-file",
        f"{certificate}/cert.pem",
        "--tls-auth-clients",
        "no",
    )
    yield port
    server.end()


@pytest.fixture
def nats_port(certificate: Path, tmp_path: Path) -> Iterator[int]:
    """Start a server that also asks for a password; yield its port."""
    port = free_port()
    options = f"-a 127.0.0.1 -p {port} -js -sd {tmp_path}/nats --tls --tlscert cert.pem --tlskey key.pem"
    process = subprocess.Popen(
        [find_program("nats-server"), *options.split(), "--user", "hub", "--pass", "open/sesame@"],
        cwd=certificate,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _listens(port), "a nats-server that listens")
        yield port
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


@asynccontextmanager
async def closing(broker: Broker) -> AsyncIterator[Broker]:
    try:
        yield broker
    finally:
        await broker.close()


async def use(url: str) -> None:
    async with closing(create_broker(url)) as broker:
        await broker.open()
        async with tailing(broker, 0) as tail:
            await broker.append([Draft("t", "secret")])
            assert [record.data for record in await collect(tail, 1)] == ["secret"]


async def refused(url: str) -> str:
    async with closing(create_broker(url)) as broker:
        with pytest.raises(BrokerError) as caught:
            await broker.open()
    return str(caught.value)


async def test_redis_with_its_own_authority(redis_port: int, certificate: Path) -> None:
    assert "certificate" in await refused(f"rediss://127.0.0.1:{redis_port}/0")
    await use(f"rediss://127.0.0.1:{redis_port}/0?ssl_ca_certs={certificate}/cert.pem")


async def test_nats_with_an_authority_of_the_environment(
    nats_port: int, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"nats+tls://hub:open%2Fsesame%40@127.0.0.1:{nats_port}/log"
    said = await refused(url)
    assert "certificate" in said
    assert "sesame" not in said
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}/cert.pem")
    await use(url)
    said = await refused(url.replace("open%2Fsesame", "close"))
    assert "Authorization" in said
    assert "close" not in said
