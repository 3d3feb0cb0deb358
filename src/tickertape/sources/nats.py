"""``nats_subject``: messages of NATS, as they are published or from a JetStream stream."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from ..broker.options import extra_needed, nats_credentials, read_options, seconds, server_urls
from ..broker.remote import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT
from ..errors import BrokerError
from ..hub import Batch

__all__ = ["NatsMessage", "NatsSubject", "nats_subject"]

logger = logging.getLogger("tickertape.sources")

_LOOK: Final = 10.0
"""Seconds after which lost messages are told of, when no more come."""

_SUBJECT: Final = re.compile(r"[^\s.]+(\.[^\s.]+)*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class NatsMessage(NamedTuple):
    """A message of NATS.

    Attributes:
        subject: where it was published.
        data: its payload.
        headers: its headers.
        sequence: its number in its stream; ``None`` without JetStream.
        key: tells it from all others, also of a stream of the same name that was made later. Without
            JetStream, the ``Nats-Msg-Id`` that its publisher gave it, or ``None``.
    """

    subject: str
    data: bytes
    headers: Mapping[str, str]
    sequence: int | None
    key: str | None


def nats_subject(
    url: str, subject: str, *, durable: str | None = None, stream: str | None = None, queue: str | None = None
) -> NatsSubject:
    """Return a source of the messages of a subject.

    ::

        hub.feed(
            lambda message: message.subject.replace(".", "/"),
            nats_subject("nats://localhost:4222", "orders.*", durable="hub"),
            name="orders", key="key", data=lambda message: message.data,
        )

    **With a durable name** it reads a JetStream stream, which must hold the subject, through a durable
    consumer, which begins with the oldest message that is kept. A message is acknowledged when it
    is in the log; what is not acknowledged is delivered again, after the consumer's ``ack_wait`` of
    30 seconds, and its key makes it appear once. Hubs that read with the same durable name share
    the messages.

    **Without** it gets what is published while it listens, as all of NATS that is not JetStream: what
    comes while the connection is lost is gone, and so is what comes faster than it is stored,
    of which a warning tells. Such messages have no key (``hub.feed(…, key=None)``), unless
    their publishers give them a ``Nats-Msg-Id``; several hubs would publish each message once each,
    unless they share them: ``queue=``.

    Arguments:
        url: ``nats://host:4222``, with ``user:password@`` or ``token@``, several servers between
            commas, or ``tls://``; ``?creds=`` names a file of credentials, ``?timeout=`` and
            ``?connect_timeout=`` are seconds.
        subject: which; ``*`` stands for one token, ``>`` for all that follow.
        durable: the name of the durable consumer; it is made if there is none.
        stream: a name under which a stream is made if none holds the subject. It keeps 1 GiB; for
            anything else, make it yourself.
        queue: without a durable name, the one under which several hubs share the messages.

    Raises:
        BrokerError: the URL is wrong, or nats-py is missing: ``pip install 'tickertape[nats]'``.
        ValueError: a name is none that NATS takes, or arguments do not go together.
    """
    with extra_needed("nats", "nats"):
        from ..broker.nats.subjects import SubjectLink
    options = read_options(url, {"connect_timeout": seconds, "creds": str, "timeout": seconds})
    servers, _ = server_urls(url)
    if not servers or urlsplit(url).path.strip("/"):
        raise BrokerError("expected nats://host:4222, got a URL without a host, or with a path")
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(f"expected a subject of tokens between dots, got {subject!r}")
    for what, name in (("durable", durable), ("stream", stream), ("queue", queue)):
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(f"expected a name of letters, digits, - and _ for {what}, got {name!r}")
    if durable is None and stream is not None:
        raise ValueError("expected a durable name with a stream, got none: durable=")
    if durable is not None and queue is not None:
        raise ValueError("expected a durable name or a queue, got both: hubs with one durable name share the messages")
    connect_timeout = options.get("connect_timeout", DEFAULT_CONNECT_TIMEOUT)
    credentials = nats_credentials(url, options)

    async def connect() -> SubjectLink:
        link = SubjectLink(options.get("timeout", DEFAULT_TIMEOUT))
        await link.connect(servers, connect_timeout, **credentials)
        return link

    return NatsSubject(connect, subject, durable, stream, queue)


class NatsSubject:
    """A source of :class:`NatsMessage`, in batches; made by :func:`nats_subject`.

    A connection that is lost raises ``BrokerError``: a feed reads this anew then.
    """

    def __init__(self, connect: Any, subject: str, durable: str | None, stream: str | None, queue: str | None) -> None:
        self._connect = connect
        self._subject = subject
        self._durable = durable
        self._stream = stream
        self._queue = queue

    def __repr__(self) -> str:
        return f"<NatsSubject {self._subject!r} durable={self._durable!r}>"

    async def __aiter__(self) -> AsyncGenerator[Batch[NatsMessage], None]:
        link = await self._connect()
        try:
            messages = self._follow(link) if self._durable is None else self._pull(link, self._durable)
            async with aclosing(messages):
                async for batch in messages:
                    yield batch
        finally:
            await link.close()

    async def _follow(self, link: Any) -> AsyncGenerator[Batch[NatsMessage], None]:
        told = 0
        async with link.follow(self._subject, self._queue or "") as feed:
            while True:
                messages = await feed.take(_LOOK)
                if link.lost > told:
                    logger.warning("lost %d messages of %s: they came too fast", link.lost - told, self._subject)
                    told = link.lost
                if messages:
                    yield Batch(_read(message) for message in messages)

    async def _pull(self, link: Any, durable: str) -> AsyncGenerator[Batch[NatsMessage], None]:
        life = await link.find_stream(self._subject, self._stream)
        async with link.pull(self._subject, durable) as pulled, aclosing(pulled):
            async for messages in pulled:
                yield Batch(_read(message, life) for message in messages)
                for message in messages:  # stored: what comes behind a `yield` is an acknowledgement
                    await message.ack()


def _read(message: Any, life: str | None = None) -> NatsMessage:
    headers: dict[str, str] = message.headers or {}
    sequence = key = None
    if life is None:
        key = headers.get("Nats-Msg-Id")
    else:
        sequence = message.metadata.sequence.stream
        key = f"{life}-{sequence}"
    return NatsMessage(message.subject, message.data, headers, sequence, key)
