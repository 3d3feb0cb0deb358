"""Measure the field, and write its tables and charts: ``python -m bench.field``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from ..pages import DOCS, HOME, machine
from ..reader import Reader, compile_reader
from .measure import Measured, Plan, StormFailed, measure, storm
from .peers import PEERS, Absent, Peer
from .report import write


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.field", description=__doc__)
    parser.add_argument("--subscribers", type=int, nargs="*", default=Plan.subscribers)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--minutes", type=float, default=Plan.minutes, help="measure no more after this time")
    parser.add_argument("--only", nargs="*", default=[], metavar="PEER", help="some peers; all by default")
    parser.add_argument("--note", default="", help="a sentence about the machine, for the page")
    parser.add_argument("--write", action="store_true", help="write the tables and charts into docs/")
    parser.add_argument("--from", dest="source", type=Path, help="do not measure; read the results of an earlier run")
    options = parser.parse_args()
    HOME.mkdir(exist_ok=True)
    if options.source is None:
        plan = Plan(subscribers=tuple(options.subscribers), rounds=options.rounds, minutes=options.minutes)
        peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
        results = run(peers, plan)
        results["machine"] = machine(options.note)
        (HOME / "results.json").write_text(json.dumps(results, indent=1))
    else:
        results = json.loads(options.source.read_text())
    print(write(results, DOCS if options.write else None))


def run(peers: list[Peer], plan: Plan) -> dict[str, object]:
    """Measure all peers in turns."""
    began = time.monotonic()
    measured: list[Measured] = []
    absent: dict[str, str] = {}
    with Reader(compile_reader(HOME)) as reader:
        for number in range(1, plan.rounds + 1):
            for subscribers in plan.subscribers:
                for peer in peers:
                    if peer.name not in absent and time.monotonic() - began < plan.minutes * 60:
                        _measure_one(peer, reader, subscribers, plan, measured, absent, stop=number == 1)
                        print(f"{time.monotonic() - began:6.0f} s  round {number}  {_line(measured, absent, peer)}")
                        sys.stdout.flush()
    return {
        "plan": asdict(plan),
        "absent": absent,
        "versions": {peer.name: peer.version() for peer in peers if peer.name not in absent},
        "seconds": round(time.monotonic() - began),
        "measured": [asdict(each) for each in measured],
    }


def _measure_one(
    peer: Peer,
    reader: Reader,
    subscribers: int,
    plan: Plan,
    measured: list[Measured],
    absent: dict[str, str],
    *,
    stop: bool,
) -> None:
    found = Measured(peer.name, subscribers)
    try:
        measure(peer, reader, subscribers, plan, stop=stop, found=found)
    except Absent as error:
        absent[peer.name] = str(error)
        return
    except (OSError, RuntimeError) as error:
        found.failed = str(error)
    measured.append(found)
    if peer.resumes and not found.failed:
        try:
            found.storm = storm(peer, reader, subscribers)
        except StormFailed as error:
            found.storm_failed = str(error)
            found.lost += error.lost
            found.total += error.total
        except (OSError, RuntimeError) as error:
            found.storm_failed = str(error)


def _line(measured: list[Measured], absent: dict[str, str], peer: Peer) -> str:
    if peer.name in absent:
        return f"{peer.name}: skipped, {absent[peer.name]}"
    last = measured[-1]
    rates = ", ".join(f"{rate:,.0f}/s of {size} B" for size, rate in last.rate.items())
    return f"{last.subscribers:6,} {peer.name:20} {last.failed or rates} {last.storm_failed}".rstrip()


if __name__ == "__main__":
    main()
