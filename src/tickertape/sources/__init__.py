"""Where events come from: tables that are polled, notifications of PostgreSQL, subjects of NATS.

Each is an async iterable for :meth:`tickertape.Hub.feed`.
"""

from ..hub import Batch
from .polling import Poll, Wake, poll

__all__ = ["Batch", "Poll", "Wake", "poll"]
