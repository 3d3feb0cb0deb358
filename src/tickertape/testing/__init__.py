"""Help for tests of applications that send events: a client in the same process, a clock turned by hand.

HTTP clients for tests wait for the whole body of a response, which an event stream never has. This
one calls the ASGI application itself and gives each event as it is sent, without sockets::

    async with EventStreamClient(app) as client:
        async with client.open("/events") as stream:
            event = await stream.next_event()
            assert event.data == "hello"
        async with client.open("/events", last_event_id=event.id) as stream: ...
"""

from __future__ import annotations

from .client import DEFAULT_TIMEOUT, EventStream, EventStreamClient
from .clock import FakeClock
from .scripted import ScriptedBroker

__all__ = ["DEFAULT_TIMEOUT", "EventStream", "EventStreamClient", "FakeClock", "ScriptedBroker"]
