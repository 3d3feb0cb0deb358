"""The log as a NATS JetStream stream: for many hubs on many machines, and replicated if asked for.

What JetStream gives is a sequence of messages, and that a message is refused if another one came
first (``Nats-Expected-Last-Sequence``). That is enough for the whole contract, on any version: whoever
appends says behind which message, and so knows the offsets; whoever loses the race looks, and tries
again. A batch, and all that waited while the last one was stored, is one message; :mod:`.nats_messages`
says what becomes of longer ones. So an offset is not the message's sequence, but is found from it by
bisection.

The epoch is part of the subject that records are published to. A stream that was deleted and made
again does not listen to the old subject: nothing can be published into another life by mistake.

JetStream forgets message ids after two minutes. Here they serve only to tell whether a message whose
answer was lost is stored. Keys are known as long as their records are kept: each broker that
publishes with keys holds them in memory (:mod:`.nats_keys`).
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from ...errors import BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..options import choice, nats_credentials, read_options, seconds, server_urls
from ..protocol import DEFAULT_RETENTION, Retention
from ..records import LogState, Record
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, RemoteBroker
from .link import Link, NoStream
from .messages import ID, Assembly, encode, parse
from .stream import NatsStream

__all__ = ["NatsBroker"]

_LOOK: Final = 1.0
"""Seconds of silence after which a tail looks whether its log is still there."""

_ATTEMPTS: Final = 50
"""Times that a stream which changes under our hands is looked at again."""

_PAUSE: Final = 0.02
"""Seconds before that: its last message was trimmed just now, or (NATS 2.9) cannot be read yet in a new stream."""

_DELETED: Final = 0.1
"""Seconds for which there must be no stream until it is made: a server (seen of NATS 2.9) that was told to delete
it says so first, and then removes its directory, together with what a new stream of that name has put there."""

_UNFINISHED: Final = 0.05
"""Seconds for which the next part of someone else's batch is waited for, before it is taken as given up."""

_RACE: Final = 0.002
"""Seconds, at most, until a publisher that was not the first tries again."""

_REPLICAS: Final = 5
"""JetStream keeps no more copies of a stream."""

_STREAM: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class _Head(NamedTuple):
    """The end of the stream: the last message's sequence, and the log's newest offset."""

    sequence: int
    newest: int


class NatsBroker(RemoteBroker):
    """Keep the log in a JetStream stream.

    Arguments:
        url: ``nats://host:4222/stream``, with ``user:password@`` or ``token@``, several servers between
            commas, or ``tls://``. ``?replicas=3`` and ``?storage=memory`` count when the stream is made;
            ``?creds=`` names a file of credentials, ``?timeout=`` and ``?connect_timeout=`` are seconds.
        retention: how much is kept. Records and bytes become the stream's own limits, of messages and of
            bytes with their headers, and so a log that all publish to in batches may hold more records
            for a while, which are passed over. By age records are removed by whoever has the log
            open, so that the last message, which says where the log is, stays.

    What was acknowledged survives the end of the server's process. JetStream writes to the disk every
    two minutes unless it is told ``sync_interval: always``; against a loss of power use that, or three
    replicas. A log that has visibly lost records, or was purged, gets another epoch, under which keys
    that were published before are not known.

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
        options = read_options(
            url,
            {
                "connect_timeout": seconds,
                "creds": str,
                "replicas": _replicas,
                "storage": choice("file", "memory"),
                "timeout": seconds,
            },
        )
        super().__init__(retention=retention, timeout=options.get("timeout", timeout), random=random)
        parts = urlsplit(url)
        self._stream = unquote(parts.path[1:]) or "tickertape"
        if not _STREAM.fullmatch(self._stream):
            raise BrokerError(f"expected a stream name of letters, digits, - and _, got {self._stream!r}")
        self._servers, self._hosts = server_urls(url)
        if not self._servers:
            raise BrokerError("expected nats://host:4222/stream, got a URL without a host")
        self._credentials = nats_credentials(url, options)
        self._connect_timeout: float = options.get("connect_timeout", connect_timeout)
        self._log = NatsStream(self._stream, retention, options.get("storage", "file"), options.get("replicas", 1))
        self._link: Link | None = None
        self._linking = asyncio.Lock()
        self._head: tuple[str, _Head] | None = None  # with the epoch that it is about

    def __repr__(self) -> str:
        return f"<NatsBroker {self._hosts}/{self._stream} epoch={self._current} seen={self._seen.offset}>"

    def _where(self) -> str:
        return f"NATS at {self._hosts}"

    # Connecting.

    async def _linked(self) -> Link:
        async with self._linking:
            self._check_open()
            if self._link is None or not self._link.alive:
                # What the stream's end was before is not what it is now: answers may have been lost.
                self._head = None
                link = Link(self._stream, 0.8 * self._timeout)
                await link.connect(self._servers, self._connect_timeout, **self._credentials)
                if self._closing.is_set():
                    await link.close()
                self._check_open()
                self._link = link
            return self._link

    async def _release(self) -> None:
        if self._link is not None:
            await self._link.close()

    # The state of the stream.

    async def _establish(self, seen: Cursor) -> LogState:
        link = await self._linked()
        missing = False
        for _ in range(_ATTEMPTS):
            info = await link.info()
            if info is None:
                if missing:
                    await self._log.create(link)
                else:
                    missing = True
                    await asyncio.sleep(_DELETED)
                continue
            epoch = self._log.read_epoch(info)
            self._log.enter(epoch)
            state = await self._log.survey(link, info, epoch)
            if state is None:
                await asyncio.sleep(_PAUSE)
                continue
            if state.newest < 0 or (seen.epoch == epoch and state.newest < seen.offset):
                await self._log.begin_epoch(link, info)
                continue
            await self._log.adjust(link, info)
            return state
        raise BrokerError(f"expected a stream {self._stream!r} that stays itself for a moment, got one that does not")

    # Appending.

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        while True:
            link = await self._linked()
            head = await self._find_head(link, epoch)
            if head is None:
                return None
            offsets, fresh = await self._plan(link, head, drafts)
            if not fresh:
                # Known keys tell nothing about the log as it is now.
                state = await self._establish(self._seen)
                if state.epoch != epoch:
                    return None
                if min(offsets) >= state.oldest:
                    return offsets
                continue
            try:
                if await self._publish(link, epoch, head, fresh):
                    return offsets
            except NoStream:
                info = await link.info()
                if info is None or self._log.read_epoch(info) != epoch:
                    return None
                raise
            await asyncio.sleep(self._random() * _RACE)

    async def _find_head(self, link: Link, epoch: str) -> _Head | None:
        """Return the stream's end, ``None`` if it has another epoch."""
        if self._head is not None and self._head[0] == epoch:
            return self._head[1]
        waited = -1
        for _ in range(_ATTEMPTS):
            info = await link.info()
            if info is None or self._log.read_epoch(info) != epoch:
                return None
            self._log.enter(epoch)
            last = info.state.last_seq
            if not info.state.messages:
                return _Head(last, 0) if (await self._establish(self._seen)).epoch == epoch else None
            message = await self._log.message(link, last)
            if message is None:
                await asyncio.sleep(_PAUSE)
                continue
            if message.complete or waited == last:
                return _Head(last, message.newest)
            waited = last
            await asyncio.sleep(_UNFINISHED)
        raise BrokerError(f"expected a turn to append to the stream {self._stream!r}, got none in {_ATTEMPTS} looks")

    async def _plan(self, link: Link, head: _Head, drafts: Sequence[Draft]) -> tuple[list[int], list[Draft]]:
        """Return the offsets of all drafts, and those that are to be stored."""
        if any(draft.key is not None for draft in drafts):
            await self._log.keys.reach(link, head.sequence)
        here: dict[str, int] = {}
        offsets: list[int] = []
        fresh: list[Draft] = []
        for draft in drafts:
            known = None
            if draft.key is not None:
                known = here.get(draft.key) or self._log.keys.find(draft.key)
            if known is None:
                fresh.append(draft)
                known = head.newest + len(fresh)
                if draft.key is not None:
                    here[draft.key] = known
            offsets.append(known)
        return offsets, fresh

    async def _publish(self, link: Link, epoch: str, head: _Head, drafts: list[Draft]) -> bool:
        """Store drafts behind the stream's end; tell whether that was still its end."""
        self._head = None  # what becomes of it is not known if this is cancelled
        name = secrets.token_hex(8)
        last = head.sequence
        for headers, data in encode(name, head.newest + 1, drafts, link.max_payload):
            message = parse(last + 1, 0.0, headers, b"")
            subject = self._log.subject(epoch, "keyed" if message.keys else "plain")
            if not await self._publish_part(link, subject, data, headers, last):
                return False
            last += 1
        self._log.keys.append(head.sequence, message)
        self._head = epoch, _Head(last, head.newest + len(drafts))
        return True

    async def _publish_part(self, link: Link, subject: str, data: bytes, headers: dict[str, str], last: int) -> bool:
        try:
            stored = (await link.publish(subject, data, headers, last)).sequence
        except NoStream:
            raise
        except BrokerError:
            # The answer was lost with the connection: what is stored there now tells which it was.
            if link.alive:
                raise
            link = await self._linked()
            stored = (await link.publish(subject, data, headers, last)).sequence
        if stored is None:
            found = await link.get(last + 1)
            return found is not None and found.id == headers[ID]
        return stored == last + 1

    # Reading.

    async def _page(self, epoch: str, after: int, limit: int) -> list[Record]:
        link = await self._linked()
        state = await self._establish(self._seen)
        self._check_epoch(epoch, state.epoch)
        after = max(after, state.oldest - 1)
        if after >= state.newest:
            return []
        records: list[Record] = []
        async with link.consume(await self._log.locate(link, after)) as feed:
            assembly = Assembly()
            while len(records) < limit and (not records or records[-1].offset < state.newest):
                messages = await feed.take(_LOOK)
                if not messages:
                    raise BrokerError(f"expected records behind offset {after}, got none of {self._where()}")
                for message in messages:
                    records += (record for record in assembly.add(message) if record.offset > after)
        return records[:limit]

    def _check_epoch(self, expected: str, epoch: str) -> None:
        if epoch != expected:
            raise LogResetError(f"expected the log {expected}, got {epoch}: it was wiped, or may have lost records")

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        link = await self._linked()
        self._check_epoch(epoch, (await self._establish(self._seen)).epoch)
        expected = 0
        silent = False
        async with link.consume(await self._log.locate(link, after)) as feed:
            assembly = Assembly()
            while True:
                messages = await feed.take(_LOOK)
                if not messages:
                    if silent and self._seen.epoch == epoch and self._seen.offset > after:
                        raise BrokerError(f"expected records behind offset {after}, got none of {self._where()}")
                    silent = self._seen.epoch == epoch and self._seen.offset > after
                    yield []
                    continue
                silent = False
                records: list[Record] = []
                for message in messages:
                    if expected and message.sequence != expected:
                        raise BrokerError(f"expected message {expected}, got {message.sequence}: read too slowly")
                    expected = message.sequence + 1
                    records += (record for record in assembly.add(message) if record.offset > after)
                if records:
                    after = records[-1].offset
                    yield records


def _replicas(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _REPLICAS:
        raise ValueError(f"a number from 1 to {_REPLICAS}")
    return int(text)
