"""API keys: random texts whose hashes and rights are in a file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import InvalidTopicError, UnauthorizedError
from ..hub import Grant
from .verified import Verified

logger = logging.getLogger("tickertape.access")

KEY_PREFIX: Final = "ttk_"
"""The start of every key: it tells keys from tokens, and lets scanners of source code find them."""

_SECRET_BYTES: Final = 32
_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the file: a key that was removed is refused within this time."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS: Final = ("hash", "subscribe", "publish", "admin", "created")


class KeyFileError(ValueError):
    """A file of keys cannot be read, or has a mistake; the message names it, and contains no secret."""


class KeyFile:
    """Verify API keys by a file, which is read again when it changes.

    The file is TOML, with a table for each key. ``tickertape key`` writes it::

        [sensor-7]
        hash = "sha256:…"
        publish = ["sensors/7/**"]

    The name of the table is the user. A key has 256 random bits, so its SHA-256 is enough to hide it: there is nothing
    to guess. If the file is broken after a change, the keys before the change stay valid, and the log has the reason.

    Arguments:
        path: the file.
        clock: returns seconds, to decide when to look at the file again.

    Raises:
        KeyFileError: the file cannot be read, or has a mistake.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._clock = clock
        self._stamp = self._stat()
        self._keys = read_keys(self._path)
        self._looked = clock()

    def __repr__(self) -> str:
        return f"<KeyFile {self._path} keys={len(self._keys)}>"

    async def verify(self, token: str) -> Verified:
        """Return the grant of a key. Errors as of :meth:`verify_now`."""
        return self.verify_now(token)

    def verify_now(self, token: str) -> Verified:
        """Return the grant of a key.

        Raises:
            UnauthorizedError: there is no such key.
        """
        now = self._clock()
        if now - self._looked >= _LOOK_EVERY:
            self._looked = now
            self._read_again()
        found = self._keys.get(hash_key(token))
        if found is None:
            raise UnauthorizedError("the API key is unknown")
        return found

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read_again(self) -> None:
        stamp = self._stat()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except KeyFileError as error:
            logger.error("the keys before the change stay valid: %s", error)
        else:
            logger.info("read %d keys from %s", len(self._keys), self._path)


def hash_key(key: str) -> str:
    """Return the text that stands for a key in the file."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> dict[str, Verified]:
    """Return the grants of a file by the hashes of their keys.

    Raises:
        KeyFileError: the file cannot be read, or has a mistake.
    """
    found: dict[str, Verified] = {}
    for name, fields in _parse(path).items():
        if not isinstance(fields, dict):
            raise KeyFileError(f"expected {name!r} in {path} to be a table, as [{name}]")
        unknown = [field for field in fields if field not in _FIELDS]
        if unknown:
            raise KeyFileError(f"unknown field {unknown[0]!r} of [{name}] in {path}: expected {', '.join(_FIELDS)}")
        hashed, created = fields.get("hash"), fields.get("created")
        if not isinstance(hashed, str) or not _HASH.fullmatch(hashed):
            raise KeyFileError(f"expected hash of [{name}] in {path} to be 'sha256:' and 64 hexadecimal digits")
        if hashed in found:
            raise KeyFileError(f"two keys in {path} have the hash of [{name}]")
        if not isinstance(fields.get("admin", False), bool):
            raise KeyFileError(f"expected admin of [{name}] in {path} to be true or false")
        if created is not None and not (isinstance(created, int) and not isinstance(created, bool)):
            raise KeyFileError(f"expected created of [{name}] in {path} to be seconds since 1970")
        try:
            subscribe, publish = (_patterns(fields.get(field, [])) for field in ("subscribe", "publish"))
            grant = Grant(user=name, subscribe=subscribe, publish=publish, admin=fields.get("admin", False))
        except (InvalidTopicError, ValueError) as error:
            raise KeyFileError(f"[{name}] in {path}: {error}") from None
        found[hashed] = Verified(grant, created)
    return found


def add_key(
    path: Path,
    name: str,
    *,
    subscribe: Iterable[str] = (),
    publish: Iterable[str] = (),
    admin: bool = False,
    now: float | None = None,
) -> str:
    """Make a key, append it to a file, which is created if it does not exist, and return the key.

    The key itself is stored nowhere. Only the owner of a new file can read it.

    Raises:
        KeyFileError: the file cannot be read or written, or has a key of this name.
        InvalidTopicError: a pattern breaks the syntax.
        ValueError: the name is not 1 to 64 letters, digits, ``.``, ``_`` or ``-``.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a name of 1 to 64 letters, digits, '.', '_' or '-', got {name!r}")
    grant = Grant(user=name, subscribe=tuple(subscribe), publish=tuple(publish), admin=admin)
    if path.exists() and name in _parse(path):
        raise KeyFileError(f"{path} already has a key [{name}]: remove it first")
    key = KEY_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    lines = [f'["{name}"]', f'hash = "{hash_key(key)}"', f"created = {int(time.time() if now is None else now)}"]
    for field, patterns in (("subscribe", grant.subscribe), ("publish", grant.publish)):
        if patterns:
            lines.append(f"{field} = {json.dumps(patterns)}")
    if admin:
        lines.append("admin = true")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(("\n".join([*([""] if file.tell() else []), *lines]) + "\n").encode())
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from None
    return key


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise KeyFileError(f"{path} is not valid TOML: {error}") from None


def _patterns(value: Any) -> tuple[str, ...]:
    if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        raise ValueError(f"expected patterns to be a list of strings, got {value!r}")
    return tuple(value)
