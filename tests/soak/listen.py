"""A client in a separate process, which the soak kills: it prints each event as a line of JSON.

Usage: python listen.py URL LAST_EVENT_ID
"""

from __future__ import annotations

import asyncio
import json
import sys

from tickertape.client import EventSource, Gap


async def main() -> None:
    url, start = sys.argv[1:]
    async with EventSource(url, last_event_id=start, max_delay=0.5, silence=5.0, yield_gaps=True) as source:
        async for event in source:
            kind = "stream:gap" if isinstance(event, Gap) else "message"
            print(json.dumps([kind, event.id or "", event.data]), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
