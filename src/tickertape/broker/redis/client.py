"""Redis clients made from a URL (one server, Sentinel's master, a cluster), and their errors as sentences."""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from ...errors import BrokerError

Client: TypeAlias = "Redis | RedisCluster"

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
"""Our schemes, and redis-py's names for them."""

_MODES: Final = ("", "sentinel", "cluster", "unix")

_SENTINEL_PORT: Final = 26379

_OPTIONS: Final = ("prefix", "failover", "connect_timeout", "timeout", "sentinel_username", "sentinel_password")
"""Our options in the query. All others are redis-py's."""


class RedisURL:
    """A checked URL that makes clients.

    Arguments:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://`` for TLS, ``redis+unix:///path?db=0``,
            ``redis+sentinel://[[user]:password@]host[:port],…/service[/db]``, ``redis+cluster://host[:port]``.

    Attributes:
        options: our options of the query.
        cluster: True if the URL is that of a cluster.
        where: the server in words, without credentials.

    Raises:
        BrokerError: the URL is none of these.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        scheme, _, mode = parts.scheme.partition("+")
        if scheme not in _SCHEMES or mode not in _MODES or (mode == "unix" and scheme != "redis"):
            raise BrokerError(
                f"expected a URL like redis://host, redis+sentinel://… or redis+cluster://…, got {parts.scheme}:"
            )
        query = parse_qsl(parts.query, keep_blank_values=True)
        self.options = {name: value for name, value in query if name in _OPTIONS}
        self.cluster = mode == "cluster"
        self._mode = mode
        rest = urlencode([(name, value) for name, value in query if name not in _OPTIONS])
        self._parts = parts._replace(scheme="unix" if mode == "unix" else _SCHEMES[scheme], query=rest)
        self._hosts = parts.netloc.rpartition("@")[2]
        self.where = f"Redis at {self._hosts or parts.path}"

    def client(self, connect_timeout: float) -> Client:
        """Return a client that connects when it is used, and waits for answers until it is cancelled.

        Arguments:
            connect_timeout: seconds for a connection.

        Raises:
            BrokerError: redis-py refuses the URL or one of its options.
        """
        try:
            client = self._client(_options(connect_timeout))
            if isinstance(client, Redis):
                pool: Any = client.connection_pool
                pool.connection_class(**pool.connection_kwargs)  # redis-py checks its options here, without I/O
        except (TypeError, ValueError, exceptions.RedisError, exceptions.RedisClusterException) as error:
            raise BrokerError(f"expected the URL of a Redis server: {error}") from None
        return client

    def _client(self, options: dict[str, Any]) -> Client:
        if self._mode == "sentinel":
            return self._sentinel_client(options)
        if self._mode == "cluster":
            return RedisCluster.from_url(self._parts.geturl(), **options)
        return Redis.from_url(self._parts.geturl(), **options)

    def replica(self, client: Client, host: str, port: int, timeout: float) -> Redis:
        """Return a client of a replica of the server that ``client`` is connected to, with the same credentials."""
        known = client.connection_pool.connection_kwargs if isinstance(client, Redis) else {}
        names = ("username", "password", *(name for name in known if name.startswith("ssl")))
        options = {name: known[name] for name in names if name in known}
        tls = self._parts.scheme == "rediss"
        return Redis(host=host, port=port, ssl=tls, **_options(timeout), **options)

    def _sentinel_client(self, options: dict[str, Any]) -> Redis:
        service, _, db = self._parts.path.strip("/").partition("/")
        sentinels = [_address(host) for host in self._hosts.split(",") if host]
        if not service or not sentinels:
            raise ValueError("expected redis+sentinel://host[:port],…/service[/db]")
        if self._parts.query:
            raise ValueError(f"redis-py's options cannot be used with Sentinel, got {self._parts.query!r}")
        credentials = {name.removeprefix("sentinel_"): self.options.get(name) for name in _OPTIONS[-2:]}
        if self._parts.scheme == "rediss":
            options["ssl"] = True
        make: Any = Sentinel  # redis-py does not annotate it
        sentinel = make(sentinels, sentinel_kwargs={**options, **credentials})
        client: Redis = sentinel.master_for(service, db=int(db or 0), **options, **_credentials(self._parts))
        return client


def _options(connect_timeout: float) -> dict[str, Any]:
    return {
        # A command that redis-py repeats may have been executed the first time.
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_timeout,
        # With its own timeout, redis-py sends under `asyncio.wait_for`, which loses cancellations
        # before Python 3.12: a tail would not end. Each request has a deadline anyway.
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
    """Close all connections of a client, including those to its sentinels; never fails."""
    pool = client.connection_pool if isinstance(client, Redis) else None
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
    for one in (client, *sentinels):
        try:
            await one.aclose()
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError):
            continue  # the connection was lost already


def translate_error(error: Exception, where: str) -> BrokerError:
    """Return redis-py's error as a ``BrokerError`` with one sentence."""
    # Of a master that no sentinel knows, redis-py describes the whole client.
    text = str(error).partition(" : <")[0] or type(error).__name__
    match error:
        case exceptions.NoPermissionError():
            sentence = f"permission denied by {where}: {text}"
        case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
            sentence = f"{where} rejected the credentials: {text}"
        case exceptions.BusyLoadingError():
            sentence = f"{where} is still loading its data"
        case exceptions.ReadOnlyError():
            sentence = f"{where} is a read-only replica"
        case exceptions.OutOfMemoryError():
            sentence = f"{where} is out of memory: raise maxmemory or lower the retention"
        case exceptions.TimeoutError():
            sentence = f"no answer from {where} in time: {text}"
        case exceptions.ConnectionError() | OSError():
            sentence = f"cannot reach {where}: {text}"
        # Errors within a script keep their class only in later versions of Redis.
        case _ if "OOM " in text:
            sentence = f"{where} is out of memory: raise maxmemory or lower the retention"
        case _ if "MISCONF" in text:
            sentence = f"{where} cannot write to its disk: free space there, or see its log ({text})"
        case _ if "NOREPLICAS" in text:
            sentence = f"{where} has fewer replicas than min-replicas-to-write requires"
        case _ if "NOAUTH" in text:
            sentence = f"{where} rejected the credentials: {text}"
        case _:
            sentence = f"{where} refused the request: {text}"
    return BrokerError(sentence)
