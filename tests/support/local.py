"""An application under a real server in the test's own loop, for tests that steer what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from uvicorn import Config, Server

from tickertape.asgi.types import ASGIApp
from tickertape.server import listen

__all__ = ["serve_here"]


@asynccontextmanager
async def serve_here(app: ASGIApp) -> AsyncIterator[str]:
    """Serve ``app`` at a free port; give its address."""
    listener = listen("127.0.0.1", 0)
    server = Server(Config(app, lifespan="on", ws="none", log_config=None, timeout_graceful_shutdown=5))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        # Connections wait in the listener's backlog until the server takes them.
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running
        listener.close()
