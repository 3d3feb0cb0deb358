"""Clients of Redis by URL: one server, Sentinel's master, a cluster; and their errors as sentences."""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from ...errors import BrokerError

__all__ = ["Client", "RedisURL", "close_client", "explain"]

Client: TypeAlias = "Redis | RedisCluster"

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "unix": "unix", "valkey": "redis", "valkeys": "rediss"}
"""Our schemes, and what redis-py calls them."""

_WAYS: Final = ("", "sentinel", "cluster")

_SENTINEL_PORT: Final = 26379

_OPTIONS: Final = ("prefix", "failover", "connect_timeout", "timeout", "sentinel_username", "sentinel_password")
"""What we take out of the query; the rest is redis-py's."""


class RedisURL:
    """A URL, checked, that makes clients.

    Arguments:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///path?db=0``,
            ``redis+sentinel://[[user]:password@]host[:port],…/service[/db]``, ``redis+cluster://host[:port]``.

    Attributes:
        options: ours, out of the query.
        cluster: whether it names a cluster.
        where: the server in words, without credentials.

    Raises:
        BrokerError: the URL is none of these.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        scheme, _, way = parts.scheme.partition("+")
        if scheme not in _SCHEMES or way not in _WAYS or (way and scheme == "unix"):
            raise BrokerError(
                f"expected a URL like redis://host, redis+sentinel://… or redis+cluster://…, got {scheme}:"
            )
        query = parse_qsl(parts.query, keep_blank_values=True)
        self.options = {name: value for name, value in query if name in _OPTIONS}
        self.cluster = way == "cluster"
        self._way = way
        rest = urlencode([(name, value) for name, value in query if name not in _OPTIONS])
        self._parts = parts._replace(scheme=_SCHEMES[scheme], query=rest)
        self._hosts = parts.netloc.rpartition("@")[2]
        self.where = f"Redis at {self._hosts or parts.path}"
        try:
            self._sentinels = self._parse_sentinels() if way == "sentinel" else []
            client = self.client(1.0)  # nothing connects yet: it is for what redis-py thinks of the URL
            if isinstance(client, Redis):
                pool: Any = client.connection_pool
                pool.make_connection()  # and of its options
        except (TypeError, ValueError, exceptions.RedisError, exceptions.RedisClusterException) as error:
            raise BrokerError(f"expected the URL of a Redis server, got one that is wrong: {error}") from None

    def client(self, connect_timeout: float) -> Client:
        """Return a client that connects when it is used, and waits for answers until it is cancelled.

        Arguments:
            connect_timeout: seconds for a connection.
        """
        options = _options(connect_timeout)
        if self._way == "sentinel":
            return self._sentinel_client(options)
        if self._way == "cluster":
            return RedisCluster.from_url(self._parts.geturl(), **options)
        return Redis.from_url(self._parts.geturl(), **options)

    def replica(self, client: Client, host: str, port: int, timeout: float) -> Redis:
        """Return a client of a replica of the server that ``client`` is connected to, with the same credentials."""
        known = client.connection_pool.connection_kwargs if isinstance(client, Redis) else {}
        names = ("username", "password", *(name for name in known if name.startswith("ssl")))
        options = {name: known[name] for name in names if name in known}
        tls = self._parts.scheme == "rediss"
        return Redis(host=host, port=port, ssl=tls, **_options(timeout), **options)

    def _parse_sentinels(self) -> list[tuple[str, int]]:
        return [_address(host) for host in self._hosts.split(",") if host]

    def _sentinel_client(self, options: dict[str, Any]) -> Redis:
        service, _, db = self._parts.path.strip("/").partition("/")
        if not service or not self._sentinels:
            raise ValueError("expected redis+sentinel://host[:port],…/service[/db]")
        if self._parts.query:
            raise ValueError(f"expected no options of redis-py beside Sentinel, got {self._parts.query!r}")
        guards = {name.removeprefix("sentinel_"): self.options.get(name) for name in _OPTIONS[-2:]}
        if self._parts.scheme == "rediss":
            options["ssl"] = True
        make: Any = Sentinel  # redis-py gives it no types
        sentinel = make(self._sentinels, sentinel_kwargs={**options, **guards})
        client: Redis = sentinel.master_for(service, db=int(db or 0), **options, **_credentials(self._parts))
        return client


def _options(connect_timeout: float) -> dict[str, Any]:
    return {
        # A command that redis-py sends again may have been carried out the first time.
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_timeout,
        # With a timeout of its own, redis-py sends under `asyncio.wait_for`, which loses cancellations
        # before Python 3.12: a tail would not end. Who asks has a deadline anyway.
        "socket_timeout": None,
        "protocol": 2,  # replies have one shape, and no server pushes anything between them
    }


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or _SENTINEL_PORT


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, found, password = parts.netloc.rpartition("@")[0].partition(":")
    given = {"username": unquote(user), "password": unquote(password) if found else ""}
    return {name: value for name, value in given.items() if value}


async def close_client(client: Client) -> None:
    """Close all connections of a client, those to its sentinels included; never fails."""
    pool = client.connection_pool if isinstance(client, Redis) else None
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
    for one in (client, *sentinels):
        try:
            await one.aclose()
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError):
            continue  # it is gone, which is what was wanted


def explain(error: Exception, where: str) -> BrokerError:
    """Say what went wrong in one sentence."""
    # Of a master that no sentinel knows, redis-py describes the whole client that asked.
    text = str(error).partition(" : <")[0] or type(error).__name__
    match error:
        case exceptions.NoPermissionError():
            said = f"expected a user who may do this, got a refusal of {where}: {text}"
        case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
            said = f"expected valid credentials, got a refusal of {where}: {text}"
        case exceptions.BusyLoadingError():
            said = f"expected a server that is ready, got {where}, which is loading its data"
        case exceptions.ReadOnlyError():
            said = f"expected a master, got a read-only replica: {where}"
        case exceptions.OutOfMemoryError():
            said = f"expected memory for another event, got none of {where}: raise maxmemory or keep less ({text})"
        case exceptions.TimeoutError():
            said = f"expected an answer of {where}, got none in time: {text}"
        case exceptions.ConnectionError() | OSError():
            said = f"cannot reach {where}: {text}"
        case _ if "NOAUTH" in text:
            said = f"expected valid credentials, got a refusal of {where}: {text}"
        case _:
            said = f"{where} refused: {text}"
    return BrokerError(said)
