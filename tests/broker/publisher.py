"""A process that publishes: many tasks, each with batches of two; prints what was acknowledged as JSON.

Arguments: the log's URL, this process's name, the number of tasks, the number of batches of each.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tickertape.broker import Broker, Draft, create_broker


async def _publish(broker: Broker, name: str, batches: int) -> list[tuple[int, str]]:
    acknowledged = []
    for batch in range(batches):
        drafts = [Draft(name, f"{name} {2 * batch + part}") for part in (0, 1)]
        cursors = await broker.append(drafts)
        acknowledged += [(cursor.offset, draft.data) for cursor, draft in zip(cursors, drafts, strict=True)]
    return acknowledged


async def _main(url: str, name: str, publishers: int, batches: int) -> None:
    broker = create_broker(url)
    await broker.open()
    try:
        done = await asyncio.gather(*(_publish(broker, f"{name}/{each}", batches) for each in range(publishers)))
    finally:
        await broker.close()
    sys.stdout.write(json.dumps([entry for entries in done for entry in entries]))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
