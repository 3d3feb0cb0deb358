"""Which servers may go on with an epoch: decided here, without I/O.

An offset that is given to two different records under one epoch makes clients skip events, silently and
for ever. Redis replicates asynchronously and may restart with less than it had, so it does happen that a
server has fewer records than were shown to subscribers. What *this* process has seen is no proof of the
contrary: another hub may have shown more, and be gone. So an epoch is bound to one life of the data set,
Redis' replication id, which changes whenever a server starts and whenever a replica is promoted. An
append happens only under the replication id to which the epoch is bound (the script itself looks), and
an epoch goes on under another id only if nothing can have been lost:

======================================================  =====================================================
what the server is                                      the epoch
======================================================  =====================================================
the same replication id: a connection was lost          goes on
the same process, and not promoted: a master takes      goes on
another id when its first replica comes, and when it
has had none for an hour
restarted, and every answer was on its disk before      goes on: ``appendfsync always`` when the epoch was
it was given                                            bound, and now
promoted, and the master before has become its          goes on: the master before, the same process, has
replica without a full copy                             the new id, and its own as the one before. It
                                                        could not have joined so with one record more
promoted otherwise; restarted otherwise                 ends, with the records that are there kept
the meta or the stream is gone (FLUSHALL, eviction)     ends
it has fewer records than this process has seen         ends
the URL says ``failover=lossless``                      goes on in all cases but the last two
======================================================  =====================================================

The fourth case is a planned failover (the command ``FAILOVER``). What no server can tell: that it was a
replica and is restarted *as a master* instead of being promoted; that it runs on a restored backup, under
``appendfsync always``; that it was demoted and promoted again more than an hour ago, while no hub at all
was there to see it. Delete ``{prefix}:meta`` when you do one of these.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from ...wire import Cursor

__all__ = ["Bond", "Server", "Verdict", "judge", "parse_info"]

_NONE: Final = "0" * 40
"""What Redis gives for a second replication id when there is none."""


class Bond(NamedTuple):
    """What the log's meta says: the epoch, its newest offset, and the server that it is bound to."""

    epoch: str
    newest: int
    replid: str
    run_id: str
    durable: bool


class Server(NamedTuple):
    """What a server says of itself.

    Attributes:
        role: ``master`` or ``slave``.
        replid: the replication id.
        before: the one it had before it was promoted, or joined a promoted one; all zeros for none.
        run_id: the process.
        version: of Redis.
        linked: whether a replica is in touch with its master.
        replicas: the addresses of its replicas.
    """

    role: str
    replid: str
    before: str
    run_id: str
    version: str
    linked: bool
    replicas: tuple[tuple[str, int], ...]

    @property
    def promoted(self) -> bool:
        return self.before != _NONE

    def continues(self, bond: Bond, master: Server) -> bool:
        """Whether this is the process that the log was bound to, now a replica of ``master`` that lost nothing."""
        return (
            self.run_id == bond.run_id
            and self.role == "slave"
            and self.linked
            and self.replid == master.replid
            and self.before == bond.replid
        )


class Verdict(enum.Enum):
    """What becomes of the epoch."""

    KEEP = "the log goes on"
    REBIND = "the log goes on, on another server"
    PROVE = "the log goes on if the master before is a replica that lost nothing"
    RENEW = "another epoch begins"


def parse_info(text: str) -> Server:
    """Read the sections ``replication`` and ``server`` of Redis' INFO."""
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
        before=fields.get("master_replid2", _NONE),
        run_id=fields.get("run_id", ""),
        version=fields.get("redis_version", ""),
        linked=fields.get("master_link_status") == "up",
        replicas=tuple(replicas),
    )


def judge(bond: Bond | None, server: Server, seen: Cursor, *, complete: bool, durable: bool, lossless: bool) -> Verdict:
    """Decide what becomes of the epoch on ``server``.

    Arguments:
        bond: what the log is bound to; ``None`` if there is no log.
        server: the one that answers now.
        seen: the newest record that this process has shown to anyone.
        complete: whether the log's stream is there.
        durable: whether the server answers only when what it stored is on its disk.
        lossless: whether the operator promises that no failover and no restart loses a record.
    """
    if bond is None or not complete or (seen.epoch == bond.epoch and seen.offset > bond.newest):
        return Verdict.RENEW
    if server.replid == bond.replid:
        return Verdict.KEEP
    unharmed = server.run_id == bond.run_id or (bond.durable and durable)
    if lossless or (unharmed and not server.promoted):
        return Verdict.REBIND
    return Verdict.PROVE if server.before == bond.replid else Verdict.RENEW
