"""Publishing beside audiences that do not want the event: the time should not grow with their number."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Final

from tickertape import Hub

AUDIENCES: Final = (0, 10, 100, 1_000, 10_000)
EVENTS: Final = 2_000
ROUNDS: Final = 5


async def seconds(unrelated: int) -> float:
    """Return the time of publishing to one subscriber, beside so many with patterns of their own."""
    async with Hub() as hub, AsyncExitStack() as stack:
        for number in range(unrelated):
            patterns = (f"users/{number}/**", f"users/{number}/orders/*", f"rooms/{number}")
            await stack.enter_async_context(hub.subscribe(*patterns))
        wanted = await stack.enter_async_context(hub.subscribe("orders/*"))
        best = float("inf")
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for number in range(EVENTS):
                await hub.publish(f"orders/{number}", "x" * 120)
            for _ in range(EVENTS):
                await anext(wanted)
            best = min(best, time.perf_counter() - start)
        return best


async def compare() -> None:
    """Print the times as ratios to that without others."""
    await seconds(0)  # warm up
    alone = await seconds(0)
    print(f"{'unrelated audiences':>20}{'time':>8}")
    for unrelated in AUDIENCES:
        print(f"{unrelated:20,}{await seconds(unrelated) / alone:7.2f}x")


def main() -> None:
    asyncio.run(compare())


if __name__ == "__main__":
    main()
