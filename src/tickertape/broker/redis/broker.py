"""The log as a Redis or Valkey stream: for many hubs on many machines.

Every append is one script: idempotency, offsets, the stream entries of a whole batch and the removal of records that
the retention does not keep happen at once or not at all (:mod:`.scripts` describes the keys). Every hub has one
connection that blocks until there are new records, and a few for everything else.

An offset is never given twice under one epoch, whatever happens to the server: :mod:`.fencing` lists which servers
may continue an epoch, and why.

Redis answers when a write is in its memory; ``appendfsync`` says when it is on its disk. With ``always``, a published
event survives every crash; with ``everysec``, the last second may be lost, and the epoch ends then. Under
``maxmemory``, use the policy ``noeviction`` or a ``volatile`` one: the log's keys never expire, but the other policies
would evict them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from redis.exceptions import NoScriptError, RedisClusterException, RedisError, ResponseError

from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..records import OTHERS, LogState, Marks, Page, Record, marks_after, new_epoch
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, RemoteBroker, is_lossless
from ..retention import DEFAULT_RETENTION, MAX_MARKS, Retention
from ..urls import read_seconds
from .client import Client, RedisURL, close_client, translate_error
from .fencing import Binding, Decision, Server, decide, parse_info
from .scripts import APPEND, BIND, DISCARD, PAGE, RULES, STATE, Script

logger = logging.getLogger("tickertape.broker")

_CONNECTIONS: Final = 4
"""Concurrent requests, beside the one that blocks: appends are grouped anyway, reads are short."""

_BLOCK: Final = 1.0
"""Seconds that a tail blocks before it checks its log: Redis does not announce FLUSHALL."""

_BATCH: Final = 500
"""Records that a tail receives at once: with events of a kilobyte, as much as a socket's buffers hold."""

_MOST_REMOVALS: Final = 10_000
"""Records that one append removes: a server is not blocked for seconds after its retention was lowered."""

_STEP: Final = 1_000
"""Records of a discarded topic that one script removes."""

_VERIFY_TIMEOUT: Final = 1.0
"""Seconds to wait for the former master as a replica: after FAILOVER it connects before the clients do."""

_VERIFY_PAUSE: Final = 0.05
"""Seconds between two checks of the replicas."""

_BINDINGS: Final = 10
"""Attempts to bind a log that others bind at the same moment: one of them wins each time."""

_OLDEST_REDIS: Final = (6, 2)
"""The first version with XTRIM MINID."""


class _Log(NamedTuple):
    """A log and its server at one moment. ``binding`` is None if there is no log, ``oldest`` is -1 without a stream."""

    binding: Binding | None
    oldest: int
    dropped: Marks
    complete: bool
    server: Server


class RedisBroker(RemoteBroker):
    """Keep the log in a Redis or Valkey stream.

    Arguments:
        url: see :class:`.client.RedisURL`; ``?prefix=tickertape`` names the log,
            ``?failover=lossless`` promises that no failover and no restart loses records,
            ``?timeout=`` and ``?connect_timeout=`` are seconds.
        retention: the limits of the log; exact as long as one append removes at most 10,000 records.
        connect_timeout: seconds for a connection.
        timeout: seconds for a request.
        random: returns a number from 0 to 1, for the jitter of reconnects.

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
        self._lossless = is_lossless(self._url.options)
        self._connect_timeout = read_seconds(self._url.options, "connect_timeout", connect_timeout)
        self._client = self._url.client(self._connect_timeout)
        self._tails: set[Client] = set()
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        ages: dict[str, int] = {}
        found: dict[str, tuple[int, int, int]] = {}
        for name in (OTHERS, *self._lane_of.names):
            limits = self._lane_of.limits(name)
            age = None if limits.age is None else int(limits.age * 1000)
            ages[name] = _limit(age)
            found[name] = _limit(limits.events), _limit(limits.bytes), _limit(age)
        self._ages = json.dumps(ages, ensure_ascii=False)
        self._limits = (json.dumps(found, ensure_ascii=False), *found[OTHERS])
        self._has_ages = max(ages.values()) >= 0
        self._adopted = ""  # the epoch that knows our rules

    def __repr__(self) -> str:
        return f"<RedisBroker {self._where()} {self._prefix}* seen={self._seen}>"

    def _where(self) -> str:
        return self._url.where

    @property
    def _meta(self) -> str:
        return f"{self._prefix}meta"

    def _log(self, epoch: str) -> str:
        return f"{self._prefix}log:{epoch}"

    def _keys(self, epoch: str) -> str:
        return f"{self._prefix}keys:{epoch}"

    # Requests.

    async def _ask(self, request: Callable[[Client], Awaitable[Any]]) -> Any:
        """Send a request over one of the few connections."""
        async with self._slots:
            self._check_open()
            return await self._answer(request(self._client))

    async def _answer(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except (RedisError, RedisClusterException, OSError) as error:
            raise translate_error(error, self._where()) from error

    async def _run(self, script: Script, keys: Sequence[str], *arguments: str | int | bytes) -> Any:
        async def run(client: Client) -> Any:
            try:
                return await client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await client.eval(script.text, len(keys), *keys, *arguments)

        return await self._ask(run)

    # Fencing.

    async def _fence(self, seen: Cursor) -> LogState:
        for _ in range(_BINDINGS):
            log = await self._look_up()
            binding = log.binding
            decision = await self._decide(log, seen)
            if binding is not None and decision is Decision.KEEP:
                if self._adopted != binding.epoch:
                    await self._run(RULES, [self._meta], self._prefix, *self._lane_of.names)
                    self._adopted = binding.epoch
                if self._has_ages and log.oldest <= binding.newest:
                    await self._store(binding.epoch, ())  # removes records that are too old, also without appends
                return LogState(binding.epoch, log.oldest, binding.newest, log.dropped)
            await self._bind(binding, log.server, keep=decision is Decision.REBIND)
        raise BrokerError(f"the log at {self._where()} changed {_BINDINGS} times while it was opened; giving up")

    async def _look_up(self) -> _Log:
        """Return the log and its server, which must be a master of a version that we know."""
        meta, found, complete, info = await self._run(STATE, [self._meta], self._prefix, self._ages)
        server = parse_info(info.decode())
        if server.role != "master":
            # It was demoted while we were connected. New connections find the current master.
            client, self._client = self._client, self._url.client(self._connect_timeout)
            await close_client(client)
            raise BrokerError(f"{self._where()} is a read-only replica")
        if tuple(int(part) for part in server.version.split(".")[:2] if part.isdigit()) < _OLDEST_REDIS:
            raise BrokerError(f"expected Redis 6.2 or later, got {server.version}: {self._where()}")
        return _Log(_parse_binding(meta), found[0], _parse_marks(found), complete == 1, server)

    async def _decide(self, log: _Log, seen: Cursor) -> Decision:
        binding, server = log.binding, log.server
        durable = binding is not None and binding.replid != server.replid and await self._is_durable()
        complete = log.oldest >= 0 and log.complete
        decision = decide(binding, server, seen, complete=complete, durable=durable, lossless=self._lossless)
        if decision is Decision.VERIFY and binding is not None:
            return Decision.REBIND if await self._was_handed_over(binding, server) else Decision.RENEW
        return decision

    async def _bind(self, binding: Binding | None, server: Server, *, keep: bool) -> None:
        current = binding.epoch if binding is not None else ""
        epoch = current if keep else new_epoch()
        keys = [self._meta, self._log(current), self._keys(current), self._log(epoch), self._keys(epoch)]
        durable = await self._is_durable()
        replid = binding.replid if binding is not None else ""
        bound = await self._run(
            BIND, keys, current, replid, server.replid, epoch, server.run_id, int(durable), self._prefix
        )
        if bound:
            logger.info("%s: the epoch after %s is %s", self._where(), current or "none", epoch)

    async def _is_durable(self) -> bool:
        """Return True if the server writes to its disk before it answers (``appendfsync always``).

        Return False if we may not read its configuration.
        """
        if self._url.cluster:
            return False  # any of the nodes could answer
        try:
            found = await self._ask(lambda client: client.config_get("append*"))
        except BrokerError as error:
            if isinstance(error.__cause__, ResponseError):
                return False
            raise
        return bool(found.get("appendonly") == "yes" and found.get("appendfsync") == "always")

    async def _was_handed_over(self, binding: Binding, master: Server) -> bool:
        """Return True if one of the master's replicas is the process that the log was bound to, and lost nothing."""
        deadline = asyncio.get_running_loop().time() + _VERIFY_TIMEOUT
        while not self._url.cluster:
            for host, port in master.replicas:
                server = await self._ask_replica(host, port)
                if server is not None and server.has_handed_over_to(master, binding):
                    return True
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_VERIFY_PAUSE)
            master = (await self._look_up()).server
        return False

    async def _ask_replica(self, host: str, port: int) -> Server | None:
        """Return a replica's description of itself, or None if it does not answer."""
        replica = self._url.replica(self._client, host, port, _VERIFY_TIMEOUT)
        try:
            async with asyncio.timeout(_VERIFY_TIMEOUT):
                *_, info = await replica.eval(STATE.text, 1, self._meta, self._prefix, self._ages)
            return parse_info(info.decode())
        except (RedisError, OSError, TimeoutError) as error:
            logger.info("cannot reach the replica %s:%d of %s: %s", host, port, self._where(), error)
            return None
        finally:
            await close_client(replica)

    # The log.

    async def _state(self) -> LogState:
        log = await self._look_up()
        if log.binding is None or log.oldest < 0:
            raise self._gone()
        return LogState(log.binding.epoch, log.oldest, log.binding.newest, log.dropped)

    async def _page(self, after: int, limit: int) -> Page:
        found = await self._run(PAGE, [self._meta], self._prefix, after, limit, self._ages)
        if found is None:
            raise self._gone()
        epoch, newest, marks, fields = found
        records = [_record(int(fields[at]), *fields[at + 1 : at + 4]) for at in range(0, len(fields), 4)]
        return Page(LogState(epoch.decode(), marks[0], newest, _parse_marks(marks)), records)

    async def discard(self, topic: str, upto: int) -> None:
        self._check_open()
        lane = self._lane_of(topic)
        removed = 0 if lane == OTHERS else _STEP
        while removed == _STEP:  # appends come in between
            arguments = (self._prefix, topic.encode(), lane.encode(), upto, _STEP, MAX_MARKS)
            removed = await self._request(self._run(DISCARD, [self._meta], *arguments))

    def _gone(self) -> LogResetError:
        return LogResetError(f"there is no log {self._prefix}* any more: {self._where()} was wiped, or evicted a key")

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        arguments: list[bytes] = []
        for draft in drafts:
            arguments += (draft.topic.encode(), _option(draft.event), draft.data.encode(), _option(draft.key))
        lanes = [self._lane_of(draft.topic) for draft in drafts]
        ruled = json.dumps(lanes, ensure_ascii=False) if any(lanes) else ""
        keys = [self._meta, self._log(epoch), self._keys(epoch)]
        fixed = (epoch, self._prefix, _MOST_REMOVALS, *self._limits, ruled)
        offsets: list[int] | None = await self._run(APPEND, keys, *fixed, *arguments)
        return offsets

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        log = self._log(epoch)
        client = self._url.client(self._connect_timeout)
        self._tails.add(client)
        try:
            while not self._closed:
                answer = self._answer(client.xread({log: f"{after}-0"}, count=_BATCH, block=int(_BLOCK * 1000)))
                streams = await self._request(answer, _BLOCK + self._timeout)
                records = [_parse_entry(entry) for entry in streams[0][1]] if streams else []
                if records:
                    after = records[-1].offset
                yield records
        finally:
            self._tails.discard(client)
            await close_client(client)

    async def _release(self) -> None:
        for client in (*self._tails, self._client):
            await close_client(client)


def _parse_binding(meta: Sequence[bytes | None]) -> Binding | None:
    epoch, newest, replid, run_id, durable = ((value or b"").decode() for value in meta[:5])
    return Binding(epoch, int(newest or 0), replid, run_id, durable == "1") if epoch else None


def _parse_marks(found: Sequence[Any]) -> Marks:
    """Return the marks of a description: the oldest offset, the number of marks, the marks, and discarded topics."""
    oldest, count, *pairs = found
    marks = [(pairs[at].decode(errors="replace"), int(float(pairs[at + 1]))) for at in range(0, len(pairs), 2)]
    return marks_after(oldest, sorted(marks[:count]), marks[count:])


def _limit(limit: int | None) -> int:
    return -1 if limit is None else limit


def _option(text: str | None) -> bytes:
    return b"" if text is None else b"+" + text.encode()


def _parse_entry(entry: tuple[bytes, dict[bytes, bytes]]) -> Record:
    name, fields = entry
    return _record(int(name.partition(b"-")[0]), *(fields.get(field, b"") for field in (b"t", b"e", b"d")))


def _record(offset: int, topic: bytes, event: bytes, data: bytes) -> Record:
    """Return a record. Another program may have written bytes that are not UTF-8."""
    kind = event[1:].decode(errors="replace") if event else None
    return Record(offset, topic.decode(errors="replace"), kind, data.decode(errors="replace"))
