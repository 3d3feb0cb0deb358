"""Helpers for tests of applications that send events: clients in the same process, a fake clock, a scripted broker.

Most test clients wait for the whole body of a response, and an event stream has no end. This client calls
the ASGI application itself, without sockets, and returns each event as it is sent::

    async with EventStreamClient(app) as client:
        async with client.open("/events") as stream:
            event = await stream.next_event()
            assert event.data == "hello"
        async with client.open("/events", last_event_id=event.id) as stream: ...
"""

from __future__ import annotations

from .client import DEFAULT_TIMEOUT, EventStream, EventStreamClient, Response
from .clock import FakeClock
from .scripted import ScriptedBroker
from .sync import SyncEventStream, SyncEventStreamClient

__all__ = [
    "DEFAULT_TIMEOUT",
    "EventStream",
    "EventStreamClient",
    "FakeClock",
    "Response",
    "ScriptedBroker",
    "SyncEventStream",
    "SyncEventStreamClient",
]
