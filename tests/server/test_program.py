"""The application of the program when its broker fails at the start."""

from __future__ import annotations

import pytest

from tickertape import Hub
from tickertape.asgi import Message
from tickertape.errors import BrokerError
from tickertape.server import Settings
from tickertape.server.program import Program
from tickertape.testing import ScriptedBroker


class LostError(BrokerError):
    """An error of a driver."""


@pytest.mark.parametrize("kind", [BrokerError, LostError])
async def test_broker_that_fails_at_the_start(kind: type[BrokerError]) -> None:
    """The log gets one line, without a traceback, also for the errors of drivers."""
    broker = ScriptedBroker()
    broker.fail("open", error=kind("lost the connection to the server"))
    program = Program(Settings(broker="memory://"), b"0123456789abcdef0123456789abcdef")
    program.hub = Hub(broker)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(kind):
        await program({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": "lost the connection to the server"}]
