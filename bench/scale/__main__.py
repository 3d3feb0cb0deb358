"""Measure many connections, and write the tables and charts: ``python -m bench.scale``."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from ..pages import DOCS, HOME, machine
from .measure import Measured, Plan, measure
from .report import write


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument(
        "--steps",
        type=_step,
        nargs="*",
        default=Plan.steps,
        metavar="WORKERSxCONNECTIONS",
        help="as 8x100000; by default 1x15000 2x24000 4x56000 8x100000",
    )
    parser.add_argument("--events", type=int, default=Plan.events)
    parser.add_argument("--limit", type=float, default=Plan.limit, help="the longest time for a step, in seconds")
    parser.add_argument("--note", default="", help="a sentence about the machine, for the page")
    parser.add_argument("--write", action="store_true", help="write the tables and charts into docs/")
    parser.add_argument("--from", dest="source", type=Path, help="do not measure; read the results of an earlier run")
    options = parser.parse_args()
    if options.source is None:
        plan = Plan(steps=tuple(options.steps), events=options.events, limit=options.limit)
        results = run(plan)
        results["machine"] = machine(options.note)
        HOME.mkdir(exist_ok=True)
        (HOME / "scale.json").write_text(json.dumps(results, indent=1))
    else:
        results = json.loads(options.source.read_text())
    print(write(results, DOCS if options.write else None))


def _step(text: str) -> tuple[int, int]:
    workers, _, connections = text.partition("x")
    return int(workers), int(connections)


def run(plan: Plan) -> dict[str, object]:
    """Measure all steps, one after the other."""
    began = time.monotonic()
    measured: list[Measured] = []
    for workers, connections in plan.steps:
        found = measure(workers, connections, plan)
        measured.append(found)
        line = f"{workers} workers, {connections:,} connections: {found.delivery * 1e6:.1f} µs for each delivery"
        print(f"{time.monotonic() - began:6.0f} s  {line}, p99 {found.p99 * 1000:,.0f} ms", flush=True)
    return {
        "plan": asdict(plan),
        "seconds": round(time.monotonic() - began),
        "measured": [asdict(each) for each in measured],
    }


if __name__ == "__main__":
    main()
