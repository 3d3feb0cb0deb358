"""The hosts of requests that the server accepts: the protection from DNS rebinding.

A page of any site can make its own name resolve to the address of a visitor's hub. Its requests are then of the same
origin for the browser, and only their ``Host`` header shows the foreign name. An address as host cannot be such a name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

_LOOPBACK: Final = ("localhost", "*.localhost")

_ANY: Final = "*"

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^:\[\]/?#@\s]+)(?::\d*)?")
"""A host with or without a port (RFC 9110, section 7.2)."""


class AllowedHosts:
    """The hosts of requests that are served.

    Arguments:
        names: names, such as ``hub.example.org``; ``*.example.org`` also stands for the names below it, ``*`` for all.
    """

    def __init__(self, names: Iterable[str]) -> None:
        given = [name.lower() for name in names]
        self._all = _ANY in given
        self._names = frozenset(name for name in given if not name.startswith("*."))
        self._suffixes = tuple(name[1:] for name in given if name.startswith("*."))
        self.allow = lru_cache(maxsize=1024)(self._allow)

    def __repr__(self) -> str:
        return f"<AllowedHosts {sorted(self._names | {'*' + suffix for suffix in self._suffixes})}>"

    def _allow(self, host: bytes) -> bool:
        """Return True if the value of a ``Host`` header is allowed: an address, or one of the names."""
        if self._all:
            return True
        found = _HOST.fullmatch(host.decode("latin-1").lower())
        if found is None:
            return False
        name = found[1].removesuffix(".")
        return name in self._names or name.endswith(self._suffixes) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True


def default_hosts(bound: str) -> tuple[str, ...]:
    """Return the names of this machine: those of the loopback interface, its own, and the one that is bound."""
    return (*_LOOPBACK, socket.gethostname(), bound)
