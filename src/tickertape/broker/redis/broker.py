"""The log as a Redis or Valkey stream: for many hubs on many machines.

Every append is one script: idempotency, offsets, the stream entries of a whole batch and the removal of
what the retention does not keep happen at once or not at all (:mod:`.redis_scripts` says how it is laid
out). Every hub has one connection on which it blocks for what is new, and a few for everything else.

An offset is never given twice under one epoch, whatever happens to the server: :mod:`.redis_fencing`
says which servers may go on with an epoch, and why.

What Redis answers is in its memory, and on its disk as soon as its ``appendfsync`` says: with
``always`` an event that was published survives every crash, with ``everysec`` it may be lost with the
last second, which then ends the epoch. Under ``maxmemory``, use the policy ``noeviction``, or one of
the ``volatile`` ones: the log's keys never expire, but the other policies would evict them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..options import read_seconds
from ..protocol import DEFAULT_RETENTION, Retention
from ..records import LogState, Record, new_epoch
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, RemoteBroker, promises_lossless
from .client import Client, RedisURL, close_client, explain
from .fencing import Bond, Server, Verdict, judge, parse_info
from .scripts import APPEND, BIND, STATE, Script

__all__ = ["RedisBroker"]

logger = logging.getLogger("tickertape.broker")

_CONNECTIONS: Final = 4
"""Requests under way at once, beside the one that blocks: appends go together anyway, reads are short."""

_BLOCK: Final = 1.0
"""Seconds that a tail blocks before it looks whether its log is still there: nobody tells it about FLUSHALL."""

_BATCH: Final = 500
"""Records that a tail takes at once: with events of a kilobyte, what a socket's buffers hold."""

_MOST_REMOVALS: Final = 10_000
"""Records that one append removes: a server whose retention was lowered is not stopped for seconds."""

_PROOF: Final = 1.0
"""Seconds to wait for the master before as a replica: after FAILOVER it is there before the clients are."""

_PROOF_PAUSE: Final = 0.05
"""Seconds between two looks at the replicas."""

_BINDINGS: Final = 10
"""Times that a log is bound anew when others bind it at the same moment: one of them wins each time."""

_OLDEST_REDIS: Final = (6, 2)
"""XTRIM MINID came with it."""


class RedisBroker(RemoteBroker):
    """Keep the log in a Redis or Valkey stream.

    Arguments:
        url: see :class:`.redis_client.RedisURL`; ``?prefix=tickertape`` names the log,
            ``?failover=lossless`` promises that no failover and no restart loses records,
            ``?timeout=`` and ``?connect_timeout=`` are seconds.
        retention: how much is kept; exact as long as one append removes at most 10,000 records.
        connect_timeout: seconds for a connection.
        timeout: seconds for an answer.
        random: gives numbers from 0 to 1, for the jitter of reconnects.

    Raises:
        BrokerError: the URL is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        retention: Retention = DEFAULT_RETENTION,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        timeout: float = DEFAULT_TIMEOUT,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._url = RedisURL(url)
        timeout = read_seconds(self._url.options, "timeout", timeout)
        super().__init__(retention=retention, timeout=timeout, random=random)
        prefix = self._url.options.get("prefix", "tickertape")
        if not prefix or "{" in prefix or "}" in prefix:
            raise BrokerError(f"expected a prefix without braces, got {prefix!r}")
        self._prefix = "{" + prefix + "}:"
        self._lossless = promises_lossless(self._url.options)
        self._connect_timeout = read_seconds(self._url.options, "connect_timeout", connect_timeout)
        self._client: Client | None = None
        self._tails: set[Client] = set()
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        limits = (retention.events, retention.bytes, None if retention.age is None else int(retention.age * 1000))
        self._limits = [*(-1 if limit is None else limit for limit in limits), _MOST_REMOVALS]

    def __repr__(self) -> str:
        return f"<RedisBroker {self._where()} {self._prefix}* epoch={self._current} seen={self._seen.offset}>"

    def _where(self) -> str:
        return self._url.where

    def _log(self, epoch: str) -> str:
        return f"{self._prefix}log:{epoch}"

    def _keys(self, epoch: str) -> str:
        return f"{self._prefix}keys:{epoch}"

    # Asking the server.

    async def _ask(self, request: Callable[[Client], Awaitable[Any]]) -> Any:
        """Ask on one of the few connections."""
        async with self._slots:
            self._check_open()
            if self._client is None:
                self._client = self._url.client(self._connect_timeout)
            return await self._answer(request(self._client))

    async def _answer(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except (RedisError, RedisClusterException, OSError) as error:
            raise explain(error, self._where()) from error

    async def _run(self, script: Script, keys: Sequence[str], *arguments: str | int | bytes) -> Any:
        async def run(client: Client) -> Any:
            try:
                return await client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await client.eval(script.text, len(keys), *keys, *arguments)

        return await self._ask(run)

    # Which epoch it is.

    async def _establish(self, seen: Cursor) -> LogState:
        for _ in range(_BINDINGS):
            meta, kept, info = await self._run(STATE, [f"{self._prefix}meta"], f"{self._prefix}log:")
            server = parse_info(info.decode())
            await self._check_server(server)
            bond = _parse_bond(meta)
            verdict = await self._judge(bond, server, seen, complete=kept >= 0)
            if bond is not None and verdict is Verdict.KEEP:
                return await self._trimmed(LogState(bond.epoch, bond.newest - kept + 1, bond.newest))
            await self._bind(bond, server, keep=verdict is Verdict.REBIND)
        raise BrokerError(f"expected a log that stays itself for a moment, got another one {_BINDINGS} times in a row")

    async def _judge(self, bond: Bond | None, server: Server, seen: Cursor, *, complete: bool) -> Verdict:
        if bond is not None and bond.replid == server.replid:
            return judge(bond, server, seen, complete=complete, durable=False, lossless=self._lossless)
        durable = bond is not None and await self._is_durable()
        verdict = judge(bond, server, seen, complete=complete, durable=durable, lossless=self._lossless)
        if verdict is Verdict.PROVE and bond is not None:
            return Verdict.REBIND if await self._is_continued(bond, server) else Verdict.RENEW
        return verdict

    async def _check_server(self, server: Server) -> None:
        if server.role != "master":
            # It was demoted under our connections; new ones find who is the master now.
            client, self._client = self._client, None
            if client is not None:
                await close_client(client)
            raise BrokerError(f"expected a master, got a read-only replica: {self._where()}")
        if tuple(int(part) for part in server.version.split(".")[:2] if part.isdigit()) < _OLDEST_REDIS:
            raise BrokerError(f"expected Redis 6.2 or later, got {server.version}: {self._where()}")

    async def _bind(self, bond: Bond | None, server: Server, *, keep: bool) -> None:
        before = bond.epoch if bond is not None else ""
        epoch = before if keep else new_epoch()
        keys = [f"{self._prefix}meta", self._log(before), self._keys(before), self._log(epoch), self._keys(epoch)]
        durable = await self._is_durable()
        replid = bond.replid if bond is not None else ""
        bound = await self._run(BIND, keys, before, replid, server.replid, epoch, server.run_id, int(durable))
        if bound:
            logger.info("%s: the log %s goes on as %s", self._where(), before or "(none)", epoch)

    async def _is_durable(self) -> bool:
        """Whether the server answers only when what it stored is on its disk; if it may not say so, it does not."""
        if self._url.cluster:
            return False  # the question would go to any of the nodes
        try:
            said = await self._ask(lambda client: client.config_get("append*"))
        except BrokerError as error:
            if isinstance(error.__cause__, ResponseError):
                return False
            raise
        return bool(said.get("appendonly") == "yes" and said.get("appendfsync") == "always")

    async def _is_continued(self, bond: Bond, master: Server) -> bool:
        """Whether one of the master's replicas is the process that the log was bound to, and lost nothing."""
        deadline = asyncio.get_running_loop().time() + _PROOF
        while self._client is not None and not self._url.cluster:
            for host, port in master.replicas:
                replica = self._url.replica(self._client, host, port, _PROOF)
                try:
                    async with asyncio.timeout(_PROOF):
                        _, _, info = await replica.eval(STATE.text, 1, f"{self._prefix}meta", f"{self._prefix}log:")
                    if parse_info(info.decode()).continues(bond, master):
                        return True
                except (RedisError, OSError, TimeoutError) as error:
                    logger.info("cannot ask the replica %s:%d of %s: %s", host, port, self._where(), error)
                finally:
                    await close_client(replica)
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_PROOF_PAUSE)
            _, _, info = await self._run(STATE, [f"{self._prefix}meta"], f"{self._prefix}log:")
            master = parse_info(info.decode())
        return False

    # The log.

    async def _trimmed(self, state: LogState) -> LogState:
        """Remove what is too old, even if nobody appends."""
        if self._retention.age is None or state.oldest > state.newest:
            return state
        if await self._store(state.epoch, ()) is None:
            return state
        _, kept, _ = await self._run(STATE, [f"{self._prefix}meta"], f"{self._prefix}log:")
        return state._replace(oldest=max(state.oldest, state.newest - kept + 1))

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        arguments: list[bytes] = []
        for draft in drafts:
            arguments += (draft.topic.encode(), _option(draft.event), draft.data.encode(), _option(draft.key))
        keys = [f"{self._prefix}meta", self._log(epoch), self._keys(epoch)]
        offsets: list[int] | None = await self._run(APPEND, keys, epoch, *self._limits, *arguments)
        return offsets

    async def _page(self, epoch: str, after: int, limit: int) -> list[Record]:
        if self._retention.age is not None:
            await self._store(epoch, ())
        log = self._log(epoch)
        entries = await self._ask(lambda client: client.xrange(log, min=f"{after + 1}-0", count=limit))
        if not entries and (await self._ask(lambda client: client.exists(log))) == 0:
            raise LogResetError(f"expected the log {epoch}, got one that was wiped or begun anew")
        return [_record(entry) for entry in entries]

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        log = self._log(epoch)
        client = self._url.client(self._connect_timeout)
        self._tails.add(client)
        try:
            while not self._closing.is_set():
                asked = client.xread({log: f"{after}-0"}, count=_BATCH, block=int(_BLOCK * 1000))
                streams = await self._in_time(self._answer(asked), "waiting for events", _BLOCK + self._timeout)
                records = [_record(entry) for entry in streams[0][1]] if streams else []
                if records:
                    after = records[-1].offset
                yield records
        finally:
            self._tails.discard(client)
            await close_client(client)

    async def _release(self) -> None:
        clients = [*self._tails] if self._client is None else [*self._tails, self._client]
        self._client = None
        for client in clients:
            await close_client(client)


def _parse_bond(meta: Sequence[bytes | None]) -> Bond | None:
    epoch, newest, replid, run_id, durable = ((value or b"").decode() for value in meta)
    return Bond(epoch, int(newest or 0), replid, run_id, durable == "1") if epoch else None


def _option(text: str | None) -> bytes:
    return b"" if text is None else b"+" + text.encode()


def _record(entry: tuple[bytes, dict[bytes, bytes]]) -> Record:
    name, fields = entry
    event = fields[b"e"]
    return Record(
        int(name.partition(b"-")[0]),
        fields[b"t"].decode(),
        event[1:].decode() if event else None,
        fields[b"d"].decode(),
    )
