"""A network between a client and a server, which can be slow, and can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tickertape.asgi import reset_on_close

__all__ = ["Network", "network_to"]


class Network:
    """Relay connections to a port of 127.0.0.1.

    Attributes:
        url: the server's address, as seen through the network.
        delay: seconds for which each piece of at most 4 KiB is kept back.
    """

    def __init__(self, port: int) -> None:
        self.url = ""
        self.delay = 0.0
        self._port = port
        self._whole = True
        self._ways: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """End all connections, and refuse new ones, by a reset: no end of a response looks like a clean one."""
        self._whole = False
        for way in self._ways:
            way.cancel()

    def restore(self) -> None:
        """Relay connections again."""
        self._whole = True

    def move(self, url: str) -> None:
        """Relay new connections to another server."""
        self._port = urlsplit(url).port or 0

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        way = asyncio.current_task()
        assert way is not None
        self._ways.add(way)
        try:
            if self._whole:
                there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer))
                finally:
                    there_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._ways.discard(way)
            with suppress(OSError):  # it is closed
                reset_on_close(writer.get_extra_info("socket"))
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(4096 if self.delay else 65536):
            await asyncio.sleep(self.delay)
            writer.write(piece)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def network_to(url: str) -> AsyncIterator[Network]:
    """Put a network before the server at ``url``."""
    network = Network(urlsplit(url).port or 0)
    async with await asyncio.start_server(network.relay, "127.0.0.1", 0) as server:
        network.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield network
        finally:
            network.cut()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while network._ways:  # noqa: ASYNC110
                        await asyncio.sleep(0)
