"""Plan more connections than one machine holds, from measured figures: ``python -m bench.scale.plan``.

The figures of connections and deliveries are the worst of all steps in docs/scale.json; those of a broker come from
``python -m bench.followers``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..pages import DOCS, replace_section

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

PACKET: Final = 90
"""Bytes that Ethernet, IP and TCP add to each delivery: preamble 8, frame 18, gap 12, IP 20, TCP 32."""

RETRY: Final = 3.0
"""Seconds after which clients reconnect, by default."""

SPREAD: Final = 0.4
"""Each client gets its own time, 20 % more or less, so they return within this share of it."""


class Log(NamedTuple):
    """A broker's server: processor time for an event that it sends to one worker, and of the worker that reads it."""

    server: float
    follower: float


LOGS: Final = {"Redis": Log(32e-6, 157e-6), "NATS": Log(30e-6, 110e-6), "PostgreSQL": Log(337e-6, 323e-6)}
"""The worse of two runs of ``python -m bench.followers``. Events in quick succession share a read, and cost less."""


@dataclass(frozen=True)
class Figures:
    """Measured figures: processor times in seconds, memory in bytes.

    Attributes:
        delivery: processor time for a delivery.
        silent: processor time a second of a connection without events.
        returning: processor time for a client that returns.
        connection: memory of a connection, in its worker and in the kernel.
        worker: memory of a worker without connections.
    """

    delivery: float
    silent: float
    returning: float
    connection: float
    worker: float


def figures(results: Mapping[str, Any]) -> Figures:
    """Return the worst figures of all steps of a run."""
    rows = results["measured"]
    return Figures(
        delivery=max(row["delivery"] for row in rows),
        silent=max(row["silent"] / row["connections"] for row in rows),
        returning=max(max(row["connect"], row["return_cost"]) for row in rows),
        connection=max(row["connection_memory"] for row in rows) + max(row["kernel_memory"] for row in rows),
        worker=max(
            (row["workers_memory"] - row["connection_memory"] * row["connections"]) / row["workers"] for row in rows
        ),
    )


@dataclass(frozen=True)
class Demand:
    """The work, and the machines that are available.

    Attributes:
        connections: all connections.
        events: events a second that each connection gets.
        published: events a second in the log; each worker reads all of them.
        log: the broker, by the names of :data:`LOGS`.
        size: bytes of a delivery, with the framing of the format and of HTTP.
        cores, memory, network: of one node, in bytes and in bits a second.
        held: most connections of a worker; its descriptors must suffice, and a full garbage collection visits all.
        use: the share of cores, memory and network that may be in use.
        waiting: memory for the output of clients that stopped reading, for each connection.
        window: memory for events in each worker (``retention_bytes``).
        drain: seconds over which a node that stops spreads its clients (``drain_window``).
    """

    connections: int
    events: float = 1.0
    published: float = 10.0
    log: str = "Redis"
    size: int = 153
    cores: int = 8
    memory: float = 32 * GIB
    network: float = 10e9
    held: int = 40_000
    use: float = 0.5
    waiting: float = 3 * KIB
    window: float = 64 * MIB
    drain: float = 60.0


class Plan(NamedTuple):
    """The answer: limits of a node in connections, and what follows.

    Attributes:
        limits: the most connections of a node, by what limits them.
        nodes: the nodes, one of which may be lost.
        each: connections of a node, while all of them serve.
        after_loss: connections of a node after the loss of another.
        memory: bytes of memory that a node uses.
        network: bits a second that a node sends.
        round: seconds of all its cores to deliver one event to all its connections.
        storm: seconds of all cores of the other nodes to accept the clients of a lost node.
        retry: seconds of ``retry`` that spread their return so that the free cores suffice.
        everyone: seconds of all cores to accept all clients, after the network or all nodes were away.
        arrivals: clients a second that connect to the other nodes while a node drains.
        workers: the workers of all nodes, which follow the log.
        broker: cores of the broker's server that sends the log to them.
    """

    limits: dict[str, int]
    nodes: int
    each: int
    after_loss: int
    memory: float
    network: float
    round: float
    storm: float
    retry: float
    everyone: float
    arrivals: float
    workers: int
    broker: float


def plan(demand: Demand, measured: Figures) -> Plan:
    """Return the nodes for a demand, and the load of each."""
    second = demand.events * measured.delivery + measured.silent
    bits = demand.events * (demand.size + PACKET) * 8
    space = demand.memory * demand.use - demand.cores * (measured.worker + demand.window)
    held = measured.connection + demand.waiting
    limits = {
        "CPU": int(demand.cores * max(0.0, demand.use - demand.published * LOGS[demand.log].follower) / second),
        "memory": int(max(0.0, space) / held),
        "network": int(demand.network * demand.use / bits) if bits else demand.connections,
        "workers": demand.cores * demand.held,
    }
    most = min(limits.values())
    if most < 1:
        raise ValueError(
            "expected a node with room for a connection: more memory, a smaller window, or fewer events in a log"
        )
    nodes = math.ceil(demand.connections / most) + 1
    each = math.ceil(demand.connections / nodes)
    workers = nodes * demand.cores
    storm = each * measured.returning / (demand.cores * (nodes - 1))
    return Plan(
        limits=limits,
        nodes=nodes,
        each=each,
        after_loss=math.ceil(demand.connections / (nodes - 1)),
        memory=each * held + demand.cores * (measured.worker + demand.window),
        network=each * bits,
        round=each * measured.delivery / demand.cores,
        storm=storm,
        retry=max(RETRY, storm / (SPREAD * (1 - demand.use))),
        everyone=demand.connections * measured.returning / workers,
        arrivals=each / demand.drain,
        workers=workers,
        broker=workers * demand.published * LOGS[demand.log].server,
    )


EXAMPLES: Final = (
    Demand(100_000),
    Demand(1_000_000),
    Demand(1_000_000, events=0.1),
    Demand(10_000_000),
    Demand(10_000_000, events=0.1),
)


def table(demands: Sequence[Demand], measured: Figures) -> str:
    """Return the plans of some demands in Markdown, a column for each."""
    plans = [plan(demand, measured) for demand in demands]
    rows = {
        "events a second of each connection": [f"{demand.events:.2g}" for demand in demands],
        "**nodes**, one of them spare": [f"**{found.nodes:,}**" for found in plans],
        "limited by": [min(found.limits, key=lambda name: found.limits[name]) for found in plans],
        "connections of a node": [f"{found.each:,}" for found in plans],
        "after the loss of one": [f"{found.after_loss:,}" for found in plans],
        "GiB of memory in use": [f"{found.memory / GIB:.1f}" for found in plans],
        "Gbit/s of a node": [f"{found.network / 1e9:.2f}" for found in plans],
        "s for an event to all": [f"{found.round:.2f}" for found in plans],
        "s of all cores for the return of a lost node's clients": [f"{found.storm:.1f}" for found in plans],
        "`retry` for it": [f"{math.ceil(found.retry)}" for found in plans],
        "s of all cores if all clients return": [f"{found.everyone:.1f}" for found in plans],
        "clients a second that move while a node drains": [f"{found.arrivals:,.0f}" for found in plans],
        "workers that follow the log": [f"{found.workers:,}" for found in plans],
        "cores of the broker": [f"{found.broker:.2f}" for found in plans],
    }
    lines = ["| connections | " + " | ".join(f"{demand.connections:,}" for demand in demands) + " |"]
    lines.append("|---|" + "---:|" * len(demands))
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def constants(measured: Figures) -> str:
    """Return the measured figures in Markdown."""
    rows = {
        "`delivery`": f"{measured.delivery * 1e6:.1f} µs",
        "`silent`": f"{measured.silent * 1e6:.1f} µs a second",
        "`returning`": f"{measured.returning * 1e6:.0f} µs",
        "`connection`": f"{measured.connection / KIB:.1f} KiB",
        "`worker`": f"{measured.worker / MIB:.0f} MiB",
        "`log.server`": _each("server"),
        "`log.follower`": _each("follower"),
    }
    lines = [f"| {name} | {MEANINGS[name]} | {text} |" for name, text in rows.items()]
    return "| | processor time or memory | measured |\n|---|---|---:|\n" + "\n".join(lines) + "\n"


def _each(name: str) -> str:
    return ", ".join(f"{log} {getattr(figure, name) * 1e6:.0f} µs" for log, figure in LOGS.items())


MEANINGS: Final = {
    "`delivery`": "for a delivery, in the worker and the kernel",
    "`silent`": "of a connection without events: heartbeats, and checking the log",
    "`returning`": "for a client that returns with its `Last-Event-ID`, five events behind",
    "`connection`": "of a connection, in the worker and in the kernel",
    "`worker`": "of a worker without connections and events",
    "`log.server`": "of the broker's server, for an event that it sends to one worker",
    "`log.follower`": "of a worker, for an event that it reads",
}


def markdown(results: Mapping[str, Any]) -> str:
    """Return the section of the page."""
    measured = figures(results)
    nodes = f"Nodes of {EXAMPLES[0].cores} cores, {EXAMPLES[0].memory / GIB:.0f} GiB and"
    given = f"{nodes} {EXAMPLES[0].network / 1e9:.0f} Gbit/s, and {EXAMPLES[0].published:g} events a second in Redis:\n"
    return "\n".join([constants(measured), given, table(EXAMPLES, measured)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale.plan", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the examples into docs/")
    parser.add_argument("--connections", type=int, help="plan these; by default the examples of the page")
    kinds = {"events": float, "published": float, "size": int, "cores": int, "memory": float, "network": float}
    kinds |= {"held": int, "use": float, "waiting": float, "window": float, "drain": float}
    for name, kind in kinds.items():
        parser.add_argument(
            f"--{name}", type=kind, default=getattr(Demand, name), help=f"default {getattr(Demand, name):g}"
        )
    parser.add_argument("--log", choices=LOGS, default=Demand.log)
    options = parser.parse_args()
    results = json.loads((DOCS / "scale.json").read_text("utf-8"))
    if options.connections is None:
        text = markdown(results)
        if options.write:
            replace_section(DOCS / "operations" / "planning.md", "plan", text)
    else:
        demand = Demand(options.connections, log=options.log, **{name: getattr(options, name) for name in kinds})
        text = table([demand], figures(results))
    print(text)


if __name__ == "__main__":
    main()
