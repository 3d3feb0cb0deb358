"""The limit for clients that vanish, as the kernel has it."""

from __future__ import annotations

import socket

import pytest

from tickertape.server.run import listen
from tickertape.server.silence import drop_silent_clients


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="expected a system with TCP_USER_TIMEOUT, got none")
def test_connections_inherit_the_limit() -> None:
    with listen("127.0.0.1", 0) as listener:
        drop_silent_clients(listener, after=2.5)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500
