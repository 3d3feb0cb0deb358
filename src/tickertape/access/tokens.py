"""JSON Web Tokens (RFC 7519) as credentials, verified by PyJWT; needs the extra ``jwt``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ..errors import AccessError, InvalidTopicError, UnauthorizedError
from ..hub import Grant
from ..wire import is_internal, is_printable
from .key_set import KeySet
from .verified import Verified

DEFAULT_CLAIM: Final = "tickertape"
"""The claim with the rights, unless another is configured."""

MERCURE_CLAIM: Final = "mercure"
"""The claim of Mercure hubs, whose selectors are read as Mercure means them."""

DEFAULT_LEEWAY: Final = 10.0
"""Seconds by which clocks may differ."""

ALGORITHMS: Final = {
    "secret": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "secp256r1": ("ES256",),
    "secp384r1": ("ES384",),
    "secp521r1": ("ES512",),
    "secp256k1": ("ES256K",),
    "Ed": ("EdDSA",),
}
"""The algorithms of each kind of key. A key is used with those of its kind only, so a public key is never a secret."""

_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Least bytes of a secret: the size of the hash (RFC 7518, 3.2)."""

_MIN_RSA: Final = 2048
_MAX_PATTERNS: Final = 1_000
_PLACEHOLDER: Final = re.compile(r"\{(\w{1,64})\}", re.ASCII)
_TEMPLATE: Final = re.compile(r"\{\w+\}")

_MISTAKES: Final = {
    "ExpiredSignatureError": "the token has expired",
    "ImmatureSignatureError": "the token is not valid yet",
    "InvalidAudienceError": "the token is for another audience",
    "InvalidIssuerError": "the token has another issuer",
    "InvalidAlgorithmError": "the algorithm of the token is not allowed",
    "InvalidSignatureError": "the signature of the token is invalid",
    "MissingRequiredClaimError": "the token lacks a required claim",
}
"""Sentences for the errors of PyJWT, whose own texts may repeat claims."""


class JWTVerifier:
    """Verify JSON Web Tokens.

    The rights are in the claim ``{"tickertape": {"subscribe": […], "publish": […], "admin": false}}``, the user is
    ``sub``, and the end is ``exp``. In patterns, ``{name}`` stands for the claim of that name, as in
    ``users/{sub}/**``. Its value becomes one segment, or a part of one: if it has ``/`` or ``*`` in it, or makes a
    topic of the hub itself, the token is refused.

    Arguments:
        key: a secret as bytes, or a public key in PEM.
        jwks_url: the URL of the issuer's keys, instead of ``key``.
        algorithms: the allowed algorithms; by default ``HS256`` with a secret, else all of the key's kind.
        issuer: the value that ``iss`` must have; ``None`` for any.
        audience: a value that ``aud`` must contain. Without one, a token for an audience is refused.
        leeway: seconds by which clocks may differ, >= 0.
        claim: the name of the claim with the rights. ``mercure`` is read as Mercure's: ``*`` for every topic,
            ``{id}`` for one segment, everything else as a topic.
        subscribe: patterns that every valid token may read, with placeholders.
        publish: patterns to which every valid token may publish, with placeholders.
        clock: returns seconds, for the age of the issuer's keys.

    Raises:
        ImportError: PyJWT is not installed.
        ValueError: a key is unusable, or does not match the algorithms; or an option is out of its range.
    """

    def __init__(
        self,
        key: bytes | str | None = None,
        *,
        jwks_url: str | None = None,
        algorithms: Sequence[str] | None = None,
        issuer: str | None = None,
        audience: str | None = None,
        leeway: float = DEFAULT_LEEWAY,
        claim: str = DEFAULT_CLAIM,
        subscribe: Iterable[str] = (),
        publish: Iterable[str] = (),
        clock: Callable[[], float] | None = None,
    ) -> None:
        try:
            import jwt
        except ImportError:
            raise ImportError("tokens need PyJWT: pip install 'tickertape[jwt]'") from None
        if (key is None) == (jwks_url is None):
            raise ValueError("expected either a key or the URL of a key set")
        if not 0 <= leeway <= 3600:
            raise ValueError(f"expected leeway to be a number of seconds from 0 to 3600, got {leeway!r}")
        self._jwt = jwt
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._claim = claim
        self._subscribe = tuple(subscribe)
        self._publish = tuple(publish)
        self._allowed = None if algorithms is None else _checked_algorithms(algorithms)
        self._key: tuple[Any, tuple[str, ...]] | None = None
        self._keys: KeySet | None = None
        if key is not None:
            self._key = self._read_key(key.encode() if isinstance(key, str) else key)
        else:
            options = {} if clock is None else {"clock": clock}
            self._keys = KeySet(jwks_url or "", self._parse_entry, **options)

    def __repr__(self) -> str:
        return f"<JWTVerifier {'key' if self._keys is None else self._keys.shown}>"

    async def verify(self, token: str) -> Verified:
        """Return the grant of a token.

        Raises:
            UnauthorizedError: the token is invalid.
            AccessUnavailableError: the keys of the issuer cannot be fetched.
        """
        header = self._read_header(token)
        found = self._key if self._keys is None else await self._keys.find(_kid_of(header))
        return self._verify_with(found, header, token)

    def verify_now(self, token: str) -> Verified | None:
        """Return the grant of a token; ``None`` if keys must be fetched first, so that only :meth:`verify` can tell.

        Raises:
            UnauthorizedError: the token is invalid.
        """
        header = self._read_header(token)
        found = self._key if self._keys is None else self._keys.find_now(_kid_of(header))
        return None if found is None else self._verify_with(found, header, token)

    def _read_header(self, token: str) -> Mapping[str, Any]:
        try:
            header: Mapping[str, Any] = self._jwt.get_unverified_header(token)
        except self._jwt.PyJWTError:
            raise UnauthorizedError("the credential is not a token") from None
        return header

    def _verify_with(
        self, found: tuple[Any, tuple[str, ...]] | None, header: Mapping[str, Any], token: str
    ) -> Verified:
        assert found is not None, "there is a key, or a set of them"
        key, algorithms = found
        if header.get("alg") not in algorithms:
            raise UnauthorizedError(_MISTAKES["InvalidAlgorithmError"])
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
            )
        except self._jwt.PyJWTError as error:
            raise UnauthorizedError(_MISTAKES.get(type(error).__name__, "the token is invalid")) from None
        try:
            return Verified(self._grant_of(claims), _number(claims.get("iat")))
        except AccessError:
            raise
        except (InvalidTopicError, ValueError) as error:
            raise UnauthorizedError(f"the rights in the token are invalid: {error}") from None

    def _grant_of(self, claims: Mapping[str, Any]) -> Grant:
        rights = claims.get(self._claim, {})
        if not isinstance(rights, Mapping):
            raise ValueError(f"expected the claim {self._claim!r} to be an object")
        user = claims.get("sub")
        subscribe, publish = (
            tuple(
                [fill(pattern, claims) for pattern in always]
                + (
                    mercure_patterns(_list(rights, name))
                    if self._claim == MERCURE_CLAIM
                    else [fill(pattern, claims) for pattern in _list(rights, name)]
                )
            )
            for name, always in (("subscribe", self._subscribe), ("publish", self._publish))
        )
        admin = self._claim != MERCURE_CLAIM and rights.get("admin") is True
        return Grant(
            user=user if isinstance(user, str) else None,
            subscribe=subscribe,
            publish=publish,
            admin=admin,
            until=_end_of(claims, self._leeway),
        )

    def _read_key(self, key: bytes) -> tuple[Any, tuple[str, ...]]:
        """Return a static key and its algorithms."""
        if not key.lstrip().startswith(b"-----BEGIN"):
            algorithms = self._allowed or ("HS256",)
            self._check_kind("a secret", algorithms, ALGORITHMS["secret"])
            least = max(_SECRET_BYTES[name] for name in algorithms)
            if len(key) < least:
                raise ValueError(f"expected a secret of at least {least} bytes for {algorithms[-1]}, got {len(key)}")
            return key, algorithms
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            public = load_pem_public_key(key)
        except ValueError:
            raise ValueError("the key is not a public key in PEM: pass the issuer's public key") from None
        possible = _algorithms_of(public)
        if self._allowed is not None:
            self._check_kind("this public key", self._allowed, possible)
        return public, self._allowed or possible

    def _check_kind(self, name: str, algorithms: tuple[str, ...], possible: tuple[str, ...]) -> None:
        if not set(algorithms) <= set(possible):
            raise ValueError(
                f"expected algorithms for {name} to be of {', '.join(possible)}, got {', '.join(algorithms)}"
            )

    def _parse_entry(self, entry: dict[str, Any]) -> tuple[Any, tuple[str, ...]] | None:
        """Return the key of an entry of a key set and its algorithms; ``None`` if it is not one for signatures."""
        if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC", "OKP"):
            return None  # a secret in a public document is none
        try:
            key = self._jwt.PyJWK(entry, algorithm=_any_algorithm(entry)).key
            possible = _algorithms_of(key)
        except (self._jwt.PyJWTError, ValueError, KeyError, TypeError):
            return None
        stated = entry.get("alg")
        algorithms = tuple(
            name for name in possible if (stated in (None, name)) and (self._allowed is None or name in self._allowed)
        )
        return (key, algorithms) if algorithms else None


def fill(pattern: str, claims: Mapping[str, Any]) -> str:
    """Return a pattern with the values of claims in place of ``{name}``.

    Raises:
        UnauthorizedError: a claim is missing, or its value would widen the pattern.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        value = claims.get(name)
        text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        if not text or "/" in text or "*" in text or not is_printable(text):
            raise UnauthorizedError(f"the claim {name!r} of the token cannot be a part of a topic")
        return text

    filled = _PLACEHOLDER.sub(value_of, pattern)
    if filled != pattern and is_internal(filled) and not is_internal(pattern):
        raise UnauthorizedError("a claim of the token makes a topic of the hub itself")
    return filled


def mercure_patterns(selectors: Iterable[str]) -> list[str]:
    """Return the topic selectors of a Mercure token as patterns; those that match none of our topics are left out.

    ``*`` is every topic. In a URI template, ``{id}`` as a whole segment is one segment (RFC 6570, 3.2.2).
    """
    found = []
    for selector in selectors:
        if selector == "*":
            found.append("**")
            continue
        segments = ["*" if _TEMPLATE.fullmatch(segment) else segment for segment in selector.split("/")]
        if "*" not in selector and "" not in segments and not any("{" in segment for segment in segments):
            found.append("/".join(segments))
    return found


def _kid_of(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def _list(rights: Mapping[str, Any], name: str) -> list[str]:
    value = rights.get(name) or []
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise ValueError(f"expected {name!r} to be a list of patterns")
    if len(value) > _MAX_PATTERNS:
        raise ValueError(f"expected at most {_MAX_PATTERNS} patterns in {name!r}, got {len(value)}")
    return value


def _end_of(claims: Mapping[str, Any], leeway: float) -> float | None:
    end = _number(claims.get("exp"))
    return None if end is None else end + leeway


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _checked_algorithms(algorithms: Sequence[str]) -> tuple[str, ...]:
    known = {name for names in ALGORITHMS.values() for name in names}
    unknown = [name for name in algorithms if name not in known]
    if unknown or not algorithms:
        raise ValueError(f"expected algorithms of {', '.join(sorted(known))}, got {', '.join(unknown) or 'none'}")
    return tuple(algorithms)


def _algorithms_of(key: Any) -> tuple[str, ...]:
    """Return the algorithms with which a public key may be used.

    Raises:
        ValueError: none, or it is too short.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(key, RSAPublicKey):
        if key.key_size < _MIN_RSA:
            raise ValueError(f"expected an RSA key of at least {_MIN_RSA} bits, got {key.key_size}")
        return ALGORITHMS["RSA"]
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in ALGORITHMS:
        return ALGORITHMS[key.curve.name]
    if isinstance(key, (Ed25519PublicKey, Ed448PublicKey)):
        return ALGORITHMS["Ed"]
    raise ValueError("the key is of no known kind: expected RSA, a curve of ES256 to ES512, or Ed25519")


def _any_algorithm(entry: Mapping[str, Any]) -> str | None:
    """Return an algorithm with which PyJWT can read an entry, whatever it is used with."""
    return "RS256" if entry["kty"] == "RSA" else None
