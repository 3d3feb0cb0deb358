"""The keys of an issuer, over HTTP: rotation, outages, and tokens that name invented keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from tickertape.access import JWTVerifier
from tickertape.access.key_set import FRESH, STALE, UNKNOWN_EVERY
from tickertape.errors import AccessUnavailableError, UnauthorizedError
from tickertape.testing import FakeClock

KEYS: dict[str, Any] = {"old": generate_private_key(65537, 2048), "new": Ed25519PrivateKey.generate()}


def entry(name: str, **fields: str) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if name == "old" else jwt.algorithms.OKPAlgorithm
    found: dict[str, Any] = json.loads(kind.to_jwk(KEYS[name].public_key()))
    return {**found, "kid": name, **fields}


def token(name: str, algorithm: str | None = None, kid: str | None = None) -> str:
    algorithm = algorithm or ("RS256" if name == "old" else "EdDSA")
    return jwt.encode({"sub": name}, KEYS[name], algorithm, headers={"kid": name if kid is None else kid})


class Issuer:
    """A server of keys: its answer, and the number of requests."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes = b""
        self.requests = 0
        self.url = ""

    def publish(self, *entries: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": entries}).encode()


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.requests += 1
            self.send_response(issuer.status)
            self.send_header("content-length", str(len(issuer.body)))
            self.end_headers()
            self.wfile.write(issuer.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    issuer.url = f"http://user:geheim@127.0.0.1:{server.server_port}/keys?secret=geheim"
    issuer.url = issuer.url.replace("user:geheim@", "")
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def user_of(verifier: JWTVerifier, text: str) -> str | None:
    return (await verifier.verify(text)).grant.user


async def test_rotation() -> None:
    with issuing() as issuer:
        clock = FakeClock()
        verifier = JWTVerifier(jwks_url=issuer.url, clock=clock.time)
        issuer.publish(entry("old"))
        for _ in range(3):
            assert await user_of(verifier, token("old")) == "old"
        assert issuer.requests == 1
        issuer.publish(entry("new"))
        clock.advance(UNKNOWN_EVERY)
        assert await user_of(verifier, token("new")) == "new"
        assert issuer.requests == 2
        with pytest.raises(UnauthorizedError, match="unknown key"):
            await user_of(verifier, token("old"))


async def test_invented_keys_do_not_fetch() -> None:
    """A token with an unknown name causes a request every ten seconds at most."""
    with issuing() as issuer:
        clock = FakeClock()
        verifier = JWTVerifier(jwks_url=issuer.url, clock=clock.time)
        issuer.publish(entry("old"))
        for number in range(5):
            with pytest.raises(UnauthorizedError, match="unknown key"):
                await user_of(verifier, token("old", kid=f"invented-{number}"))
        assert issuer.requests == 1
        clock.advance(UNKNOWN_EVERY)
        with pytest.raises(UnauthorizedError):
            await user_of(verifier, token("old", kid="invented"))
        assert issuer.requests == 2


@pytest.mark.parametrize(
    ("status", "body"), [(503, b""), (200, b"{}"), (200, b"<html>"), (200, b'{"keys": 1}'), (200, b"x" * 1_100_000)]
)
async def test_outage(status: int, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """The last keys are used for a day. The log names the issuer, without the query of its URL."""
    with issuing() as issuer:
        clock = FakeClock()
        verifier = JWTVerifier(jwks_url=issuer.url, clock=clock.time)
        issuer.publish(entry("old"))
        assert await user_of(verifier, token("old")) == "old"
        issuer.status, issuer.body = status, body
        clock.advance(FRESH + 1)
        assert await user_of(verifier, token("old")) == "old"  # and begins to fetch
        with pytest.raises(UnauthorizedError):
            await user_of(verifier, token("new"))  # waits for it
        assert issuer.requests == 2
        assert "cannot fetch the keys of http://127.0.0.1" in caplog.text
        assert "geheim" not in caplog.text
        clock.advance(STALE)
        with pytest.raises(AccessUnavailableError):
            await user_of(verifier, token("old"))
        issuer.status = 200
        issuer.publish(entry("old"))
        clock.advance(UNKNOWN_EVERY)
        assert await user_of(verifier, token("old")) == "old"


async def test_unreachable() -> None:
    with issuing() as issuer:
        url = issuer.url
    verifier = JWTVerifier(jwks_url=url)
    for _ in range(2):
        with pytest.raises(AccessUnavailableError, match="cannot be fetched") as error:
            await verifier.verify(token("old"))
    assert "geheim" not in str(error.value)


async def test_password_in_the_url(caplog: pytest.LogCaptureFixture) -> None:
    """Python's own error would repeat it, as the port of ``alice:geheim``."""
    verifier = JWTVerifier(jwks_url="http://alice:geheim@127.0.0.1/keys")
    with pytest.raises(AccessUnavailableError):
        await verifier.verify(token("old"))
    assert "cannot fetch the keys of http://127.0.0.1/keys: InvalidURL" in caplog.text
    assert "geheim" not in caplog.text


@pytest.mark.parametrize(
    ("keys", "algorithms", "accepted"),
    [
        ([entry("old")], None, ["RS256", "PS256"]),
        ([entry("old", alg="RS256")], None, ["RS256"]),
        ([entry("old")], ["PS256"], ["PS256"]),
        ([entry("old", use="enc")], None, []),
        ([{"kty": "oct", "k": "c2VjcmV0", "kid": "old"}], None, []),
        ([{"kty": "RSA", "kid": "old", "n": "!", "e": "AQAB"}, {}, 1], None, []),
    ],
)
async def test_algorithms_of_an_entry(keys: list[Any], algorithms: list[str] | None, accepted: list[str]) -> None:
    with issuing() as issuer:
        issuer.publish(*keys)
        verifier = JWTVerifier(jwks_url=issuer.url, algorithms=algorithms)
        found = []
        for algorithm in ("RS256", "PS256"):
            try:
                await verifier.verify(token("old", algorithm))
                found.append(algorithm)
            except UnauthorizedError:
                pass
        assert found == accepted


async def test_only_key_without_a_name() -> None:
    with issuing() as issuer:
        issuer.publish(entry("new"))
        text = jwt.encode({"sub": "new"}, KEYS["new"], "EdDSA")
        assert await user_of(JWTVerifier(jwks_url=issuer.url), text) == "new"
