"""A process that publishes: many tasks, each with batches of two; prints the acknowledged events as JSON.

Arguments: the opener of the log (``module:name``), its URL, the name of this process, the number of tasks, the
number of batches of each.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys

from tickertape.broker import Broker
from tickertape.wire import Draft


async def _publish(broker: Broker, name: str, batches: int) -> list[tuple[int, str]]:
    acknowledged = []
    for batch in range(batches):
        drafts = [Draft(name, f"{name} {2 * batch + part}") for part in (0, 1)]
        cursors = await broker.append(drafts)
        acknowledged += [(cursor.offset, draft.data) for cursor, draft in zip(cursors, drafts, strict=True)]
    return acknowledged


async def _main(opener: str, url: str, name: str, publishers: int, batches: int) -> None:
    module, _, function = opener.partition(":")
    broker: Broker = getattr(importlib.import_module(module), function)(url)
    await broker.open()
    try:
        done = await asyncio.gather(*(_publish(broker, f"{name}/{each}", batches) for each in range(publishers)))
    finally:
        await broker.close()
    sys.stdout.write(json.dumps([entry for entries in done for entry in entries]))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
