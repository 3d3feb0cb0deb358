"""ASGI applications under uvicorn."""

from .run import listen, run

__all__ = ["listen", "run"]
