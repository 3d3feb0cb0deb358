"""``tickertape token`` and ``tickertape key``, and ``serve`` with and without access control."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from support.program import serving
from support.servers import Connection
from tickertape.access import JWTVerifier, KeyFile
from tickertape.cli.app import app
from tickertape.client import EventSource

SECRET = "a secret of more than thirty-two bytes"


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "120"}, prog_name="tickertape")
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


async def test_token(secret_file: Path) -> None:
    status, output, _ = run(
        "token", "--key-file", str(secret_file), "--user", "alice", "--subscribe", "a/**", "--publish", "a",
        "--expires", "60", "--issuer", "me", "--audience", "hub",
    )  # fmt: skip
    assert status == 0
    verified = await JWTVerifier(SECRET, issuer="me", audience="hub", leeway=0).verify(output.strip())
    assert verified.grant.user == "alice"
    assert (verified.grant.subscribe, verified.grant.publish) == (("a/**",), ("a",))
    assert verified.issued is not None
    assert verified.grant.until == verified.issued + 60


async def test_token_of_an_administrator(secret_file: Path) -> None:
    _, output, _ = run("token", "--key-file", str(secret_file), "--admin", "--claim", "rights")
    assert (await JWTVerifier(SECRET, claim="rights").verify(output.strip())).grant.admin


async def test_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    status, output, _ = run("key", "wall", "--subscribe", "a/*", "--file", str(file))
    assert status == 0
    assert (await KeyFile(file).verify(output.strip())).grant.subscribe == ("a/*",)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["token", "--key-file", "{tmp}/none"], 1, "No such file or directory; next step: openssl rand -base64 48"),
        (["token", "--key-file", "{tmp}/short"], 1, "a secret of at least 32 bytes for HS256, got 5"),
        (["token", "--key-file", "{tmp}/short", "--subscribe", "a//b"], 2, "without empty segments"),
        (["token", "--key-file", "{tmp}/short", "--expires", "0"], 2, "over 0, got 0"),
        (["key", "a", "--file", "{tmp}/keys"], 2, "a key needs --subscribe, --publish or --admin"),
        (["key", "a b", "--admin", "--file", "{tmp}/keys"], 2, "expected a name of 1 to 64"),
        (["key", "a", "--admin", "--file", "{tmp}/none/keys"], 1, "cannot write"),
        (["serve", "--host", "0.0.0.0", "--port", "0"], 2, "or allow it with --open"),
        (["serve", "--open", "--anonymous-subscribe", "a"], 2, "open contradicts"),
        (["serve", "--jwt-issuer", "me"], 2, "jwt_issuer needs jwt_key_file or jwks_url (from --jwt-issuer)"),
        (["serve", "--cookie", "session"], 2, "cookie needs jwt_key_file, jwks_url or api_key_file"),
        (["serve", "--jwt-key-file", "{tmp}/none"], 2, "cannot read jwt_key_file"),
        (["serve", "--jwt-key-file", "{tmp}/short"], 2, "at least 32 bytes"),
        (["serve", "--api-key-file", "{tmp}/none"], 2, "api_key_file: cannot read"),
        (["serve", "--jwks-url", "ftp://x"], 2, "expected jwks_url to be a URL"),
        (["serve", "--anonymous-publish", "a//b"], 2, "expected anonymous_publish to be topic patterns"),
    ],
)
def test_mistakes(arguments: list[str], status: int, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    code, output, errors = run(*(part.replace("{tmp}", str(tmp_path)) for part in arguments))
    assert code == status, output + errors
    assert sentence in output + errors


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim@h:x/db",
        "postgresql://u@h/db?password=geheim&other=1",
        "redis://:geheim@127.0.0.1:1/0",
        "redis://:geheim@h/0?other=1",
        "nats://geheim@127.0.0.1:1",
        "mysql://u:geheim@h/db",
        "sqlite://u:geheim@h/db",
        "u:geheim@h",
        "postgresql://u:geheim@[h/db",
    ],
)
def test_password_of_a_broker(url: str) -> None:
    """A broker's password is in no error, also if its URL is refused or its server cannot be reached."""
    code, output, errors = run("serve", "--port", "0", "--broker", url)
    assert code != 0
    assert "geheim" not in output + errors


async def test_open_to_other_machines() -> None:
    async with serving("--host", "0.0.0.0", "--open") as program, await Connection.open(program.port) as connection:
        assert await connection.get("/events?topic=a") == 200


async def test_source_outlives_its_token(secret_file: Path) -> None:
    """A token expires while a source reads; it brings the next one, and no event is missing or repeated."""
    asked: list[bool] = []

    def auth(refused: bool = False) -> str:
        asked.append(refused)
        claims = {"exp": int(time.time()) + 2, "tickertape": {"subscribe": ["a"], "publish": ["a"]}}
        return jwt.encode(claims, SECRET, "HS256")

    options = ["--jwt-key-file", str(secret_file), "--jwt-leeway", "0", "--retry", "0.1"]
    async with serving(*options) as program, EventSource(f"{program.url}events?topic=a&last=1", auth=auth) as source:
        seen: list[str] = []
        publisher = jwt.encode({"tickertape": {"publish": ["a"]}}, SECRET, "HS256")
        while len(asked) < 3:
            async with await Connection.open(program.port) as connection:
                headers = f"Authorization: Bearer {publisher}\r\n"
                assert (
                    await connection.get(f"/events/a?key=k{len(seen)}&event=e", method="POST", headers=headers) == 201
                )
            event = await anext(source)
            seen.append(event.id or "")
        assert [int(each.rpartition("-")[2]) for each in seen] == [*range(1, len(seen) + 1)]
        assert asked[1:] == [True] * (len(asked) - 1)
        assert publisher not in program.output
