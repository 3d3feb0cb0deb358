"""An application of several workers, named in its responses: ``python -m support.worker_app PORT KIND FOLDER``."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tickertape import EventSourceResponse
from tickertape.asgi.types import ASGIApp, Receive, Scope, Send
from tickertape.server import listen
from tickertape.server.uvicorn import NotStartedError
from tickertape.server.workers import HUNG, run_workers


async def forever() -> AsyncIterator[str]:
    """Send the process's number, and then nothing more."""
    yield str(os.getpid())
    await asyncio.Event().wait()


def create_app(kind: str, folder: Path) -> ASGIApp:
    """Return the application of one worker.

    It is ``steady``; or ``falling``, which only the first two of its workers are not; or ``failing``, which does
    not start at all; or ``impatient``: its workers are killed when they hang for three seconds.
    """
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    (folder / str(os.getpid())).touch()
    if kind == "falling" and len(list(folder.iterdir())) > 2:
        sys.exit(7)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if kind == "failing":
                raise RuntimeError("no way to start")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print(f"[{os.getpid()} ends]", flush=True)  # noqa: T201
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"] == "/stuck":
            print(f"[{os.getpid()} is stuck]", flush=True)  # noqa: T201
            time.sleep(1000)  # noqa: ASYNC251
        else:
            await EventSourceResponse(forever())(scope, receive, send)

    return app


def main() -> None:
    port, kind, folder = sys.argv[1:]
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    try:
        run_workers(
            functools.partial(create_app, kind, Path(folder)),
            listen("127.0.0.1", int(port), workers=2),
            workers=2,
            hung_after=3.0 if kind == "impatient" else HUNG,
            on_start=lambda: print("started", flush=True),  # noqa: T201
        )
    except NotStartedError:
        sys.exit("not started")


if __name__ == "__main__":
    main()
