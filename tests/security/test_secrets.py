"""No credential is ever written: not in a log, an answer, an error, or the title of a process."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import jwt
import psutil
import psycopg
import pytest

from broker.postgres_logs import POSTGRES_URL, postgres_absent
from broker.private_servers import require
from support.command import hub_program, run
from support.program import serving, workers_of
from support.servers import START, free_port, until
from tickertape.access import add_key

BROKER, OTHER_BROKER, SIGNING, TICKETS, WRONG = (hashlib.sha256(name.encode()).hexdigest()[:40] for name in "bostw")
"""Secrets; each of them is unlike any other text. PostgreSQL trusts its clients here, and takes any password."""

WIDE = {"COLUMNS": "1000"}
"""A line break within a secret would hide it from these tests."""


@pytest.fixture
def broker() -> Iterator[str]:
    """Yield the URL of a log, with a password in it."""
    require(postgres_absent())
    schema = f"test_{secrets.token_hex(6)}"
    place = urlsplit(POSTGRES_URL)
    yield place._replace(netloc=f"postgres:{BROKER}@127.0.0.1:{place.port or 5432}").geturl() + f"?schema={schema}"
    with psycopg.connect(POSTGRES_URL, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'.encode())


def token(secret: str = SIGNING, **claims: object) -> str:
    rights = {"subscribe": ["a/**"], "publish": ["a/**"]}
    return jwt.encode({"sub": "alice", "exp": int(time.time()) + 600, "tickertape": rights, **claims}, secret, "HS256")


@pytest.mark.parametrize("form", ["text", "json"])
async def test_server(form: str, broker: str, tmp_path: Path) -> None:
    """Credentials in every place, valid and not; a change of the settings, and a worker that is killed."""
    (tmp_path / "jwt").write_text(SIGNING)
    (tmp_path / "tickets").write_text(TICKETS)
    admin = add_key(tmp_path / "keys.toml", "boss", admin=True)
    settings = tmp_path / "settings.toml"
    lines = [
        f'broker = "{broker}"',
        f'jwt_key_file = "{tmp_path}/jwt"',
        f'ticket_secret_file = "{tmp_path}/tickets"',
        f'api_key_file = "{tmp_path}/keys.toml"',
        'cookie = "session"',
    ]
    settings.write_text("\n".join(lines))
    credentials = {
        "a key": admin,
        "a token": token(),
        "a token of another secret": token(WRONG * 2),
        "a token with a mistake": token()[:-3] + "äöü",
        "an expired token": token(exp=1),
        "a word": WRONG,
    }
    hidden = {BROKER, OTHER_BROKER, SIGNING, TICKETS, WRONG, *credentials.values()}
    written: list[str] = []
    options = ["--config", str(settings), "--workers", "2", "--log-format", form, "--access-log", "--log-level=debug"]
    async with serving(*options) as program, httpx2.AsyncClient(base_url=program.url) as client:

        async def ask(
            path: str, *, method: str = "GET", headers: dict[str, str] | None = None, json: object = None
        ) -> None:
            raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
            async with client.stream(method, path, headers=raw, json=json) as answer:
                is_stream = answer.headers["content-type"].startswith("text/event-stream")
                text = "" if is_stream else (await answer.aread()).decode()
            written.append(f"{answer.headers!r}{text}")

        for credential in credentials.values():
            for headers in (
                {"authorization": f"Bearer {credential}"},
                {"authorization": credential},
                {"authorization": f"Basic {credential}"},
                {"cookie": f"session={credential}"},
            ):
                await ask("/events?topic=a/1", headers=headers)
                await ask("/subscribers", headers=headers)
                await ask("/events", method="POST", headers=headers, json={"topic": "a/1", "data": "x"})
            for name in ("access_token", "token", "ticket", "api_key", "jwt"):
                await ask(f"/events?topic=a/1&{name}={credential}")
                await ask(f"/events/a?{name}={credential}", method="POST")
        answer = await client.post("/tickets", headers={"authorization": f"Bearer {token()}"}, json={"topics": ["a/1"]})
        ticket = answer.json()["ticket"]
        hidden.add(ticket)
        for _ in range(2):
            await ask(f"/events?topic=a/1&ticket={ticket}")
        await ask("/revocations", method="POST", headers={"authorization": f"Bearer {admin}"}, json={"user": "alice"})
        for path in ("/metrics", "/topics", "/openapi.json", "/", "/console", "/health/ready", "/unknown"):
            await ask(path, headers={"authorization": f"Bearer {admin}"})
        processes = (program.process.pid, *workers_of(program))
        written += [" ".join(psutil.Process(process).cmdline()) for process in processes]
        settings.write_text("\n".join(lines).replace(BROKER, OTHER_BROKER))
        os.kill(program.process.pid, signal.SIGHUP)
        await program.says("restart the server to change broker")
        settings.write_text("\n".join([*lines[1:], f'broker = "unknown://{OTHER_BROKER}@host"']))
        os.kill(program.process.pid, signal.SIGHUP)
        await program.says("the settings are not changed")
        os.kill(workers_of(program)[0], signal.SIGKILL)
        await until(lambda: "was killed by SIGKILL" in program.output, lambda: "a report of the death", within=START)
        await program.end()
        assert "ticket=***" in program.output
        written.append(program.output)
    assert {name for name in hidden if any(name in text for text in written)} == set()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{WRONG}@127.0.0.1:{{port}}/db?timeout=1",
        f"postgresql://user@127.0.0.1:{{port}}/db?password={WRONG}",
        f"redis://:{WRONG}@127.0.0.1:{{port}}/0?timeout=1",
        f"rediss://user:{WRONG}@127.0.0.1:{{port}}/0?timeout=1",
        f"nats://{WRONG}@127.0.0.1:{{port}}?timeout=1",
        f"nats://user:{WRONG}@127.0.0.1:{{port}}?timeout=1",
        f"sqlite://user:{WRONG}@host/log.db",
        f"memory://user:{WRONG}@host",
        f"mysql://user:{WRONG}@host/db",
        f"redis://user:{WRONG}@host:port/0",
        f"postgresql://user:{WRONG}@[::1/db",
        f"postgresql://user:{WRONG}@h@st:5432/db?unknown=1",
        f"user:{WRONG}@host",
    ],
)
def test_refused_brokers(url: str) -> None:
    given = url.format(port=free_port())
    for arguments, env in ((["--broker", given], WIDE), ([], {"TICKERTAPE_BROKER": given, **WIDE})):
        found = run("serve", "--port", "0", *arguments, env=env)
        assert found.status in (1, 2)
        assert found.errors.startswith("tickertape: ")
        assert WRONG not in found.output + found.errors


@pytest.mark.parametrize("name", ["jwt_key_file", "ticket_secret_file", "api_key_file", "jwks_url", "tls_key"])
def test_refused_files(name: str, tmp_path: Path) -> None:
    """The contents of a file with a secret in it are not shown, although something is wrong with them."""
    file = tmp_path / "secret"
    file.write_text(f"-----BEGIN PRIVATE KEY-----\n{WRONG}\n" if name in ("jwt_key_file", "tls_key") else WRONG[:20])
    value = f"https://user:{WRONG}@" if name == "jwks_url" else str(file)
    more = ["--tls-cert", str(file)] if name == "tls_key" else []
    found = run("serve", "--port", "0", "--broker", "memory://", f"--{name.replace('_', '-')}", value, *more, env=WIDE)
    assert found.status in (1, 2)
    assert found.errors.startswith("tickertape: ")
    assert WRONG[:20] not in found.output + found.errors


@pytest.mark.parametrize("command", ["listen", "publish a x --attempts 1 --url", "doctor"])
@pytest.mark.parametrize("place", ["header", "user", "query"])
def test_clients(command: str, place: str) -> None:
    """A server that refuses, and one that cannot be reached; the latter is tried by ``listen`` without end."""
    with hub_program() as hub:
        places = [urlsplit(hub.url).netloc, *([f"127.0.0.1:{free_port()}"] if command != "listen" else [])]
        for at in places:
            url = {
                "header": f"http://{at}/nowhere",
                "user": f"http://user:{WRONG}@{at}/nowhere",
                "query": f"http://{at}/nowhere?access_token={WRONG}",
            }[place]
            found = run(
                *command.split(),
                url,
                *(["-H", f"Authorization: Bearer {WRONG}"] if place == "header" else []),
                env=WIDE,
            )
            assert found.status, found
            assert WRONG not in found.output + found.errors
