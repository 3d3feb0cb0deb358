"""The network of the soak can be slow."""

from __future__ import annotations

import asyncio

from support.network import network_to


async def test_delay() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(12_000))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, network_to(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as network:
        network.delay = 0.1
        start = asyncio.get_running_loop().time()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(network.url.rpartition(":")[2]))
        assert len(await reader.read(8_192)) <= 4_096
        await reader.read()
        assert asyncio.get_running_loop().time() - start > 0.3  # three pieces
        writer.close()
