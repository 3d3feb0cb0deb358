"""The event stream algorithm as the HTML standard describes it: naive, for whole streams, without code of the decoder.

The tests and the fuzzer hold :class:`tickertape.wire.Decoder` against it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tickertape import ServerSentEvent

__all__ = ["Outcome", "decode"]

MAX_RETRY = 2**63 - 1


@dataclass
class Outcome:
    """The result of a whole stream."""

    events: list[ServerSentEvent] = field(default_factory=list)
    last_event_id: str | None = None
    retry: int | None = None
    too_large: bool = False


def decode(stream: bytes, *, limit: int | None = None, comments: bool = False) -> Outcome:
    """Interpret ``stream`` from its first byte to its last."""
    # "Streams must be decoded using the UTF-8 decode algorithm", which strips one BOM.
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    text = stream.decode("utf-8", "replace")
    lines = re.split("\r\n|\n|\r", text)
    sizes = [len(line) for line in re.split(b"\r\n|\n|\r", stream)]

    outcome = Outcome()
    data_buffer = event_type_buffer = ""
    last_event_id_buffer: str | None = None
    block_retry: int | None = None
    block_size = 0
    for number, (line, size) in enumerate(zip(lines, sizes, strict=True), start=1):
        if line and limit is not None and block_size + size > limit:
            outcome.too_large = True
            break
        if number == len(lines):
            break  # the end of the file has come before the end of this line
        if line == "":
            if last_event_id_buffer is not None:
                outcome.last_event_id = last_event_id_buffer
            if data_buffer != "":
                event = ServerSentEvent(
                    data_buffer.removesuffix("\n"),
                    event=event_type_buffer if event_type_buffer != "" else None,
                    id=outcome.last_event_id,
                    retry=block_retry,
                )
                outcome.events.append(event)
            data_buffer = event_type_buffer = ""
            block_retry = None
            block_size = 0
            continue
        if line[0] == ":":
            if comments:
                comment = line[1:]
                comment = comment.removeprefix(" ")
                outcome.events.append(ServerSentEvent(None, comment=comment))
            continue
        block_size += size
        if ":" in line:
            name, value = line.split(":", 1)
            value = value.removeprefix(" ")
        else:
            name, value = line, ""
        if name == "event":
            event_type_buffer = value
        elif name == "data":
            data_buffer += value
            data_buffer += "\n"
        elif name == "id":
            if "\0" not in value:
                last_event_id_buffer = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            # Digit by digit: `int` refuses thousands of them. Browsers keep the time in 64 bits; more is as much.
            outcome.retry = 0
            for digit in value:
                outcome.retry = min(outcome.retry * 10 + int(digit), MAX_RETRY)
            block_retry = outcome.retry
    return outcome
