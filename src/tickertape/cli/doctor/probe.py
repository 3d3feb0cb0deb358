"""``probe``: connect to an event stream once or twice, and record its behaviour as seen from outside."""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress
from itertools import pairwise
from typing import Final

import httpx2

from ...errors import EventTooLargeError
from ...wire import Decoder, ServerSentEvent
from .diagnosis import Arrival, Observation, Resumption

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a stream that never pauses, this is enough."""

MAX_REDIRECTS: Final = 20
"""Redirects in a row: the limit of the Fetch standard."""

_SLICE: Final = 16 * 1024
"""Bytes that are decoded before the time is checked: a compressed response can give a mebibyte at once."""

_NEGOTIATION: Final = 5.0
"""Seconds for a handshake with a server that has already answered."""

_MAX_ID_SIZE: Final = 4 * 1024
"""Bytes of an id that is sent as a header: servers refuse more than 8 to 16 KiB of headers."""

_FAILURES: Final = (httpx2.TransportError, httpx2.DecodingError, httpx2.TooManyRedirects, OSError)


async def probe(url: httpx2.URL, *, headers: Mapping[str, str], seconds: float) -> Observation:
    """Look at a stream, and resume it after its first event with an id.

    Arguments:
        url: of the stream.
        headers: of each request. A redirect to another origin loses them.
        seconds: the time for each of the two looks.
    """
    own = [(name.encode(), value.encode()) for name, value in headers.items()]
    has_http2 = importlib.util.find_spec("h2") is not None
    async with httpx2.AsyncClient(http2=has_http2, timeout=None) as client:
        seen = await _look(client, url, own, seconds)
        first, second = _neighbours(seen.ids)
        if first is not None and second is not None and _fits_header(first):
            seen.resumption = Resumption(first, second)
            again = await _look(client, url, [*own, (b"Last-Event-ID", first.encode())], seconds, until_event=True)
            seen.resumption.got = next(iter(again.ids), None)
    if seen.tls and seen.http_version != "HTTP/2":
        seen.alpn = await negotiated_protocol(seen.host, seen.port)
    return seen


async def negotiated_protocol(host: str, port: int) -> str:
    """Return the protocol that a server chooses if it is offered HTTP/2 (RFC 7301); ``""`` if it does not answer.

    Our own requests offer HTTP/2 only if the package for it is installed, so their version proves nothing.
    """
    context = ssl.create_default_context()
    context.check_hostname = False  # nothing is sent, and the requests have checked the certificate
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(_NEGOTIATION):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return chosen or ""
    return ""


def _neighbours(ids: list[str | None]) -> tuple[str | None, str | None]:
    """Return the first two ids that follow one another and differ."""
    for first, second in pairwise(ids):
        if first and second and first != second:
            return first, second
    return None, None


def _fits_header(id: str) -> bool:
    return not any(character in "\v\f" for character in id) and len(id.encode()) <= _MAX_ID_SIZE


async def _look(
    client: httpx2.AsyncClient,
    url: httpx2.URL,
    headers: list[tuple[bytes, bytes]],
    seconds: float,
    *,
    until_event: bool = False,
) -> Observation:
    seen = Observation(str(url.copy_with(userinfo=b"", query=None, fragment=None)))
    start = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            response = await _send(client, url, headers)
            try:
                _record_head(seen, response, time.monotonic() - start)
                if response.status_code == 200:
                    await _record_body(seen, response, start, until_event)
            finally:
                await response.aclose()
    except TimeoutError:
        pass  # it is still open
    except _FAILURES as error:
        seen.error = f"{type(error).__name__}: {error}".rstrip(": ")
    seen.seconds = time.monotonic() - start
    return seen


async def _send(client: httpx2.AsyncClient, url: httpx2.URL, headers: list[tuple[bytes, bytes]]) -> httpx2.Response:
    """Send the request and follow redirects, without reading their bodies, which may have no end."""
    defaults = [(b"Accept", b"text/event-stream"), (b"Cache-Control", b"no-cache")]
    given = {name.lower() for name, _ in headers}
    request = client.build_request(
        "GET", url, headers=[*(pair for pair in defaults if pair[0].lower() not in given), *headers]
    )
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True, follow_redirects=False)
        if response.next_request is None:
            return response
        await response.aclose()
        origin, request = request.url.origin, response.next_request
        if request.url.origin != origin:
            for name, _ in headers:
                request.headers.pop(name.decode(), None)
    raise httpx2.TooManyRedirects(f"more than {MAX_REDIRECTS} redirects in a row", request=request)


def _record_head(seen: Observation, response: httpx2.Response, seconds: float) -> None:
    seen.status = response.status_code
    seen.http_version = response.http_version
    seen.host = response.url.host
    seen.port = response.url.port or 443
    seen.headers = dict(response.headers)
    seen.head_after = seconds
    stream = response.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    seen.tls = tls.version() or "" if tls is not None else ""


async def _record_body(seen: Observation, response: httpx2.Response, start: float, until_event: bool) -> None:
    decoder = Decoder(comments=True)
    size = 0
    tail = b""
    async with aclosing(response.aiter_bytes()) as chunks:
        async for data in chunks:
            if not data:
                continue
            seconds = time.monotonic() - start
            size += len(data)
            tail = (tail + data)[-4:]
            items = await _decode(seen, decoder, data)
            events = tuple(item.id for item in items if item.data is not None)
            is_whole = tail.endswith((b"\n\n", b"\r\r", b"\n\r\n"))
            # A comment needs no blank line after it.
            is_whole = is_whole or (data.lstrip(b"\r\n").startswith(b":") and data.endswith((b"\n", b"\r")))
            seen.arrivals.append(Arrival(seconds, len(data), events, len(items) - len(events), is_whole))
            if size > MAX_BYTES or seen.oversized or (until_event and events):
                return
    seen.ended_after = time.monotonic() - start


async def _decode(seen: Observation, decoder: Decoder, data: bytes) -> list[ServerSentEvent]:
    """Decode bytes in slices, so that the time can run out in between."""
    items: list[ServerSentEvent] = []
    for index in range(0, len(data), _SLICE):
        part = data[index : index + _SLICE]
        line_end = max(part.rfind(b"\n"), part.rfind(b"\r"))
        seen.unfinished = len(part) - line_end - 1 + (seen.unfinished if line_end < 0 else 0)
        try:
            items += decoder.feed(part)
        except EventTooLargeError as error:
            seen.oversized = error.limit
            break
        seen.retry = decoder.retry
        await asyncio.sleep(0)
    return items
