"""ASGI applications under uvicorn."""

from .files import File, fill_page, read_static_files
from .run import NotStartedError, listen, run
from .silence import drop_silent_clients

__all__ = [
    "File",
    "NotStartedError",
    "drop_silent_clients",
    "fill_page",
    "listen",
    "read_static_files",
    "run",
]
