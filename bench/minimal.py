"""A minimal HTTP server on uvloop and httptools, which other benchmarks are measured against.

It parses requests as uvicorn does, and answers with fixed bytes: ``GET`` with the head and the first
chunk of an event stream, anything else with a short JSON body. ``python -m bench.minimal PORT`` runs it.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
from typing import Final, cast

import httptools
import uvloop

FIRST_CHUNK: Final = b"id: 0123456789ab-1000\nretry: 3000\n\n"

HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"incremental", b"?1"),
]

_STREAM: Final = b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (
    b"".join(b"%b: %b\r\n" % header for header in HEADERS),
    len(FIRST_CHUNK),
    FIRST_CHUNK,
)

_CURSOR: Final = b'{"cursor":"0123456789ab-1000"}\n'

_PUBLISHED: Final = (
    b"HTTP/1.1 201 Created\r\ncache-control: no-store\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_CURSOR), _CURSOR)
)


class MinimalProtocol(asyncio.Protocol):
    """Answer each request when it has been parsed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        pass

    def on_message_complete(self) -> None:
        self._transport.write(_STREAM if self._parser.get_method() == b"GET" else _PUBLISHED)

    def connection_lost(self, exc: Exception | None) -> None:
        del self._parser  # it refers to this object


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(MinimalProtocol, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.freeze()
    uvloop.run(main(int(sys.argv[1])))
