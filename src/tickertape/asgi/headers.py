"""The headers of a response, and those that every event stream has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Final

__all__ = ["EVENT_STREAM_HEADERS", "Headers"]

EVENT_STREAM_HEADERS: Final = {
    "content-type": "text/event-stream",
    # `no-transform` keeps proxies from compressing, which holds events back.
    "cache-control": "no-store, no-transform",
    # nginx buffers a response unless it is told not to.
    "x-accel-buffering": "no",
}
"""Never ``Connection``: HTTP/2 forbids it (RFC 9113, 8.2.2), and servers set it by themselves."""


class Headers(MutableMapping[str, str]):
    """Hold the headers of a response: names without case, values as Latin-1, in their order.

    Arguments:
        headers: a mapping, or pairs of a name and a value; pairs may repeat a name.

    ``raw`` is the list that ASGI sends, open to be changed; frameworks append to it.
    """

    def __init__(self, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.raw: list[tuple[bytes, bytes]] = [_encode(name, value) for name, value in pairs]

    def __getitem__(self, name: str) -> str:
        key = name.lower().encode("latin-1")
        for known, value in self.raw:
            if known == key:
                return value.decode("latin-1")
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        pair = _encode(name, value)
        self.raw[:] = [known for known in self.raw if known[0] != pair[0]]
        self.raw.append(pair)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        key = name.lower().encode("latin-1")
        self.raw[:] = [known for known in self.raw if known[0] != key]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(known == name.lower().encode("latin-1") for known, _ in self.raw)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({[(name.decode('latin-1'), value.decode('latin-1')) for name, value in self.raw]!r})"


def _encode(name: str, value: str) -> tuple[bytes, bytes]:
    if any(character in f"{name}{value}" for character in "\r\n\0"):
        raise ValueError(f"expected a header without line breaks, got {name!r}: {value!r}")
    return name.lower().encode("latin-1"), value.encode("latin-1")
