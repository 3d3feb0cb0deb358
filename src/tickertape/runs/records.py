"""The records of runs in the log: their topics, their fields, and the values that are made of them.

A run's name is a topic, such as ``chat/42``; each run of that name has an id, the cursor of its first record.

=======================  ==========================================================================
topic                    records
=======================  ==========================================================================
``runs/<name>``          ``run:start``, ``run:cancel``, ``run:readers``, ``run:alive``, ``run:end``
``run/<name>/<id>``      the events of one run, and its ``run:end`` again
``run-nodes/<node>``     ``run:beat`` of a process that runs producers
=======================  ==========================================================================
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ..errors import InvalidTopicError
from ..wire import MAX_KEY_LENGTH, MAX_SEGMENTS, MAX_TOPIC_LENGTH, Cursor, Draft, check_topic

CONTROL: Final = "runs"
EVENTS: Final = "run"
NODES: Final = "run-nodes"

START: Final = "run:start"
CANCEL: Final = "run:cancel"
READERS: Final = "run:readers"
ALIVE: Final = "run:alive"
END: Final = "run:end"
BEAT: Final = "run:beat"
TEXT: Final = "run:text"
"""The type of an item that was a ``str``: framings turn it into a delta of their protocol."""

RESERVED: Final = "run:"
"""The prefix of these types, which the items of a run must not have."""

MAX_NAME_SEGMENTS: Final = MAX_SEGMENTS - 2
"""Segments of the name of a run; the topic of its events has one before them and one after them."""

_ID_LENGTH: Final = 64 + 1 + 19
"""Characters of the longest id."""


class RunState(StrEnum):
    """The state of a run: active, or the way in which it ended."""

    ACTIVE = "active"
    """Its producer is at work."""
    DONE = "done"
    """The items came to their end."""
    ERROR = "error"
    """The items failed with an exception."""
    CANCELLED = "cancelled"
    """It was cancelled, or replaced by another run."""
    ORPHANED = "orphaned"
    """Its producer is gone: its process ended or died."""
    REFUSED = "refused"
    """It never began, because another run of the name was active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Description of a run.

    Attributes:
        name: the name that it was started with.
        run: its id, unique in the log.
        state: how far it has come.
        key: the key that it was started with.
        owner: the owner that it was started with.
        started: when it began, in seconds since the Unix epoch, by the clock of the process that started it.
        ended: when it ended, likewise; ``None`` while it is active.
        error: the text that readers get for a failure.
    """

    name: str
    run: str
    state: RunState
    key: str | None = None
    owner: str | None = None
    started: float = 0.0
    ended: float | None = None
    error: str | None = None

    @property
    def active(self) -> bool:
        """True until it ends."""
        return self.state is RunState.ACTIVE

    @property
    def topic(self) -> str:
        """The topic of its events."""
        return f"{EVENTS}/{self.name}/{self.run}"


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run, as its readers see it.

    Attributes:
        state: how it ended.
        error: the text that readers get for a failure.
        id: the cursor of its record.
    """

    state: RunState
    error: str | None
    id: str


def check_name(name: str) -> str:
    """Return ``name`` if a run can have it: a topic that leaves room for what is put around it.

    Raises:
        InvalidTopicError: it is not a valid topic, or too long.
    """
    if check_topic(name).count("/") >= MAX_NAME_SEGMENTS:
        raise InvalidTopicError(f"expected the name of a run of at most {MAX_NAME_SEGMENTS} segments, got {name!r}")
    longest = MAX_TOPIC_LENGTH - len(CONTROL) - 2 - _ID_LENGTH
    if len(name) > longest:
        raise InvalidTopicError(f"expected the name of a run of at most {longest} characters, got {len(name)}")
    return name


def start_key(name: str, key: str, attempt: int) -> str:
    """Return the key of the record that starts a run, so that several processes start it once."""
    return "run-" + hashlib.sha256(f"{name}\0{key}\0{attempt}".encode()).hexdigest()


def item_key(run: str, key: str, number: int) -> str:
    """Return the key of one item of a call with this key; a hash if both together are too long."""
    text = f"{run}.{key}.{number}"
    if len(text) <= MAX_KEY_LENGTH or len(key) > MAX_KEY_LENGTH:
        return text  # the draft refuses one that is too long
    return "run-item-" + hashlib.sha256(text.encode()).hexdigest()


def end_drafts(info: RunInfo, state: RunState, error: str | None, ended: float) -> list[Draft]:
    """Return the records of an end. Their keys make the first end of a run its only one."""
    data = {"run": info.run, "state": state, "error": error, "ended": ended}
    return [
        Draft(f"{CONTROL}/{info.name}", data, event=END, key=f"run-end-{info.run}"),
        Draft(info.topic, data, event=END, key=f"run-last-{info.run}"),
    ]


def parse_end(data: str, id: str) -> RunEnd:
    """Return the end that a record describes; one that states no state is an error."""
    fields = parse(data)
    try:
        state = RunState(fields.get("state", ""))
    except ValueError:
        state = RunState.ERROR
    error = fields.get("error")
    return RunEnd(state, error if isinstance(error, str) else None, id)


def parse(data: str) -> dict[str, Any]:
    """Return the fields of a record; none if it is not ours."""
    try:
        fields = json.loads(data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def offset_of(run: str) -> int:
    """Return the offset of the first record of a run."""
    cursor = Cursor.parse(run)
    return 0 if cursor is None else cursor.offset
