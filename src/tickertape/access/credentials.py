"""Credentials in a request: their places, their verification, and the pages that may use a cookie."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlsplit

from ..errors import ForbiddenError, UnauthorizedError
from ..hub import Grant
from .keys import KEY_PREFIX
from .revocations import Revocations
from .tickets import Tickets
from .verified import Verified

TICKET: Final = "ticket"
"""The name of the parameter with a ticket."""

_MAX_CREDENTIAL: Final = 16 * 1024
"""Bytes of a credential: more claims than a token needs, and fewer than servers accept in a header."""


class Verifier(Protocol):
    """A kind of credential that is sent as a bearer token."""

    async def verify(self, token: str) -> Verified:
        """Return the grant of a token.

        Raises:
            UnauthorizedError: the token is invalid.
        """


@runtime_checkable
class ImmediateVerifier(Verifier, Protocol):
    """A verifier that usually need not wait."""

    def verify_now(self, token: str) -> Verified | None:
        """Return the grant of a token; ``None`` if only ``verify`` can tell. Errors as of ``verify``."""


class Credential(NamedTuple):
    """A credential as a request carries it.

    Attributes:
        text: the secret.
        place: ``"ticket"``, ``"authorization"`` or ``"cookie"``.
    """

    text: str
    place: str

    def __repr__(self) -> str:
        return f"<Credential from {self.place}>"


class CredentialAccess:
    """Find the grant of a request by its credential: pass it as ``access=`` to a hub.

    The credential is a ticket in the query, else a bearer token in ``Authorization``, else a cookie. A request without
    one has the anonymous patterns. An invalid credential is refused, also where none is needed.

    Arguments:
        jwt: verifies JSON Web Tokens.
        keys: verifies API keys; texts that start with ``ttk_`` are keys.
        tickets: redeems tickets.
        revocations: refuses credentials that were issued before their user was revoked.
        subscribe: patterns that requests without a credential may read.
        publish: patterns to which they may publish.
        cookie: the name of the cookie that may carry a token or a key; ``None`` for no cookie.
        origins: origins whose pages may use the cookie, besides those of the server itself.

    A cookie is sent by every page that knows the address. So a cookie counts only if the browser states that the page
    is of this server or of ``origins`` (``Sec-Fetch-Site`` and ``Origin``).
    """

    def __init__(
        self,
        *,
        jwt: Verifier | None = None,
        keys: Verifier | None = None,
        tickets: Tickets | None = None,
        revocations: Revocations | None = None,
        subscribe: Iterable[str] = (),
        publish: Iterable[str] = (),
        cookie: str | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self.tickets = tickets
        self.revocations = revocations
        self._jwt = jwt
        self._keys = keys
        self._anonymous = Grant(subscribe=tuple(subscribe), publish=tuple(publish), anonymous=True)
        self._cookie = cookie
        self._origins = origins

    async def __call__(self, request: Any) -> Grant:
        """Return the grant of a request: one of an ASGI framework, or a scope.

        Raises:
            UnauthorizedError: the credential is invalid.
            ForbiddenError: a page of another origin sent the cookie.
            BrokerError: it is unknown whether the ticket was used before.
        """
        credential = self._find(request if isinstance(request, Mapping) else request.scope)
        if credential is None:
            return self._anonymous
        if credential.place == TICKET:
            if self.tickets is None:
                raise UnauthorizedError("tickets are not configured here")
            verified = await self.tickets.redeem(credential.text)
        else:
            verified = await self._verifier_of(credential).verify(credential.text)
        if self.revocations is not None:
            await self.revocations.check(verified)
        return verified.grant

    def decide(self, scope: Mapping[str, Any]) -> Grant | None:
        """Return the grant of a request if that takes neither the log nor another server; else ``None``.

        So a server answers without a task for each request. Tickets are used up in the log, so they return ``None``.
        Errors as of calling the object.
        """
        credential = self._find(scope)
        if credential is None:
            return self._anonymous
        if credential.place == TICKET or not (self.revocations is None or self.revocations.loaded):
            return None
        verifier = self._verifier_of(credential)
        verified = verifier.verify_now(credential.text) if isinstance(verifier, ImmediateVerifier) else None
        if verified is None:
            return None
        if self.revocations is not None:
            self.revocations.check_now(verified)
        return verified.grant

    def _find(self, scope: Mapping[str, Any]) -> Credential | None:
        """Return the credential of a request, after the checks that need no key."""
        credential = find_credential(scope, self._cookie)
        if credential is None:
            return None
        if credential.place == "cookie" and (origin := find_foreign_origin(scope, self._origins)) is not None:
            raise ForbiddenError(f"pages of {origin} may not use the cookie: allow their origin with --cors-origin")
        if len(credential.text) > _MAX_CREDENTIAL:
            raise UnauthorizedError(f"expected a credential of at most {_MAX_CREDENTIAL} characters")
        return credential

    def _verifier_of(self, credential: Credential) -> Verifier:
        verifier = self._keys if credential.text.startswith(KEY_PREFIX) else self._jwt
        if verifier is None:
            raise UnauthorizedError("credentials of this kind are not configured here")
        return verifier


def find_credential(scope: Mapping[str, Any], cookie: str | None = None) -> Credential | None:
    """Return the credential of a request, or ``None`` if it has none.

    Arguments:
        scope: the ASGI scope.
        cookie: the name of the cookie that may carry one.

    Raises:
        UnauthorizedError: ``Authorization`` is repeated, or is not a bearer token.
    """
    for name, value in parse_qsl(scope.get("query_string", b"").decode("latin-1")):
        if name == TICKET and value:
            return Credential(value, TICKET)
    headers = [value for name, value in scope["headers"] if name == b"authorization"]
    if headers:
        scheme, _, token = headers[0].decode("latin-1").strip().partition(" ")
        if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise UnauthorizedError("expected one header 'Authorization: Bearer …'")
        return Credential(token.strip(), "authorization")
    if cookie is not None and (text := _cookie_of(scope, cookie)):
        return Credential(text, "cookie")
    return None


def _cookie_of(scope: Mapping[str, Any], name: str) -> str | None:
    jar: SimpleCookie = SimpleCookie()
    for header, value in scope["headers"]:
        if header == b"cookie":
            try:
                jar.load(value.decode("latin-1"))
            except CookieError:
                continue
    return jar[name].value if name in jar else None


def find_foreign_origin(scope: Mapping[str, Any], allowed: Collection[str]) -> str | None:
    """Return the origin of the page that sends a request if it is neither this server's nor one of ``allowed``.

    Browsers state in ``Sec-Fetch-Site`` and ``Origin`` where a request comes from, programs send neither. The
    decision is that of Go's ``http.CrossOriginProtection``.
    """
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
    if origin in allowed or "*" in allowed:
        return None
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and _host_of(origin) != headers.get(b"host")
    return (origin or site) if foreign else None


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # as for `http://[`
        return None
