"""Sign-in by name, without passwords.

A signed cookie contains the name and a random token. The first token that claims a name keeps it while the name is in
use. An application with user accounts uses its own sign-in instead.
"""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..hub import Hub
from .requests import read_json

MAX_NAME: Final = 32
"""Characters in a name: enough for a full name, short enough to fit next to a message on a phone."""

NAME_LIFETIME: Final = 12 * 3600.0
"""Seconds after its last use until another browser may claim a name: long enough for a night."""

MAX_NAMES: Final = 10_000
"""Names in use at the same time. If there are more, the least recently used name is free again."""

_NAME: Final = re.compile(r"\w(?:[\w .-]*[\w.])?")


class _Claim(NamedTuple):
    token: str
    used_at: float


class Identities:
    """Names in use, each with the token of the browser that owns it.

    Arguments:
        hub: the hub with the streams of the users. They end when a user signs out.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, hub: Hub, now: Callable[[], float] = time.monotonic) -> None:
        self._hub = hub
        self._now = now
        self._claims: dict[str, _Claim] = {}  # the most recently used one is last
        self._ended: dict[str, None] = {}  # tokens that have signed out, the newest last

    def __repr__(self) -> str:
        return f"<Identities {len(self._claims)} names>"

    @property
    def routes(self) -> list[Route]:
        """Routes for a page to read its name, to sign in and to sign out."""
        return [
            Route("/session", self._read, methods=["GET"]),
            Route("/session", self._sign_in, methods=["POST"]),
            Route("/session", self._sign_out, methods=["DELETE"]),
        ]

    def claim(self, name: str, token: str) -> bool:
        """Record that ``token`` uses ``name``. Return False if another token owns the name.

        A cookie from before a restart is valid, unless another browser has claimed the name since then. A token that
        has signed out is refused.
        """
        if token in self._ended:
            return False
        key, now = name.casefold(), self._now()
        current = self._claims.get(key)
        if current is not None and current.token != token and now - current.used_at < NAME_LIFETIME:
            return False
        self._claims.pop(key, None)
        self._claims[key] = _Claim(token, now)
        if len(self._claims) > MAX_NAMES:
            del self._claims[next(iter(self._claims))]
        return True

    def release(self, name: str, token: str) -> bool:
        """Make a name available again if ``token`` owns it. Return False if it does not."""
        current = self._claims.get(name.casefold())
        if current is None or current.token != token:
            return False
        del self._claims[name.casefold()]
        return True

    def name_of(self, connection: HTTPConnection) -> str | None:
        """Return the name in the cookie of a request, or None if the browser does not own it (any more)."""
        name, token = connection.session.get("name"), connection.session.get("token")
        return name if name and token and self.claim(name, token) else None

    async def _read(self, request: Request) -> Response:
        return JSONResponse({"name": self.name_of(request)}, headers={"cache-control": "no-store"})

    async def _sign_in(self, request: Request) -> Response:
        name = check_name((await read_json(request)).get("name"))
        session = request.session
        token = session.get("token")
        if token is None or token in self._ended:
            token = secrets.token_urlsafe()
        if not self.claim(name, token):
            raise HTTPException(HTTPStatus.CONFLICT, f"the name {name!r} is taken: choose another one")
        former = session.get("name")
        if former is not None and former.casefold() != name.casefold():
            await self._leave(former, token)
        session.update(name=name, token=token)
        return JSONResponse({"name": name})

    async def _sign_out(self, request: Request) -> Response:
        name, token = request.session.pop("name", None), request.session.pop("token", None)
        if name and token:
            # A request that was sent before may still have this token.
            self._ended[token] = None
            if len(self._ended) > MAX_NAMES:
                del self._ended[next(iter(self._ended))]
            await self._leave(name, token)
        return JSONResponse({"name": None})

    async def _leave(self, name: str, token: str) -> None:
        """Release a name, and end its streams: another browser may claim it now."""
        if self.release(name, token):
            await self._hub.disconnect(user=name)


def check_name(value: Any) -> str:
    """Return a name in its canonical form, or raise HTTPException if it is not valid."""
    name = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        sentence = f"expected a name of 1 to {MAX_NAME} letters, digits, spaces, dots and dashes, got {value!r:.60}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return name


def signed_in(request: HTTPConnection) -> str:
    """Return the name of the user who sent a request.

    Raises:
        HTTPException: 401: the user is not signed in.
    """
    name = request.app.state.identities.name_of(request)
    if name is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "not signed in")
    return str(name)


def load_secret(file: Path) -> str:
    """Return the secret that signs the cookies. It is stored in ``file``, so users stay signed in after a restart."""
    try:
        return file.read_text()
    except FileNotFoundError:
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
        return file.read_text()
