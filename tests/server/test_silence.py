"""The limit for clients that vanish, as the kernel has it."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tickertape.server.silence import drop_silent_clients
from tickertape.server.uvicorn import listen
from tickertape.server.workers import Job

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="expected a system with TCP_USER_TIMEOUT, got none"
)


def test_connections_inherit_the_limit() -> None:
    with listen("127.0.0.1", 0) as listener:
        drop_silent_clients(listener, after=2.5)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500


def test_a_worker_that_listens_for_itself_has_the_limit_of_all() -> None:
    keeper = listen("127.0.0.1", 0, workers=2)
    drop_silent_clients(keeper, after=2.5)
    with Job(factory=lambda: None, listener=keeper, grace=1, access_log=False).listen() as listener:  # type: ignore[arg-type, return-value]
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500


PROGRAM = """
import socket, sys
from tickertape.server.program import serve
from tickertape.server.uvicorn import NotStartedError, listen
from tickertape.server.settings import Settings

listener = listen("127.0.0.1", 0)
same = listener.dup()
try:
    serve(Settings(broker="sqlite:////dev/null/none.db", send_timeout=float(sys.argv[1]) or None), listener)
except NotStartedError:
    print(same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
"""


@pytest.mark.parametrize(("send_timeout", "limit"), [("30", 45_000), ("4", 6_000), ("0", 0)])
def test_the_program_sets_it_by_its_send_timeout(send_timeout: str, limit: int) -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM, send_timeout], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == (f"{limit}\n", 0), found.stderr
