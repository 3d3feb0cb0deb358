"""Options and credentials in the URLs of brokers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import BrokerError

_SECRETS: Final = re.compile(r"(?<=[?&])(\w*(?:password|passwd|secret|token)\w*=)[^&#]*", re.ASCII | re.IGNORECASE)
"""Options that contain a secret, such as libpq's ``password``."""

_TOKENS: Final = ("nats", "nats+tls")
"""Schemes in which a user without a password is a secret too."""


def read_options(url: str, kinds: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Return the options of a broker's URL.

    Arguments:
        url: the whole URL.
        kinds: for each option, a function that returns its value for a text, or raises ``ValueError``.

    Raises:
        BrokerError: an option is unknown, is given twice, or has a value of another kind.
    """
    found: dict[str, Any] = {}
    for name, text in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in kinds:
            known = ", ".join(sorted(kinds)) or "none"
            raise BrokerError(f"expected an option of {urlsplit(url).scheme}:// ({known}), got {name!r}")
        if name in found:
            raise BrokerError(f"the option {name} is given twice")
        try:
            found[name] = kinds[name](text)
        except ValueError as error:
            raise BrokerError(f"expected {name} to be {error}, got {text!r}") from None
    return found


def read_seconds(options: Mapping[str, str], name: str, default: float) -> float:
    """Return an option that is a number of seconds.

    Raises:
        BrokerError: it has another value.
    """
    try:
        return seconds(options[name]) if name in options else default
    except ValueError as error:
        raise BrokerError(f"expected {name} to be {error}, got {options[name]!r}") from None


class NatsURL(NamedTuple):
    """The parts of a URL of NATS.

    Attributes:
        servers: the URLs of the servers, separated by commas.
        hosts: all servers, without credentials, as shown in messages.
        path: the path, without its first slash.
        credentials: the arguments of nats-py's ``connect``. It would not decode what is percent-encoded in a URL.
        options: the options of the query.
    """

    servers: list[str]
    hosts: str
    path: str
    credentials: dict[str, str]
    options: dict[str, Any]


def read_nats_url(url: str, kinds: Mapping[str, Callable[[str], Any]]) -> NatsURL:
    """Return the parts of a URL of NATS.

    Arguments:
        url: ``nats://[user[:password]@|token@]host[:port][,…]/[path]``, or ``nats+tls://``.
        kinds: its options besides ``connect_timeout``, ``creds`` and ``timeout``, as for :func:`read_options`.

    Raises:
        BrokerError: there is no host, or an option is wrong.
    """
    options = read_options(url, {"connect_timeout": seconds, "creds": str, "timeout": seconds, **kinds})
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    scheme = "tls" if parts.scheme == "nats+tls" else parts.scheme  # the name that nats-py knows
    servers = [f"{scheme}://{login}{at}{host}" for host in hosts.split(",") if host]
    if not servers:
        raise BrokerError(f"expected a URL such as {parts.scheme}://host:4222, got one without a host")
    user, colon, password = login.partition(":")
    credentials = {"user_credentials": str(options["creds"])} if "creds" in options else {}
    if colon:
        credentials |= {"user": unquote(user), "password": unquote(password)}
    elif user:
        credentials["token"] = unquote(user)
    return NatsURL(servers, hosts, unquote(parts.path[1:]), credentials, options)


def choice(*values: str) -> Callable[[str], str]:
    """Return a function that accepts one of some words."""

    def read(text: str) -> str:
        if text not in values:
            raise ValueError("one of " + ", ".join(values))
        return text

    return read


def seconds(text: str) -> float:
    """Return a positive number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ValueError("a positive number of seconds")
    return number


def without_secrets(url: str) -> str:
    """Return a broker's URL without its password or token."""
    url = _SECRETS.sub(r"\1***", url)
    scheme, mark, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    if not at or scheme == "sqlite":
        return url
    user, colon, _ = login.partition(":")
    shown = f"{user}:***" if colon else "***" if scheme in _TOKENS else user
    return f"{scheme}{mark}{shown}@{place}"
