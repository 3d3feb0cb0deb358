"""Notify the service manager, by the protocol of sd_notify(3): datagrams to the socket in ``NOTIFY_SOCKET``."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

logger = logging.getLogger("tickertape.server")


class ServiceManager:
    """The service manager that has started this process, if it wants to be notified.

    Arguments:
        environ: contains ``NOTIFY_SOCKET``, and ``WATCHDOG_USEC`` if signs of life are wanted.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # an abstract name
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watched = mine and environ.get("WATCHDOG_USEC", "0") != "0"

    def ready(self) -> None:
        """Report that requests are served, or that a reload is over."""
        self._notify("READY=1")

    def reloading(self) -> None:
        """Report that the settings are being read again."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the server is stopping."""
        self._notify("STOPPING=1")

    def beat(self) -> None:
        """Send a sign of life, if they are wanted."""
        if self._watched:
            self._notify("WATCHDOG=1")

    def _notify(self, state: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            logger.warning("the service manager cannot be notified: %s", error)
            self._address = ""
