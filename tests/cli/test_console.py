"""Messages about addresses that cannot be used, and addresses for people."""

from __future__ import annotations

import errno
import socket

import pytest

from tickertape.cli.console import address_of, explain, fail
from tickertape.server import listen


@pytest.mark.parametrize(
    ("error", "host", "port", "sentence"),
    [
        (OSError(errno.EADDRINUSE, "in use"), "::", 8000, "port 8000 is in use; next step: try --port 8001"),
        (OSError(errno.EADDRINUSE, "in use"), "::", 65535, "port 65535 is in use; next step: try --port 0"),
        (
            PermissionError(errno.EACCES, "no"),
            "::",
            80,
            "port 80 needs more rights than you have; next step: try --port 8000",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, "no"),
            "192.0.2.1",
            80,
            "'192.0.2.1' is no address of this machine; next step: try --host 127.0.0.1",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "unknown"),
            "nowhere.invalid",
            80,
            "'nowhere.invalid' is no address of this machine; next step: try --host 127.0.0.1",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "::1", 80, "cannot listen at ::1 port 80: Too many open files"),
        (OSError("strange"), "::1", 80, "cannot listen at ::1 port 80: strange"),
    ],
)
def test_explain(error: OSError, host: str, port: int, sentence: str) -> None:
    assert explain(error, host, port, command="try") == sentence


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", None), ("::1", "[::1]"), ("::", "[::1]")],
)
def test_address_of(host: str, shown: str | None) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        address = address_of(listener)
    assert address in ([f"http://{shown}:{port}"] if shown else [f"http://127.0.0.1:{port}", f"http://[::1]:{port}"])


def test_fail() -> None:
    with pytest.raises(SystemExit, match=r"^tickertape: it broke$"):
        fail("it broke")
