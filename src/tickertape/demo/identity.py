"""Who is signed in: a name for each browser, without passwords.

A signed cookie carries the name and a token that nobody can guess. A name belongs to the first token
that claims it, for as long as it is used. An application with accounts puts its own sign-in here.
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

from .requests import read_json

__all__ = ["MAX_NAME", "MAX_NAMES", "NAME_KEPT", "Identities", "load_secret", "signed_in"]

MAX_NAME: Final = 32
"""Characters of a name: what fits beside a message on a phone."""

NAME_KEPT: Final = 12 * 3600.0
"""Seconds after its last use that a name stays taken: overnight."""

MAX_NAMES: Final = 10_000
"""Names that are in use at once; the one that was used longest ago makes room."""

_NAME: Final = re.compile(r"\w(?:[\w .-]*[\w.])?")


class _Claim(NamedTuple):
    token: str
    used_at: float


class Identities:
    """Know which name belongs to which browser.

    Arguments:
        now: seconds, of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._claims: dict[str, _Claim] = {}  # the one used last at the end

    def __repr__(self) -> str:
        return f"<Identities {len(self._claims)} names>"

    @property
    def routes(self) -> list[Route]:
        """Where a page asks for its name, claims one, and lets go of it."""
        return [
            Route("/session", self._tell, methods=["GET"]),
            Route("/session", self._sign_in, methods=["POST"]),
            Route("/session", self._sign_out, methods=["DELETE"]),
        ]

    def claim(self, name: str, token: str) -> bool:
        """Note that ``token`` uses ``name``; False if that is another's.

        A cookie from before a restart is as good as ever, unless somebody else came first.
        """
        key, now = name.casefold(), self._now()
        held = self._claims.get(key)
        if held is not None and held.token != token and now - held.used_at < NAME_KEPT:
            return False
        self._claims.pop(key, None)
        self._claims[key] = _Claim(token, now)
        if len(self._claims) > MAX_NAMES:
            del self._claims[next(iter(self._claims))]
        return True

    def release(self, name: str, token: str) -> None:
        """Let go of a name; what is another's stays."""
        held = self._claims.get(name.casefold())
        if held is not None and held.token == token:
            del self._claims[name.casefold()]

    def name_of(self, connection: HTTPConnection) -> str | None:
        """Return the name that a request comes with, if that is still its own."""
        name, token = connection.session.get("name"), connection.session.get("token")
        return name if name and token and self.claim(name, token) else None

    async def _tell(self, request: Request) -> Response:
        return JSONResponse({"name": self.name_of(request)}, headers={"cache-control": "no-store"})

    async def _sign_in(self, request: Request) -> Response:
        name = check_name((await read_json(request)).get("name"))
        session = request.session
        token = session.get("token") or secrets.token_urlsafe()
        if not self.claim(name, token):
            sentence = f"expected a name that nobody uses, got {name!r}: it is taken, choose another"
            raise HTTPException(HTTPStatus.CONFLICT, sentence)
        former = session.get("name")
        if former is not None and former.casefold() != name.casefold():
            self.release(former, token)
        session.update(name=name, token=token)
        return JSONResponse({"name": name})

    async def _sign_out(self, request: Request) -> Response:
        session = request.session
        if session.get("name") and session.get("token"):
            self.release(session["name"], session["token"])
        session.clear()
        return JSONResponse({"name": None})


def check_name(value: Any) -> str:
    """Return a name as it is shown; HTTPException if it is none."""
    name = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else ""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        sentence = f"expected a name of 1 to {MAX_NAME} letters, digits, spaces, dots and dashes, got {value!r:.60}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return name


def signed_in(request: HTTPConnection) -> str:
    """Return the name of who sends a request to the site.

    Raises:
        HTTPException: 401: nobody is signed in.
    """
    name = request.app.state.identities.name_of(request)
    if name is None:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, "expected a request of somebody who is signed in, got no name")
    return str(name)


def load_secret(file: Path) -> str:
    """Return the secret that signs cookies: kept in ``file``, so that a restart signs nobody out."""
    try:
        return file.read_text()
    except FileNotFoundError:
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
        return file.read_text()
