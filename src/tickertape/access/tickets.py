"""Tickets: signed texts for the URL of a stream, since a browser's ``EventSource`` cannot send headers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from ..broker import Record
from ..errors import UnauthorizedError
from ..hub import Grant, Hub
from ..wire import Draft, check_patterns
from .verified import Verified

DEFAULT_VALID: Final = 30.0
"""Seconds: a page opens its stream at once, and what a log or a history keeps is useless soon."""

MIN_SECRET: Final = 32
"""Bytes of a secret: as many as HMAC-SHA-256 needs for its full strength (RFC 7518, 3.2)."""

_TOPIC: Final = "hub-access/tickets"
_DOMAIN: Final = b"tickertape ticket 1\0"
"""Signed with each ticket, so that nothing else that was signed with the same secret is a ticket."""

_MAX_USED: Final = 100_000
"""Tickets that may be in use within their validity. Beyond that, no ticket is redeemed until some have expired."""

_INVALID: Final = "the ticket is invalid"
_USED: Final = "the ticket was used before: get a new one for each connection"


class Tickets:
    """Issue and redeem tickets.

    A ticket is bound to patterns, valid for some seconds, and good for one connection: redeeming it appends a record
    with the ticket's number as its key, and the log stores a key once. So a ticket works on any worker and node that
    has the same secret and the same log, and a second time on none of them.

    Arguments:
        secret: at least 32 bytes, the same in every process.
        hub: the hub whose log remembers used tickets. Without one, tickets can be issued but not redeemed.
        valid: seconds for which a ticket is valid, > 0.
        now: returns the time in seconds since the Unix epoch.

    Raises:
        ValueError: the secret is too short, or ``valid`` is out of its range.
    """

    def __init__(
        self,
        secret: bytes,
        hub: Hub | None = None,
        *,
        valid: float = DEFAULT_VALID,
        now: Callable[[], float] = time.time,
    ) -> None:
        if len(secret) < MIN_SECRET:
            raise ValueError(f"expected a secret of at least {MIN_SECRET} bytes, got {len(secret)}")
        self.valid = _check_valid(valid)
        self._key = secret
        self._hub = hub
        self._now = now
        self._used: dict[str, float] = {}
        if hub is not None:
            hub.watch(_TOPIC, self._watch)

    def __repr__(self) -> str:
        return f"<Tickets valid={self.valid:g}>"

    def issue(self, grant: Grant, topics: str | Iterable[str], *, valid: float | None = None) -> str:
        """Return a ticket for one subscription to ``topics``.

        Arguments:
            grant: the rights of the caller. They must cover the topics, and their end is the end of the stream.
            topics: a pattern or several.
            valid: seconds, instead of the usual ones.

        Raises:
            AccessError: the grant does not cover the topics.
            InvalidTopicError: a pattern breaks the syntax.
        """
        return self._sign(grant, topics, self.valid if valid is None else _check_valid(valid), secrets.token_hex(12))

    def sign_url(
        self,
        url: str,
        topics: str | Iterable[str],
        *,
        valid: float,
        user: str | None = None,
        until: float | None = None,
    ) -> str:
        """Return the URL of a hub's ``/events`` with ``topics`` and a signature that is valid for some time.

        For views that cannot stream, as those of WSGI: they decide who may read, and redirect to the hub. Unlike a
        ticket, the URL may be used again until it expires, since some browsers reconnect to the address after the
        redirect. A stream ends when its URL expires. The URL is a secret.

        Arguments:
            url: of the stream, as ``https://hub.example.org/events``. Its query is kept.
            topics: a pattern or several.
            valid: seconds for which the URL works.
            user: the user, for presence and revocations.
            until: an earlier end of the streams, in seconds since the Unix epoch.

        Raises:
            InvalidTopicError: a pattern breaks the syntax.
            ValueError: ``valid`` is not a number of seconds over 0.
        """
        patterns = check_patterns(topics)
        grant = Grant(user=user, subscribe=patterns, until=until)
        parts = urlsplit(url)
        added = urlencode([*(("topic", each) for each in patterns), ("ticket", self._sign(grant, patterns, valid, ""))])
        return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))

    def _sign(self, grant: Grant, topics: str | Iterable[str], valid: float, number: str) -> str:
        patterns = check_patterns(topics)
        grant.check_subscribe(patterns)
        now = self._now()
        payload: dict[str, Any] = {"i": number, "t": round(now, 3), "e": round(now + _check_valid(valid), 3)}
        payload |= {"s": patterns, "u": grant.user, "n": grant.until}
        body = _encode(json.dumps(payload, separators=(",", ":")).encode())
        return f"{body}.{_encode(self._mac(body))}"

    def _mac(self, body: str) -> bytes:
        return hmac.digest(self._key, _DOMAIN + body.encode(), hashlib.sha256)

    async def redeem(self, text: str) -> Verified:
        """Return the grant of a ticket, and use it up.

        Raises:
            UnauthorizedError: the ticket is invalid, has expired or was used before.
            BrokerError: the log cannot be reached.
        """
        payload = self._open(text)
        number, issued, expires = payload["i"], payload["t"], payload["e"]
        if self._now() >= expires:
            raise UnauthorizedError("the ticket has expired: get a new one for each connection")
        if number:
            await self._use(number, expires)
        until = payload["n"]
        if not number:
            until = expires if until is None else min(until, expires)
        return Verified(Grant(user=payload["u"], subscribe=tuple(payload["s"]), until=until), issued)

    def _open(self, text: str) -> dict[str, Any]:
        body, _, signature = text.partition(".")
        try:
            given = _decode(signature)
        except ValueError:
            raise UnauthorizedError(_INVALID) from None
        if not body.isascii() or not hmac.compare_digest(given, self._mac(body)):
            raise UnauthorizedError(_INVALID)
        payload: dict[str, Any] = json.loads(_decode(body))
        return payload

    async def _use(self, number: str, expires: float) -> None:
        """Use up a ticket: only one of all that append its key finds its own record in the log."""
        if self._hub is None:
            raise UnauthorizedError("tickets cannot be used here")
        self._forget()
        if number in self._used:
            raise UnauthorizedError(_USED)
        if len(self._used) >= _MAX_USED:
            raise UnauthorizedError("too many tickets are in use: try again in a moment")
        nonce = secrets.token_hex(8)
        draft = Draft(_TOPIC, {"i": number, "e": expires, "n": nonce}, event="access:ticket", key=f"ticket-{number}")
        (cursor,) = await self._hub.publish_many([draft])
        page = await self._hub.read(cursor.offset - 1, 1)
        first = page.records[0] if page.records and page.state.epoch == cursor.epoch else None
        self._used[number] = expires
        if first is None or first.offset != cursor.offset or first.data != draft.data:
            raise UnauthorizedError(_USED)

    def _forget(self) -> None:
        """Forget the tickets that have expired, oldest first; all are valid for about as long."""
        now = self._now()
        while self._used:
            number = next(iter(self._used))
            if self._used[number] > now:
                return
            del self._used[number]

    def _watch(self, record: Record) -> None:
        """Remember a ticket that was used in any process: the log may drop its record before it expires."""
        try:
            payload = json.loads(record.data)
            number, expires = str(payload["i"]), float(payload["e"])
        except (ValueError, KeyError, TypeError):
            return
        if len(self._used) < _MAX_USED:
            self._used.setdefault(number, expires)


def _check_valid(valid: float) -> float:
    if not 0 < valid < float("inf"):
        raise ValueError(f"expected valid to be a number of seconds over 0, got {valid!r}")
    return float(valid)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("not base64url") from None
