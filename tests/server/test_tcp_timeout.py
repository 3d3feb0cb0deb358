"""The TCP timeout of the server's connections."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tickertape.asgi import set_tcp_timeout
from tickertape.server import listen
from tickertape.server.workers import Job

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")


def test_worker_that_listens_by_itself() -> None:
    keeper = listen("127.0.0.1", 0, workers=2)
    set_tcp_timeout(keeper, 2.5)
    with Job(factory=lambda: None, listener=keeper, grace=1, access_log=False).bind() as listener:  # type: ignore[arg-type, return-value]
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500


PROGRAM = """
import socket, sys
from tickertape.server import NotStartedError, Settings, listen, serve

listener = listen("127.0.0.1", 0)
same = listener.dup()
try:
    serve(Settings(broker="sqlite:////dev/null/none.db", send_timeout=float(sys.argv[1]) or None), listener)
except NotStartedError:
    print(same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
"""


@pytest.mark.parametrize(("send_timeout", "limit"), [("30", 45_000), ("4", 6_000), ("0", 0)])
def test_timeout_follows_the_send_timeout(send_timeout: str, limit: int) -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM, send_timeout], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == (f"{limit}\n", 0), found.stderr
