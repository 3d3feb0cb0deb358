"""What the commands print: errors as one sentence with the next step, addresses, the log."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from typing import NoReturn

__all__ = ["address_of", "explain", "fail", "set_up_logging"]


def fail(sentence: str) -> NoReturn:
    """Print a sentence on standard error and exit with status 1."""
    sys.exit(f"tickertape: {sentence}")


def explain(error: OSError, host: str, port: int, *, command: str) -> str:
    """Return a sentence for ``error``, met when a server was to listen: what is wrong, and the next step."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; next step: {command} --port {port + 1 if port < 65535 else 0}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs more rights than you have; next step: {command} --port 8000"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host!r} is no address of this machine; next step: {command} --host 127.0.0.1"
    return f"cannot listen at {host} port {port}: {error.strerror or error}"


def address_of(listener: socket.socket) -> str:
    """Return the URL under which a browser on this machine reaches ``listener``."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def set_up_logging() -> None:
    """Log to standard error: ours from INFO on, others' from WARNING on."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("tickertape").setLevel(logging.INFO)
