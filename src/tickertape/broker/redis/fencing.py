"""Decide, without I/O, whether a server may continue an epoch.

If an offset is assigned to two different records under one epoch, clients skip events silently. Redis
replicates asynchronously and may restart with less than it had, so a server may have fewer records than subscribers
have. The records that *this* process has seen prove nothing: another hub may have shown more and be gone. So
an epoch is bound to one history of the data set: to Redis' replication id, which changes whenever a server starts or a
replica is promoted. An append happens only under the replication id to which the epoch is bound (the script checks
it), and an epoch continues under another id only if nothing can have been lost:

======================================================  =====================================================
the server                                              the epoch
======================================================  =====================================================
has the same replication id: a connection was lost      continues
is the same process, and was not promoted: a master     continues
takes a new id when its first replica connects, and
when it had none for an hour
restarted, and every answer was on its disk before      continues: ``appendfsync always`` when the epoch was
it was given                                            bound, and now
was promoted, and the former master is now its          continues: the former master, the same process, has
replica without a full copy                             the new id, and its own as the previous one. With one
                                                        record more it could not have connected like that
was promoted otherwise; restarted otherwise             ends, and its records are kept
lost the meta, the stream or idempotency keys           ends
(FLUSHALL, eviction, DEL)
has fewer records than this process has seen            ends
is reached by a URL with ``failover=lossless``          continues in all cases but the two above
======================================================  =====================================================

The fourth case is a planned failover (the command ``FAILOVER``). A server does not show that it was a replica and was
restarted *as a master* instead of being promoted, that it runs on a restored backup under ``appendfsync always``, or
that it was demoted and promoted again more than an hour ago while no hub was running. Delete ``{prefix}:meta`` if you
do one of these.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from ...wire import Cursor

_NONE: Final = "0" * 40
"""The second replication id of a server that has none."""


class Binding(NamedTuple):
    """The epoch, its newest offset, and the server that it is bound to, as the log's meta has them."""

    epoch: str
    newest: int
    replid: str
    run_id: str
    durable: bool


class Server(NamedTuple):
    """A server, as it describes itself.

    Attributes:
        role: ``master`` or ``slave``.
        replid: the replication id.
        previous: the replication id before it was promoted, or before it joined a promoted server; all zeros for none.
        run_id: the process.
        version: of Redis.
        linked: True if a replica is connected to its master.
        replicas: the addresses of its replicas.
    """

    role: str
    replid: str
    previous: str
    run_id: str
    version: str
    linked: bool
    replicas: tuple[tuple[str, int], ...]

    @property
    def promoted(self) -> bool:
        return self.previous != _NONE

    def has_handed_over_to(self, master: Server, binding: Binding) -> bool:
        """Return True if this is the bound process, now a replica of ``master`` that lost nothing."""
        return (
            self.run_id == binding.run_id
            and self.role == "slave"
            and self.linked
            and self.replid == master.replid
            and self.previous == binding.replid
        )


class Decision(enum.Enum):
    """The treatment of the epoch."""

    KEEP = "the epoch continues"
    REBIND = "the epoch continues on another server"
    VERIFY = "the epoch continues if the former master is a replica that lost nothing"
    RENEW = "a new epoch begins"


def parse_info(text: str) -> Server:
    """Parse the sections ``replication`` and ``server`` of Redis' INFO."""
    fields: Mapping[str, str] = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    replicas = []
    for name, value in fields.items():
        if name.startswith("slave") and name[5:].isdigit():
            # ip=127.0.0.1,port=6380,state=online,offset=42,lag=0
            replica = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
            replicas.append((replica.get("ip", ""), int(replica.get("port", 0))))
    return Server(
        role=fields.get("role", ""),
        replid=fields.get("master_replid", ""),
        previous=fields.get("master_replid2", _NONE),
        run_id=fields.get("run_id", ""),
        version=fields.get("redis_version", ""),
        linked=fields.get("master_link_status") == "up",
        replicas=tuple(replicas),
    )


def decide(
    binding: Binding | None, server: Server, seen: Cursor, *, complete: bool, durable: bool, lossless: bool
) -> Decision:
    """Decide what happens to the epoch on ``server``.

    Arguments:
        binding: the log's meta; ``None`` if there is no log.
        server: the server that answers now.
        seen: the newest record that this process has shown to anyone.
        complete: True if the log's stream and all its idempotency keys are there.
        durable: True if the server answers only when a write is on its disk.
        lossless: True if the operator promises that no failover and no restart loses a record.
    """
    if binding is None or not complete or (seen.epoch == binding.epoch and seen.offset > binding.newest):
        return Decision.RENEW
    if server.replid == binding.replid:
        return Decision.KEEP
    unharmed = server.run_id == binding.run_id or (binding.durable and durable)
    if lossless or (unharmed and not server.promoted):
        return Decision.REBIND
    return Decision.VERIFY if server.previous == binding.replid else Decision.RENEW
