"""The log in a NATS JetStream stream: for many hubs on many machines, replicated if you ask for it.

JetStream provides a sequence of messages, and refuses a message if another one was stored first
(``Nats-Expected-Last-Sequence``). On any version, that is enough for the whole contract: a broker that
appends names the message after which it does so, and thereby knows the offsets. If it loses the race, it
looks again. A batch is one message, and so are all appends that waited while the last one was stored.
An offset is therefore not the sequence of a message; it is found by bisection.

The epoch is part of the subject of the records. A stream that was deleted and created again does not listen
to the old subject, so nothing is ever published into another epoch by mistake.

JetStream forgets message ids after two minutes. They serve only to recognise a message whose answer was lost.
Keys are known as long as their records are kept: each broker that publishes with keys holds them in
memory (:mod:`.keys`).
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, NamedTuple

from ...errors import BatchTooLargeError, BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..records import LogState, Page, Record
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, RemoteBroker, epoch_changed
from ..retention import DEFAULT_RETENTION, Retention
from ..urls import choice, read_nats_url
from .connection import ConnectionLost, Inbox, NatsConnection, NoStream
from .link import Link
from .messages import Message, digest, encode, records_of
from .stream import Extent, NatsStream

_LOOK: Final = 1.0
"""Seconds of silence after which a tail checks whether its log is still there."""

_ATTEMPTS: Final = 5
"""Times that a stream is repaired while others delete it or reset it."""

_DELETED: Final = 0.1
"""Seconds that a stream must be missing before it is created. NATS 2.9 confirms a deletion before it removes the
directory, and would remove a new stream of the same name with it."""

_RACE: Final = 0.002
"""Seconds, at most, until a publisher that lost the race tries again."""

_ENVELOPE: Final = 400
"""Bytes of a message that are neither data nor our own headers, at most."""

_GROUP_SHARE: Final = 6
"""A group of appends may take this part of a message, by our estimate: characters may take up to six bytes."""

_REPLICAS: Final = 5
"""JetStream keeps no more copies of a stream."""

_STREAM: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class _Head(NamedTuple):
    """The end of the log: the sequence of the last message and the newest offset."""

    epoch: str
    sequence: int
    newest: int


class _Plan(NamedTuple):
    """A message to publish at its sequence, and the offsets of all drafts, known keys included."""

    message: Message
    headers: dict[str, str]
    data: bytes
    offsets: list[int]


class NatsBroker(RemoteBroker):
    """Keep the log in a JetStream stream.

    Arguments:
        url: ``nats://host:4222/stream``, with ``user:password@`` or ``token@``, several servers between
            commas, or ``nats+tls://``. ``?replicas=3`` and ``?storage=memory`` apply when the stream is created;
            ``?creds=`` names a file of credentials, ``?timeout=`` and ``?connect_timeout=`` are seconds.
        retention: the limits of the log. Records and bytes become the stream's own limits of messages and
            of bytes with headers, so a log of many batches may hold more records for a
            while; those are skipped. Records over the limit of age are removed by every broker that has the log
            open, so that the last message, which holds the newest offset, stays.

    A batch must fit into one message of the server (``max_payload``, 1 MiB by default); a larger one
    raises ``BatchTooLargeError``.

    Acknowledged records survive the end of the server's process. JetStream writes to the disk every two
    minutes unless it is configured with ``sync_interval: always``; against a loss of power use that, or three
    replicas. A log that has visibly lost records, or was purged, gets a new epoch, in which keys that were
    published before are unknown.

    Raises:
        BrokerError: the URL is wrong, or the retention has rules for topics. The rules for runs are not applied.
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
        self._url = read_nats_url(url, {"replicas": _replicas, "storage": choice("file", "memory")})
        options = self._url.options
        super().__init__(retention=retention, timeout=options.get("timeout", timeout), random=random)
        if retention.topics:
            # A message holds records of any topics, and a stream drops its oldest message.
            raise BrokerError("NATS keeps all topics by the same limits: expected a retention without topics")
        self._stream = self._url.path or "tickertape"
        if not _STREAM.fullmatch(self._stream):
            raise BrokerError(f"expected a stream name of letters, digits, - and _, got {self._stream!r}")
        self._connect_timeout: float = options.get("connect_timeout", connect_timeout)
        self._log = NatsStream(self._stream, retention, options.get("storage", "file"), options.get("replicas", 1))
        self._link: Link | None = None
        self._linking = asyncio.Lock()
        self._head: _Head | None = None
        self._max_payload = 0

    def __repr__(self) -> str:
        return f"<NatsBroker {self._url.hosts}/{self._stream} seen={self._seen}>"

    def _where(self) -> str:
        return f"NATS at {self._url.hosts}"

    # Connecting.

    async def _linked(self) -> Link:
        async with self._linking:
            self._check_open()
            if self._link is None or not self._link.connection.alive:
                self._head = None  # an append whose answer was lost may have moved it
                connection = NatsConnection(self._url, 2 * self._timeout)  # the broker's own timeout comes first
                await connection.connect(self._connect_timeout)
                if self._closed:
                    await connection.close()
                self._check_open()
                self._link = Link(connection, self._stream)
                self._max_payload = int(connection.client.max_payload)
                self._group.max_size = self._max_payload // _GROUP_SHARE
            return self._link

    async def _abandon(self) -> None:
        if self._link is not None:
            await self._link.connection.close()

    async def _release(self) -> None:
        await self._abandon()

    # The state of the log.

    async def _fence(self, seen: Cursor) -> LogState:
        return (await self._prepare(await self._linked(), seen)).state

    async def _prepare(self, link: Link, seen: Cursor) -> Extent:
        """Return the extent of the log, after creating the stream, beginning an epoch or trimming it if necessary.

        Arguments:
            link: the connection.
            seen: the newest record that was shown before this call; a log without it has lost records.
        """
        for _ in range(_ATTEMPTS):
            extent = await self._log.survey(link)
            if extent is None:
                await asyncio.sleep(_DELETED)
                if await link.info() is None:
                    await self._log.create(link)
            elif extent.purged or (seen.epoch == extent.state.epoch and extent.state.newest < seen.offset):
                await self._log.begin_epoch(link, extent)
            else:
                await self._log.adjust(link, extent)
                return extent
        raise BrokerError(f"stream {self._stream!r} was reset {_ATTEMPTS} times while it was opened; giving up")

    async def _state(self) -> LogState:
        return (await self._look(await self._linked())).state

    async def _look(self, link: Link) -> Extent:
        """Return the extent of the log, and change nothing.

        Raises:
            LogResetError: the stream was deleted or purged.
        """
        extent = await self._log.survey(link)
        if extent is None or extent.purged:
            raise LogResetError(f"there is no log in the stream {self._stream!r} any more")
        return extent

    # Appending.

    async def _store(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
        """Append drafts in one message, and return their offsets.

        ============================================  =====================================================
        failure                                       action
        ============================================  =====================================================
        another publisher was first                   plan again, after up to 2 ms
        the stream is missing or has another epoch    return ``None``: the caller opens the log again
        the connection is lost before the answer      connect and publish the same message again at the same
                                                      place: the server recognises its id
        the batch does not fit into a message         raise ``BatchTooLargeError``
        the server refuses, or cannot be reached      raise ``BrokerError``
        no answer in time                             the caller raises ``BrokerError`` and abandons the link
        ============================================  =====================================================
        """
        plan: _Plan | None = None
        repeated = False
        while True:
            try:
                link = await self._linked()
                if plan is None:
                    planned = await self._plan(link, epoch, drafts)
                    if not isinstance(planned, _Plan):
                        return planned
                    plan, repeated = planned, False
                self._head = None  # unknown until the answer
                message = plan.message
                subject = self._log.subject(epoch, "keyed" if message.keys else "plain")
                stored = await link.publish(subject, plan.data, plan.headers, message.sequence - 1)
                if not stored and repeated:
                    found = await link.get(message.sequence)
                    stored = found is not None and found.id == message.id
            except ConnectionLost:
                repeated = True
                continue
            except NoStream:
                info = await link.info()
                if info is None or self._log.read_epoch(info) != epoch:
                    return None
                raise
            if stored:
                self._log.keys.append(message.sequence - 1, message)
                self._head = _Head(epoch, message.sequence, message.newest)
                return plan.offsets
            plan = None
            await asyncio.sleep(self._random() * _RACE)

    async def _plan(self, link: Link, epoch: str, drafts: Sequence[Draft]) -> _Plan | list[int] | None:
        """Return the message to publish, or the offsets if all keys are known, or ``None`` for another epoch."""
        head = self._head if self._head is not None and self._head.epoch == epoch else None
        offsets, fresh = ([], []) if head is None else await self._find_offsets(link, head, drafts)
        if head is None or not fresh:
            # Known keys prove nothing about the log as it is now, and nothing will be published that would.
            extent = await self._prepare(link, self._seen)
            if extent.state.epoch != epoch:
                return None
            head = _Head(epoch, extent.last, extent.state.newest)
            offsets, fresh = await self._find_offsets(link, head, drafts)
        if not fresh:
            return offsets
        first = head.newest + 1
        keys = tuple((digest(draft.key), offset) for offset, draft in enumerate(fresh, first) if draft.key is not None)
        message = Message(head.sequence + 1, 0.0, epoch, secrets.token_hex(8), first, len(fresh), keys, b"")
        headers, data = encode(message, fresh)
        size = _ENVELOPE + len(data) + sum(len(name) + len(value) for name, value in headers.items())
        if size > self._max_payload:
            raise BatchTooLargeError(size, self._max_payload, f"max_payload of {self._where()}")
        return _Plan(message, headers, data, offsets)

    async def _find_offsets(self, link: Link, head: _Head, drafts: Sequence[Draft]) -> tuple[list[int], list[Draft]]:
        """Return the offsets of all drafts, and the drafts that make new records."""
        if any(draft.key is not None for draft in drafts):
            await self._log.keys.read_up_to(link, head.sequence)
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

    # Reading.

    async def _page(self, after: int, limit: int) -> Page:
        link = await self._linked()
        extent = await self._look(link)
        epoch, oldest, newest, _ = extent.state
        start = max(after, oldest - 1)
        if start >= newest or limit < 1:
            return Page(extent.state, [])
        records: list[Record] = []
        async with link.consume(await self._log.locate(link, extent, start)) as (inbox, _):
            while len(records) < limit and (not records or records[-1].offset < newest):
                messages = await self._take(link, inbox, epoch)
                if not messages:
                    await self._look(link)  # a slow server is waited for, within the timeout of the request
                    continue
                records += _records_after(messages, records[-1].offset if records else start, trimmed=not records)
        records = records[:limit]
        self._log.remember(message for message in messages if message.newest == records[-1].offset)
        # Others may have appended, and the stream may have been trimmed, while it was read.
        if records[0].offset > start + 1:
            oldest = records[0].offset
        return Page(LogState(epoch, oldest, max(newest, records[-1].offset)), records)

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        link = await self._linked()
        extent = await self._prepare(link, self._seen)
        self._check_epoch(epoch, extent.state.epoch)
        async with link.consume(await self._log.locate(link, extent, after)) as (inbox, _):
            stored = 0  # the newest offset that was known before the last look
            while True:
                messages = await self._take(link, inbox, epoch)
                if not messages and after < stored:
                    raise BrokerError(f"records after offset {after} did not arrive: they were read too slowly")
                records = _records_after(messages, after)
                after = records[-1].offset if records else after
                yield records
                stored = self._seen.offset if self._seen.epoch == epoch else 0

    async def _take(self, link: Link, inbox: Inbox[Message], epoch: str) -> list[Message]:
        """Return the next messages; check that they belong to the epoch if any was published under another one."""
        messages = await inbox.take(_LOOK)
        if any(message.epoch != epoch for message in messages):
            info = await link.info()
            self._check_epoch(epoch, None if info is None else self._log.read_epoch(info))
        return messages

    def _check_epoch(self, expected: str, epoch: str | None) -> None:
        if epoch != expected:
            raise epoch_changed(expected, epoch)


def _records_after(messages: Sequence[Message], after: int, *, trimmed: bool = False) -> list[Record]:
    """Return the records after an offset.

    Arguments:
        messages: messages in order, perhaps with some that the driver delivered again.
        after: the offset.
        trimmed: True if the first of them may have been trimmed.

    Raises:
        BrokerError: a message is missing.
    """
    records: list[Record] = []
    for message in messages:
        if message.newest > after:
            if message.first > after + 1 and not (trimmed and not records):
                raise BrokerError(f"records after offset {after} were dropped: they were read too slowly")
            records += (record for record in records_of(message) if record.offset > after)
            after = message.newest
    return records


def _replicas(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _REPLICAS:
        raise ValueError(f"a number from 1 to {_REPLICAS}")
    return int(text)
