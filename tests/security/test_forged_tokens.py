"""Tokens that are forged, changed, or not meant for this server; over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.program import serving
from support.servers import Connection, free_port

KEY, OTHER = (generate_private_key(65537, 2048) for _ in range(2))
PUBLIC: Final = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def token(key: RSAPrivateKey = KEY, /, **changes: Any) -> str:
    claims = {"iss": "issuer", "aud": "hub", "sub": "alice", "exp": time.time() + 600, **changes}
    return jwt.encode({"tickertape": {"subscribe": ["a/**"]}, **claims}, key, "RS256")


def resigned(header: dict[str, str], secret: bytes | None) -> str:
    """Return a valid token with another header, signed by HMAC or not at all."""
    first = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    text = f"{first}.{token().split('.')[1]}"
    signature = b"" if secret is None else hmac.digest(secret, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def attacks() -> dict[str, str]:
    now = time.time()
    good = token()
    return {
        "expired": token(exp=now - 60),
        "not yet valid": token(nbf=now + 600),
        "another issuer": token(iss="evil"),
        "another audience": token(aud="mail"),
        "no audience": token(aud=None),
        "another key": token(OTHER),
        "changed claims": ".".join([good.split(".")[0], token(OTHER, sub="root").split(".")[1], good.split(".")[2]]),
        "no signature": resigned({"alg": "none"}, None),
        "HMAC with the public key": resigned({"alg": "HS256", "typ": "JWT"}, PUBLIC),
        "HMAC with the public key without its last line break": resigned({"alg": "HS256"}, PUBLIC.strip()),
        "10 KB of claims": token(OTHER, extra="x" * 10_000),
    }


async def status(port: int, credential: str, topic: str = "a/1") -> tuple[int, bytes]:
    async with await Connection.open(port) as connection:
        found = await connection.get(f"/events?topic={topic}", headers=f"Authorization: Bearer {credential}\r\n")
        return found, b"" if found == 200 else await connection.rest()


async def test_tokens(tmp_path: Path) -> None:
    """Each is refused, and no answer and no line of the log repeats it."""
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    options = [f"--jwt-key-file={tmp_path}/public.pem", "--jwt-issuer=issuer", "--jwt-audience=hub"]
    async with serving("--broker=memory://", "--access-log", "--log-level=debug", *options) as server:
        assert (await status(server.port, token()))[0] == 200
        for name, forged in attacks().items():
            found, body = await status(server.port, forged)
            assert (name, found) == (name, 401)
            assert forged.encode() not in body
            assert forged not in server.output
        assert "Traceback" not in server.output


async def test_patterns_beyond_the_grant(tmp_path: Path) -> None:
    """No spelling of a pattern reaches more than ``a/**``."""
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    options = [f"--jwt-key-file={tmp_path}/public.pem", "--jwt-issuer=issuer", "--jwt-audience=hub"]
    patterns = (
        "**",
        "*/1",
        "*/**",
        "b",
        "a/../b",
        "a%2F..%2Fb",
        "a/**&topic=b",
        "a%00",
        "a/*%2F..",
        "%61",
        "A/1",
        "**/a/1",
    )
    async with serving("--broker=memory://", *options) as server:
        found = {pattern: (await status(server.port, token(), pattern))[0] for pattern in patterns}
        # `..` is a segment as any other, and `**` stands for no segment, too
        inside = {"a/../b": 200, "a%2F..%2Fb": 200, "a/*%2F..": 200, "%61": 200}
        assert found == dict.fromkeys(patterns, 403) | inside | {"a%00": 400}


async def test_keys_that_cannot_be_fetched() -> None:
    async with serving("--broker=memory://", f"--jwks-url=http://127.0.0.1:{free_port()}/keys") as server:
        found, body = await status(server.port, jwt.encode({}, KEY, "RS256", headers={"kid": "unknown"}))
        assert found == 503
        assert b"127.0.0.1" not in body
        assert "cannot fetch the keys of http://127.0.0.1" in server.output
        assert "Traceback" not in server.output
