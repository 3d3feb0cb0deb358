"""The log in a NATS JetStream stream: for many hubs on many machines, replicated if you ask for it.

JetStream provides a sequence of messages, and refuses a message if another one was stored first
(``Nats-Expected-Last-Sequence``). On any version, that is enough for the whole contract: a broker that
appends names the message after which it does so, and thereby knows the offsets. If it loses the race, it
looks again. A batch is one message, and so are all appends that waited while the last one was stored.
An offset is therefore not the sequence of a message; each broker has an index of the stream in memory, made from the
headers of its messages (:mod:`.index`).

A stream can only drop its oldest messages by itself, so the brokers apply the limits: those of rules, of all other
topics, and topics that are discarded. Their marks are messages, too, stored between those with records: the
order of the stream is the order in which records were dropped. A message stays as long as any of its records is kept,
and is removed after all marks were stored again. So removed messages leave no hole that the marks do not explain.

The epoch is part of the subject of the records. A stream that was deleted and created again does not listen
to the old subject, so nothing is ever published into another epoch by mistake.

JetStream forgets message ids after two minutes. They serve only to recognise a message whose answer was lost.
Keys are known as long as their records are kept, because they are in the index.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from ...errors import BatchTooLargeError, BrokerError, LogResetError
from ...wire import Cursor, Draft
from ..records import OTHERS, LogState, Page, Record
from ..remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, RemoteBroker, epoch_changed
from ..retention import DEFAULT_RETENTION, Retention
from ..urls import choice, read_nats_url
from .connection import ConnectionLost, Inbox, NatsConnection, NoStream
from .index import Entry, Index
from .link import Link
from .messages import Marks, Message, digest, encode, places_of, records_of, sizes_of
from .stream import Extent, NatsStream

logger = logging.getLogger("tickertape.broker")

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

_DELETIONS: Final = 50
"""Messages that are deleted at once."""

_MERGED: Final = 100
"""Marks of discarded topics that are merged at once if they do not fit into a message."""

_LAST: Final = 1.0
"""Seconds, at most, to store the marks when the broker is closed."""

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
        retention: the limits of the log; bytes include those of headers. Readers get exactly what they keep. A
            message stays as long as any of its records is kept, and 250 messages of no use are removed together, so
            the stream may be larger. Its own limit is twice the bytes of all rules and of the other topics.

    A batch must fit into one message of the server (``max_payload``, 1 MiB by default); a larger one
    raises ``BatchTooLargeError``.

    Acknowledged records survive the end of the server's process. JetStream writes to the disk every two
    minutes unless it is configured with ``sync_interval: always``; against a loss of power use that, or three
    replicas. A log that has visibly lost records, or was purged, gets a new epoch, in which keys that were
    published before are unknown.

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
        self._url = read_nats_url(url, {"replicas": _replicas, "storage": choice("file", "memory")})
        options = self._url.options
        super().__init__(retention=retention, timeout=options.get("timeout", timeout), random=random)
        self._stream = self._url.path or "tickertape"
        if not _STREAM.fullmatch(self._stream):
            raise BrokerError(f"expected a stream name of letters, digits, - and _, got {self._stream!r}")
        self._connect_timeout: float = options.get("connect_timeout", connect_timeout)
        self._log = NatsStream(self._stream, retention, options.get("storage", "file"), options.get("replicas", 1))
        self._link: Link | None = None
        self._linking = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._collecting: asyncio.Task[None] | None = None
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
        if self._collecting is not None:
            self._collecting.cancel()
            await asyncio.gather(self._collecting, return_exceptions=True)
        if self._link is not None and self._link.connection.alive and self._log.index.has_trimmed:
            # The next broker may have other limits. If others were faster, their marks follow.
            index = self._log.index
            with suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(_LAST):
                    await self._publish_marks(self._link, index, self._all_marks(index))
        await self._abandon()

    # The state of the log.

    async def open(self) -> LogState:
        while True:  # to read the headers of a long log may take longer than a request
            index, upto = self._log.index, self._log.index.upto
            try:
                return await super().open()
            except BrokerError:
                if self._closed or (self._log.index is index and index.upto == upto):
                    raise

    async def _fence(self, seen: Cursor) -> LogState:
        link = await self._linked()
        extent = await self._prepare(link, seen)
        while not extent.records.knows_rules:
            async with self._publishing:
                await self._publish_marks(link, extent.records, self._all_marks(extent.records))
            extent = await self._prepare(link, seen)
        self._collect_soon(extent.records)
        return extent.state

    async def _prepare(self, link: Link, seen: Cursor) -> Extent:
        """Return the extent of the log, after creating the stream or beginning an epoch if necessary.

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
                await self._log.adjust(link, extent.info)
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
        async with self._publishing:
            return await self._publish(epoch, drafts)

    async def _publish(self, epoch: str, drafts: Sequence[Draft]) -> list[int] | None:
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
                subject = self._log.subject(epoch, "records")
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
                self._add(message)
                return plan.offsets
            plan = None
            await asyncio.sleep(self._random() * _RACE)

    async def _plan(self, link: Link, epoch: str, drafts: Sequence[Draft]) -> _Plan | list[int] | None:
        """Return the message to publish, or the offsets if all keys are known, or ``None`` for another epoch."""
        head = self._head if self._head is not None and self._head.epoch == epoch == self._log.index.epoch else None
        offsets, fresh = ([], []) if head is None else await self._find_offsets(link, head, drafts)
        if head is None or not fresh:
            # Known keys prove nothing about the log as it is now, and nothing will be published that would.
            extent = await self._prepare(link, self._seen)
            if extent.state.epoch != epoch:
                return None
            head = _Head(epoch, extent.records.upto, extent.records.newest)
            offsets, fresh = await self._find_offsets(link, head, drafts)
        if not fresh:
            return offsets
        first = head.newest + 1
        keys = tuple((digest(draft.key), offset) for offset, draft in enumerate(fresh, first) if draft.key is not None)
        place = head.sequence + 1, time.time(), epoch, secrets.token_hex(8), first, len(fresh)
        message = Message(*place, keys, sizes_of(fresh), places_of(fresh, self._lane_of))
        headers, data = encode(message, fresh)
        size = _ENVELOPE + len(data) + sum(len(name) + len(value) for name, value in headers.items())
        if size > self._max_payload:
            raise BatchTooLargeError(size, self._max_payload, f"max_payload of {self._where()}")
        return _Plan(message, headers, data, offsets)

    async def _find_offsets(self, link: Link, head: _Head, drafts: Sequence[Draft]) -> tuple[list[int], list[Draft]]:
        """Return the offsets of all drafts, and the drafts that make new records."""
        index = self._log.index
        await index.catch_up(link, head.sequence)
        here: dict[str, int] = {}
        offsets: list[int] = []
        fresh: list[Draft] = []
        for draft in drafts:
            known = None
            if draft.key is not None:
                known = here.get(draft.key) or index.find(draft.key)
            if known is None:
                fresh.append(draft)
                known = head.newest + len(fresh)
                if draft.key is not None:
                    here[draft.key] = known
            offsets.append(known)
        return offsets, fresh

    def _add(self, message: Message) -> None:
        """Add a message that was stored here to the index."""
        index = self._log.index
        if message.epoch == index.epoch:
            index.follow(message)
            index.trim()
            self._collect_soon(index)
        self._head = _Head(message.epoch, message.sequence, message.newest)

    # Marks.

    async def discard(self, topic: str, upto: int) -> None:
        self._check_open()
        if self._lane_of(topic) != OTHERS:
            await self._request(self._discard(topic, upto))

    async def _discard(self, topic: str, upto: int) -> None:
        async with self._publishing:
            while True:
                try:
                    link = await self._linked()
                    index = (await self._look(link)).records
                    newest = index.newest_of(topic, upto)
                    if not newest or await self._publish_marks(link, index, Marks(False, {}, {topic: newest})):
                        return
                except ConnectionLost:  # the marks may be stored; then there is nothing left to discard
                    continue
                await asyncio.sleep(self._random() * _RACE)

    async def _publish_marks(self, link: Link, index: Index, marks: Marks) -> bool:
        """Store marks; return False if the index is not up to date."""
        place = index.upto + 1, time.time(), index.epoch, secrets.token_hex(8), index.newest + 1, 0
        message = Message(*place, marks=marks)
        headers, data = encode(message, ())
        self._head = None
        stored = await link.publish(self._log.subject(index.epoch, "marks"), data, headers, index.upto)
        if stored:
            self._add(message)
        return stored

    def _collect_soon(self, index: Index) -> None:
        """Remove messages without use in a separate task, if there are many."""
        if index.is_over and not self._closed and (self._collecting is None or self._collecting.done()):
            self._collecting = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        try:
            index = self._log.index
            while index.is_over and index is self._log.index:
                async with self._publishing:
                    link = await self._linked()
                    await self._request(self._look(link))
                    first, unused = index.collect()
                    stored = await self._request(self._publish_marks(link, index, self._all_marks(index)))
                if stored:  # from now on, no reader needs these messages
                    index.put_back(unused)
                    await self._request(link.purge(first))
                    for start in range(0, len(unused), _DELETIONS):
                        deletions = [link.delete(sequence) for sequence in unused[start : start + _DELETIONS]]
                        await self._request(_all(deletions))
                    index.forget(first, unused)
        except BrokerError as error:
            logger.info("removing records from stream %r failed, will try again: %s", self._stream, error)

    def _all_marks(self, index: Index) -> Marks:
        """Return all marks of a log, if necessary fewer ones, so that they fit into a message."""
        marks = index.marks()
        while marks.discarded and len(json.dumps(marks)) > self._max_payload // 2:
            index.merge_marks(_MERGED)
            marks = index.marks()
        return marks

    # Reading.

    async def _page(self, after: int, limit: int) -> Page:
        link = await self._linked()
        for attempt in range(_ATTEMPTS):
            index = (await self._look(link)).records
            state, wanted = index.state(), index.after(after, limit)
            found = await self._fetch(link, state.epoch, wanted) if wanted else []
            if len(found) == len(wanted):
                return Page(state, found)
            # Others have removed records, and their marks follow in the stream; or they were removed by hand.
            if attempt:
                offsets = {record.offset for record in found}
                lost = [entry for entry in wanted if entry.offset not in offsets]
                logger.warning("%d records are missing in stream %r without marks", len(lost), self._stream)
                index.lose(lost)
        raise BrokerError(f"records of stream {self._stream!r} were removed {_ATTEMPTS} times while they were read")

    async def _fetch(self, link: Link, epoch: str, wanted: Sequence[Entry]) -> list[Record]:
        """Return those of the wanted records that are still there."""
        offsets = {entry.offset for entry in wanted}
        found: dict[int, Record] = {}
        last, sequence = wanted[-1].sequence, 0
        async with link.consume(wanted[0].sequence) as inbox:
            while sequence < last:
                messages = await self._take(link, inbox, epoch)
                if not messages:
                    await self._look(link)  # a slow server is waited for, within the timeout of the request
                for message in messages:
                    sequence = message.sequence
                    if message.total:
                        found.update((each.offset, each) for each in records_of(message) if each.offset in offsets)
        return [found[offset] for offset in sorted(found)]

    async def _follow(self, epoch: str, after: int) -> AsyncGenerator[list[Record], None]:
        link = await self._linked()
        extent = await self._prepare(link, self._seen)
        self._check_epoch(epoch, extent.state.epoch)
        index = extent.records
        backlog = index.after(after)
        reader = _Reader(after, index.newest, [entry.offset for entry in backlog])
        async with link.consume(backlog[0].sequence if backlog else index.upto + 1) as inbox:
            stored = 0  # the newest offset that was known before the last look
            while True:
                messages = await self._take(link, inbox, epoch)
                for message in messages:
                    index.follow(message)
                if not messages and reader.position < stored:
                    raise BrokerError(f"records after offset {reader.position} did not arrive: read too slowly")
                yield reader.records_of(messages)
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


class _Reader:
    """The position of a tail. What the limits did not keep when it began is skipped.

    Arguments:
        after: the offset after which it begins.
        newest: the newest offset when it began.
        backlog: the offsets of kept records between both.

    Attributes:
        position: the offset up to which everything was read.
    """

    def __init__(self, after: int, newest: int, backlog: Sequence[int]) -> None:
        self._backlog = deque(backlog)
        self._newest = max(after, newest)
        self.position = after if backlog else self._newest

    def records_of(self, messages: Sequence[Message]) -> list[Record]:
        """Return the next records. Messages that the driver delivers again are skipped.

        Raises:
            BrokerError: a message is missing.
        """
        records: list[Record] = []
        for message in messages:
            if not message.total or message.newest <= self.position:
                continue
            expected = self._backlog[0] if self._backlog else self.position + 1
            if message.first > expected:
                raise BrokerError(f"records after offset {self.position} are gone: they were read too slowly")
            found = records_of(message)
            if message.newest <= self._newest:
                for record in found:
                    if self._backlog and record.offset == self._backlog[0]:
                        records.append(record)
                        self._backlog.popleft()
            else:
                records += (record for record in found if record.offset > self.position)
            self.position = message.newest if self._backlog else max(message.newest, self._newest)
        return records


async def _all(requests: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*requests)


def _replicas(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= _REPLICAS:
        raise ValueError(f"a number from 1 to {_REPLICAS}")
    return int(text)
