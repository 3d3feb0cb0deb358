"""Runs: streams that outlive the request that started them, such as answers of language models and long jobs."""

from .framing import FRAMINGS, Frame, Framing, RunEvent
from .records import RunEnd, RunInfo, RunState
from .runs import DEFAULT_GRACE, DEFAULT_TTL, Run, Runs

__all__ = [
    "DEFAULT_GRACE",
    "DEFAULT_TTL",
    "FRAMINGS",
    "Frame",
    "Framing",
    "Run",
    "RunEnd",
    "RunEvent",
    "RunInfo",
    "RunState",
    "Runs",
]
