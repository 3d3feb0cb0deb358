"""``AppStatus``: the flags by which a program controls the end of its streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ...asgi import close_streams

__all__ = ["AppStatus"]


class _Flags(type):
    _should_exit = False

    @property
    def should_exit(cls) -> bool:
        """True if all streams have to end, and new ones at once. Setting it ends them."""
        return cls._should_exit

    @should_exit.setter
    def should_exit(cls, value: bool) -> None:
        cls._should_exit = bool(value)
        if value:
            close_streams()


class AppStatus(metaclass=_Flags):
    """The end of streams. Streams notice by themselves that their server stops, so most programs need none of this.

    Attributes:
        should_exit: set it to end all streams of the process; new ones end at once until you reset it.
        enable_automatic_graceful_drain: False if streams should outlive the stop of the server until ``should_exit``.
        original_handler: called by :meth:`handle_exit`; nothing sets it, since no server is changed.

    Source: the interface of sse-starlette 3.
    """

    enable_automatic_graceful_drain: ClassVar[bool] = True
    original_handler: ClassVar[Callable[..., Any] | None] = None

    @staticmethod
    def disable_automatic_graceful_drain() -> None:
        """Keep streams open when the server stops. You have to set ``should_exit``, or the server waits for them."""
        AppStatus.enable_automatic_graceful_drain = False

    @staticmethod
    def enable_automatic_graceful_drain_mode() -> None:
        """End streams when the server stops, as by default."""
        AppStatus.enable_automatic_graceful_drain = True

    @staticmethod
    def handle_exit(*args: Any, **kwargs: Any) -> None:
        """Handle a signal: end the streams, then call ``original_handler`` with the arguments."""
        if AppStatus.enable_automatic_graceful_drain:
            AppStatus.should_exit = True
        if AppStatus.original_handler is not None:
            AppStatus.original_handler(*args, **kwargs)
