"""A publisher in a separate process, which the soak kills: it prints each attempt and each acknowledgement.

Usage: python publish.py URL NAME SEED
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from types import FrameType

from tickertape.client import SyncPublisher

TOPICS = ["always/1", "always/2", "t/0", "t/1", "t/2", "t/3"]


def main() -> None:
    url, name, seed = sys.argv[1:]
    rng = random.Random(seed)
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    with SyncPublisher(url, max_attempts=None, max_delay=0.3) as publisher:
        number = 0
        while not stopped:
            topic, data = rng.choice(TOPICS), f"{name}.{number}"
            print(json.dumps({"try": data, "topic": topic}), flush=True)  # noqa: T201
            cursor = publisher.publish(topic, data + " " * rng.choice((0, 0, 0, 2_000)), key=data)
            print(json.dumps({"acknowledged": data, "cursor": cursor}), flush=True)  # noqa: T201
            number += 1
            time.sleep(rng.random() * 0.02)


if __name__ == "__main__":
    main()
