"""What is told to a subscriber that cannot be given all that it missed."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Final, Literal, NamedTuple, TypeAlias

from ..broker import Cursor
from ..wire import ServerSentEvent

__all__ = ["GAP_EVENT", "RESERVED_PREFIX", "Gap", "GapReason", "OverflowPolicy"]

RESERVED_PREFIX: Final = "stream:"
"""Event types that start so are the hub's own words to its subscribers."""

GAP_EVENT: Final = "stream:gap"


class OverflowPolicy(StrEnum):
    """Choose what happens to a subscriber that reads too slowly."""

    DISCONNECT = "disconnect"
    """End its stream when its cursor falls off the log: it reconnects, and is told of the gap."""
    SKIP = "skip"
    """Tell it of the gap and go on live."""
    LATEST = "latest"
    """When it falls behind, give it the newest event of each topic alone: for dashboards and prices."""


GapReason: TypeAlias = Literal["expired", "reset"]


class Gap(NamedTuple):
    """Events that a subscriber will not get.

    Attributes:
        reason: ``expired``, the log no longer keeps them; ``reset``, the cursor is of another log.
        after: the cursor behind which events are missing, as the subscriber gave it.
        resumed: the cursor behind which all events follow.
    """

    reason: GapReason
    after: str
    resumed: Cursor

    def event(self) -> ServerSentEvent:
        """Return the gap as an event, whose id is the place from which the stream goes on."""
        text = json.dumps({"reason": self.reason, "after": self.after, "resumed": str(self.resumed)})
        return ServerSentEvent(text, event=GAP_EVENT, id=str(self.resumed))
