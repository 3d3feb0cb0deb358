"""JSON Web Tokens: which are valid, and the grants in their claims."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tickertape.access import JWTVerifier
from tickertape.access.tokens import fill, mercure_patterns
from tickertape.errors import UnauthorizedError
from tickertape.hub import Grant

SECRET = b"a secret of more than thirty-two bytes"
RSA, OTHER_RSA = (generate_rsa(65537, 2048) for _ in range(2))
KEYS: dict[str, Any] = {
    "RS256": RSA,
    "PS512": RSA,
    "ES256": generate_ec(SECP256R1()),
    "ES384": generate_ec(SECP384R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}
RIGHTS = {"tickertape": {"subscribe": ["a/**"], "publish": ["a/b"]}}


def public(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, signature])


def token(claims: dict[str, Any] | None = None, key: Any = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(RIGHTS if claims is None else claims, key, algorithm, headers=headers or None)


async def grant_of(text: str, **options: Any) -> Grant:
    return (await JWTVerifier(options.pop("key", SECRET), **options).verify(text)).grant


async def test_secret() -> None:
    end = int(time.time()) + 60
    verified = await JWTVerifier(SECRET, leeway=2).verify(token({**RIGHTS, "sub": "alice", "exp": end, "iat": 1000}))
    assert verified.grant == Grant(user="alice", subscribe=("a/**",), publish=("a/b",), until=end + 2.0)
    assert verified.issued == 1000


@pytest.mark.parametrize("algorithm", KEYS)
async def test_public_keys(algorithm: str) -> None:
    key = KEYS[algorithm]
    text = token(key=key, algorithm=algorithm)
    assert (await grant_of(text, key=public(key))).subscribe == ("a/**",)
    assert (await grant_of(text, key=public(key), algorithms=[algorithm])).subscribe == ("a/**",)


NOW = int(time.time())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (token({**RIGHTS, "exp": NOW - 60}), "the token has expired"),
        (token({**RIGHTS, "nbf": NOW + 36_000}), "the token is not valid yet"),
        (token({**RIGHTS, "iss": "https://issuer.example", "aud": "elsewhere"}), "the token is for another audience"),
        (token({**RIGHTS, "iss": "elsewhere"}), "the token has another issuer"),
        (token(RIGHTS), "lacks a required claim"),
        (token(key=b"another secret of thirty-two bytes or more"), "the signature of the token is invalid"),
        (token()[:-4] + "AAAA", "the signature of the token is invalid"),
        (unsigned({"alg": "none"}, RIGHTS), "the algorithm of the token is not allowed"),
        (unsigned({"alg": "None"}, RIGHTS), "the algorithm of the token is not allowed"),
        (unsigned({"alg": "nOnE"}, RIGHTS, "AAAA"), "the algorithm of the token is not allowed"),
        (unsigned({"alg": ["HS256"]}, RIGHTS), "the credential is not a token|not allowed"),
        (unsigned({}, RIGHTS), "the credential is not a token|not allowed"),
        (token(key=SECRET * 2, algorithm="HS512"), "the algorithm of the token is not allowed"),
        (token(key=RSA, algorithm="RS256"), "the algorithm of the token is not allowed"),
        ("", "the credential is not a token"),
        ("a.b.c", "the credential is not a token"),
        ("\N{SNOWMAN}", "the credential is not a token"),
    ],
    ids=lambda value: value if " " in value else "",
)
async def test_refused(text: str, sentence: str) -> None:
    with pytest.raises(UnauthorizedError, match=sentence) as refused:
        await grant_of(text, issuer="https://issuer.example", audience="hub", leeway=5)
    assert not text or text not in str(refused.value)


async def test_issuer_and_audience() -> None:
    claims = {**RIGHTS, "iss": "https://issuer.example", "aud": ["other", "hub"], "exp": NOW + 36_000}
    grant = await grant_of(token(claims), issuer="https://issuer.example", audience="hub")
    assert grant.may_subscribe("a/1")


async def test_audience_without_one_configured() -> None:
    with pytest.raises(UnauthorizedError, match="for another audience"):
        await grant_of(token({**RIGHTS, "aud": "another"}))


@pytest.mark.parametrize("leeway", [5, 120])
async def test_leeway(leeway: float) -> None:
    text = token({**RIGHTS, "exp": int(time.time()) - 60})
    if leeway < 60:
        with pytest.raises(UnauthorizedError):
            await grant_of(text, leeway=leeway)
    else:
        assert (await grant_of(text, leeway=leeway)).until is not None


async def test_public_key_as_secret() -> None:
    """A token that is signed by HMAC with the public key, which is no secret."""
    pem = public(RSA)
    header = unsigned({"alg": "HS256", "typ": "JWT"}, RIGHTS).rsplit(".", 1)[0]
    forged = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(header.encode(), pem)
    text = f"{header}.{base64.urlsafe_b64encode(forged).rstrip(b'=').decode()}"
    with pytest.raises(UnauthorizedError, match="algorithm"):
        await grant_of(text, key=pem)
    with pytest.raises(ValueError, match="expected algorithms for this public key to be of RS256"):
        JWTVerifier(pem, algorithms=["HS256"])


async def test_another_key_of_the_kind() -> None:
    with pytest.raises(UnauthorizedError, match="signature"):
        await grant_of(token(key=OTHER_RSA, algorithm="RS256"), key=public(RSA))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "either a key or the URL"),
        ({"key": SECRET, "jwks_url": "https://issuer.example"}, "either a key or the URL"),
        ({"key": b"short"}, "a secret of at least 32 bytes for HS256, got 5"),
        ({"key": SECRET, "algorithms": ["HS256", "HS512"]}, "at least 64 bytes for HS512, got 38"),
        ({"key": SECRET, "algorithms": ["RS256"]}, "expected algorithms for a secret to be of HS256"),
        ({"key": SECRET, "algorithms": ["none"]}, "got none"),
        ({"key": SECRET, "algorithms": []}, "got none"),
        ({"key": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}, "not a public key in PEM"),
        ({"key": public(generate_rsa(65537, 1024))}, "at least 2048 bits, got 1024"),
        ({"key": public(KEYS["ES256"]), "algorithms": ["ES384"]}, "to be of ES256, got ES384"),
        ({"jwks_url": "file:///etc/passwd"}, "to start with https://"),
        ({"key": SECRET, "leeway": -1}, "leeway"),
    ],
)
def test_unusable_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        JWTVerifier(options.pop("key", None), **options)


def test_private_key_is_refused() -> None:
    pem = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="not a public key"):
        JWTVerifier(pem)


@pytest.mark.parametrize(
    ("claims", "options", "subscribe"),
    [
        ({"sub": "alice", "tickertape": {"subscribe": ["users/{sub}/**"]}}, {}, ("users/alice/**",)),
        ({"sub": "alice"}, {"subscribe": ["users/{sub}/**", "news"]}, ("news", "users/alice/**")),
        ({"org": 42, "tickertape": {"subscribe": ["org-{org}/*"]}}, {}, ("org-42/*",)),
        ({"rights": {"subscribe": ["a"]}}, {"claim": "rights"}, ("a",)),
        ({"mercure": {"subscribe": ["*"]}}, {"claim": "mercure"}, ("**",)),
        ({"mercure": {"subscribe": ["books/{id}", "a/b"]}}, {"claim": "mercure"}, ("a/b", "books/*")),
        ({"mercure": {"subscribe": ["a"]}}, {}, ()),
        ({}, {}, ()),
    ],
)
async def test_rights(claims: dict[str, Any], options: dict[str, Any], subscribe: tuple[str, ...]) -> None:
    assert (await grant_of(token(claims), **options)).subscribe == subscribe


@pytest.mark.parametrize("admin", [True, "yes", 1, False])
async def test_admin(admin: object) -> None:
    assert (await grant_of(token({"tickertape": {"admin": admin}}))).admin is (admin is True)


@pytest.mark.parametrize("sub", ["*", "**", "a/b", "a/**", "", " ", "a\n", "/", "\0", "x" * 300])
async def test_placeholder_that_widens(sub: str) -> None:
    with pytest.raises(UnauthorizedError):
        await grant_of(token({"sub": sub, "tickertape": {"subscribe": ["users/{sub}/**"]}}))


@pytest.mark.parametrize("sub", ["runs", "run", "hub-access"])
async def test_placeholder_of_an_internal_topic(sub: str) -> None:
    with pytest.raises(UnauthorizedError, match="a topic of the hub itself"):
        await grant_of(token({"sub": sub, "tickertape": {"subscribe": ["{sub}/**"]}}))


@pytest.mark.parametrize(
    "rights", ["all", {"subscribe": "a"}, {"subscribe": [1]}, {"publish": ["a//b"]}, {"subscribe": ["a"] * 1001}]
)
async def test_invalid_rights(rights: object) -> None:
    with pytest.raises(UnauthorizedError, match="the rights in the token are invalid"):
        await grant_of(token({"tickertape": rights}))


async def test_large_token() -> None:
    patterns = [f"topics/{number:05}" for number in range(600)]
    text = token({"tickertape": {"subscribe": patterns}})
    assert len(text) > 10_000
    assert (await grant_of(text)).may_subscribe(["topics/00599", "topics/00000"])


def test_missing_claim() -> None:
    with pytest.raises(UnauthorizedError, match="the claim 'sub'"):
        fill("users/{sub}", {})


def test_mercure_selectors() -> None:
    selectors = ["*", "a/*", "https://example.com/books/1", "books/{id}/x", "books/{+id}", "b{id}", "a"]
    assert mercure_patterns(selectors) == ["**", "books/*/x", "a"]
