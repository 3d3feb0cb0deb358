"""``KeySet``, the public keys of an issuer of tokens, fetched from a URL (RFC 7517)."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import AccessUnavailableError, UnauthorizedError

logger = logging.getLogger("tickertape.access")

FRESH: Final = 300.0
"""Seconds after which the keys are fetched again. Issuers announce a new key for longer before they use it."""

STALE: Final = 24 * 3600.0
"""Seconds for which the last keys are used while the issuer cannot be reached: streams outlive its outage."""

UNKNOWN_EVERY: Final = 10.0
"""Least seconds between two fetches for a key that is not in the set: anybody can send tokens with invented names."""

_TIMEOUT: Final = 5.0
_MAX_SIZE: Final = 1024 * 1024
_MAX_KEYS: Final = 100


class KeySet:
    """Fetch and keep the keys of an issuer.

    Keys are fetched when the first token comes. If they are older than five minutes, they are fetched again, and
    the known ones are used until then. If a token names a key that is not there, the issuer may have a new
    one, and they are fetched at once. If the issuer cannot be reached, the last keys are used for a day.

    Arguments:
        url: of the set, with ``https`` or ``http``.
        parse: returns the key of an entry of the set, or ``None`` if it is of no use.
        clock: returns seconds.

    Raises:
        ValueError: the URL is not one.
    """

    def __init__(
        self, url: str, parse: Callable[[dict[str, Any]], Any], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError("expected the URL of a key set to start with https:// or http://")
        self._url = url
        self._parse = parse
        self._clock = clock
        self._keys: dict[str | None, Any] = {}
        self._fetched: float | None = None  # when the keys were fetched
        self._tried: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<KeySet {self.shown} keys={len(self._keys)}>"

    @property
    def shown(self) -> str:
        """The URL without its query and without credentials."""
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    def find_now(self, id: str | None) -> Any:
        """Return the key with this ``kid`` if it is known and was fetched lately; else ``None``."""
        fresh = self._fetched is not None and self._clock() - self._fetched <= FRESH
        return self._get(id) if fresh else None

    async def find(self, id: str | None) -> Any:
        """Return the key with this ``kid``; for a token without one, the only key of the set.

        Raises:
            UnauthorizedError: there is no such key.
            AccessUnavailableError: the keys were never fetched, or too long ago, and the issuer cannot be reached.
        """
        age = None if self._fetched is None else self._clock() - self._fetched
        if age is None or age > STALE:
            await self._fetch()
        elif age > FRESH and self._may_try():
            self._start()
        key = self._get(id)
        if key is None:
            await self._fetch()
            key = self._get(id)
        if self._fetched is None or self._clock() - self._fetched > STALE:
            raise AccessUnavailableError("the keys of the issuer cannot be fetched")
        if key is None:
            raise UnauthorizedError("the token is signed with an unknown key")
        return key

    def _get(self, id: str | None) -> Any:
        if id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(id)

    def _may_try(self) -> bool:
        return self._tried is None or self._clock() - self._tried >= UNKNOWN_EVERY

    def _start(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._tried = self._clock()
            self._fetching = asyncio.get_running_loop().create_task(self._update(), name="tickertape key set")
        return self._fetching

    async def _fetch(self) -> None:
        """Fetch the keys, together with others that wait for them; a short time after a failure, do not."""
        running = self._fetching is not None and not self._fetching.done()
        if running or self._may_try():
            await asyncio.shield(self._start())

    async def _update(self) -> None:
        try:
            entries = await asyncio.to_thread(_download, self._url)
        except (OSError, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            logger.warning("cannot fetch the keys of %s: %s", self.shown, reason)
            return
        except http.client.HTTPException as error:  # its text may repeat a part of the URL
            logger.warning("cannot fetch the keys of %s: %s", self.shown, type(error).__name__)
            return
        keys: dict[str | None, Any] = {}
        for entry in entries[:_MAX_KEYS]:
            key = self._parse(entry) if isinstance(entry, dict) else None
            if key is not None:
                keys[str(entry["kid"]) if "kid" in entry else None] = key
        self._keys, self._fetched = keys, self._clock()


def _download(url: str) -> list[Any]:
    """Return the entries of a set; in a thread.

    Raises:
        OSError: the server cannot be reached or answers with an error.
        ValueError: the answer is not a key set.
    """
    request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        body: bytes = response.read(_MAX_SIZE + 1)
    if len(body) > _MAX_SIZE:
        raise ValueError(f"the answer is larger than {_MAX_SIZE} bytes")
    try:
        entries = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("the answer is not a key set") from None
    if not isinstance(entries, list):
        raise ValueError("the answer is not a key set")
    return entries
