"""The socket on which a server listens: an address, a path, or one that the service manager has opened."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SPREADS: Final = sys.platform == "linux"  # elsewhere the last socket bound gets all connections, or binding fails

_BACKLOG: Final = 2048
"""Connections that wait until the server accepts them: as uvicorn has it."""

_FIRST_INHERITED: Final = 3
"""The descriptor of the first socket that a service manager passes, sd_listen_fds(3)."""


def listen(host: str, port: int, *, workers: int = 1) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``; port 0 chooses a free one.

    For several ``workers`` on Linux, the socket only keeps the address: each worker listens by itself, and the kernel
    spreads connections evenly. If workers share one socket, the quickest one gets most connections.

    Raises:
        OSError: the address is in use, does not belong to this machine, or needs more rights.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    if workers == 1 or not _SPREADS:
        return socket.create_server(address[:2], family=family)
    keeper = socket.socket(family)
    try:
        if family == socket.AF_INET6:
            keeper.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(address)
        # After binding: otherwise the address of another program that also shares would not count as in use.
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        keeper.close()
        raise
    return keeper


def listen_at_path(path: Path) -> socket.socket:
    """Return a Unix socket that listens at a path. A socket that a dead server has left there is replaced.

    The process' umask decides which users may connect.

    Raises:
        OSError: another server listens there, the file is no socket, or the folder cannot be written.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
                path.unlink()
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True


def inherited_socket(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """Return the socket that a service manager has opened for this process, or ``None`` (sd_listen_fds(3)).

    Raises:
        OSError: it passes several, or something that is not a listening socket.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = environ.get("LISTEN_FDS", "0")
    if count != "1":
        raise OSError(f"expected one socket from the service manager, got {count}")
    listener = socket.socket(fileno=_FIRST_INHERITED)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError("the socket from the service manager does not listen")
    os.set_inheritable(_FIRST_INHERITED, False)
    return listener
