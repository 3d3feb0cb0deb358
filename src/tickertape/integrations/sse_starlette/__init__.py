"""The interface of sse-starlette over our streams: for libraries and applications that import it.

``from tickertape.integrations.sse_starlette import EventSourceResponse`` in your own code; :func:`install` for
libraries whose imports you cannot change, such as ``mcp`` and ``a2a-sdk``.
"""

from __future__ import annotations

import sys
from typing import Final

from . import event, sse
from .event import JSONServerSentEvent, ServerSentEvent
from .sse import EventSourceResponse

__all__ = ["EventSourceResponse", "JSONServerSentEvent", "ServerSentEvent", "install"]

__version__: Final = "3.7.0"
"""The version of sse-starlette whose interface this is."""


def install() -> None:
    """Register this package as ``sse_starlette`` for the whole process. Call it before anything imports sse-starlette.

    sse-starlette need not be installed. A second call changes nothing.

    Raises:
        RuntimeError: the real sse-starlette was imported already, so other modules hold its classes.
    """
    this = sys.modules[__name__]
    if sys.modules.get("sse_starlette", this) is not this:
        raise RuntimeError("sse_starlette is imported already: call install() before you import anything that uses it")
    sys.modules.update({"sse_starlette": this, "sse_starlette.sse": sse, "sse_starlette.event": event})
