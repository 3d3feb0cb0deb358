"""``nats_subject``: messages of NATS, as they are published or from a JetStream stream."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from ..broker import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT, extra_needed, read_nats_url
from ..errors import BrokerError
from ..hub import Batch

_SUBJECT: Final = re.compile(r"[^\s.]+(\.[^\s.]+)*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class NatsMessage(NamedTuple):
    """A message of NATS.

    Attributes:
        subject: the subject to which it was published.
        data: its payload.
        headers: its headers.
        sequence: its number in its stream; ``None`` without JetStream.
        key: distinguishes it from all others, even from those of a later stream of the same name. Without
            JetStream, the ``Nats-Msg-Id`` that its publisher set, or ``None``.
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

    **With a durable name**, it reads the JetStream stream that holds the subject through a durable consumer, which
    starts with the oldest message that is kept. A message is acknowledged when it is in the log. If it is not
    acknowledged, it is delivered again after the consumer's ``ack_wait`` of 30 seconds, and its key makes it
    appear once. Hubs that read with the same durable name share the messages.

    **Without a durable name**, it reads the messages published while it listens, as always in NATS without JetStream.
    Messages that are published while the connection is lost are lost, and so are messages that come faster than
    they are stored; a warning reports those. Such messages have no key (``hub.feed(…, key=None)``), unless
    their publishers set a ``Nats-Msg-Id``. Several hubs would each publish every message, unless they share them
    with ``queue=``.

    Arguments:
        url: ``nats://host:4222``, with ``user:password@`` or ``token@``, several servers between
            commas, or ``nats+tls://``; ``?creds=`` names a file of credentials, ``?timeout=`` and
            ``?connect_timeout=`` are seconds.
        subject: the subject; ``*`` stands for one token, ``>`` for all that follow.
        durable: the name of the durable consumer, which is created if necessary.
        stream: the name of a stream that is created if no stream holds the subject. It keeps 1 GiB; for anything
            else, create the stream yourself.
        queue: without a durable name, the name under which several hubs share the messages.

    Raises:
        BrokerError: the URL is wrong, or nats-py is missing: ``pip install 'tickertape[nats]'``.
        ValueError: NATS does not accept a name, or two arguments exclude each other.
    """
    with extra_needed("nats", "nats"):
        from .subjects import SubjectReader
    address = read_nats_url(url, {})
    if address.path:
        raise BrokerError(f"expected a URL such as nats://host:4222, got one with the path {address.path!r}")
    if not _SUBJECT.fullmatch(subject):
        raise ValueError(f"expected a subject of tokens between dots, got {subject!r}")
    for what, name in (("durable", durable), ("stream", stream), ("queue", queue)):
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(f"expected {what} to be a name of letters, digits, - and _, got {name!r}")
    if durable is None and stream is not None:
        raise ValueError("stream= needs a durable name: durable=")
    if durable is not None and queue is not None:
        raise ValueError("pass durable= or queue=, not both: hubs with one durable name share the messages")

    async def read() -> AsyncGenerator[Batch[NatsMessage], None]:
        reader = SubjectReader(address, address.options.get("timeout", DEFAULT_TIMEOUT))
        try:
            await reader.connect(address.options.get("connect_timeout", DEFAULT_CONNECT_TIMEOUT))
            if durable is None:
                batches = reader.follow(subject, queue or "")
                prefix = None
            else:
                found, prefix = await reader.find_stream(subject, stream)
                batches = reader.pull(found, subject, durable)
            async with aclosing(batches):
                async for messages in batches:
                    yield Batch(_convert(message, prefix) for message in messages)
        finally:
            await reader.close()

    return NatsSubject(read, f"{subject!r} durable={durable!r}")


class NatsSubject:
    """A source of :class:`NatsMessage` in batches, returned by :func:`nats_subject`.

    If the connection is lost, it raises ``BrokerError``. A feed then reads it again.
    """

    def __init__(self, read: Callable[[], AsyncGenerator[Batch[NatsMessage], None]], shown: str) -> None:
        self._read = read
        self._shown = shown

    def __repr__(self) -> str:
        return f"<NatsSubject {self._shown}>"

    def __aiter__(self) -> AsyncGenerator[Batch[NatsMessage], None]:
        return self._read()


def _convert(message: Any, prefix: str | None) -> NatsMessage:
    headers: dict[str, str] = message.headers or {}
    if prefix is None:
        return NatsMessage(message.subject, message.data, headers, None, headers.get("Nats-Msg-Id"))
    sequence = message.metadata.sequence.stream
    return NatsMessage(message.subject, message.data, headers, sequence, f"{prefix}-{sequence}")
