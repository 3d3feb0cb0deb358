"""The command line: ``tickertape``."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["main"]

_EXTRAS: Final = {
    "httpx2": "client",
    "nats": "nats",
    "psutil": "demo",
    "psycopg": "postgres",
    "pydantic": "server",
    "redis": "redis",
    "starlette": "server",
    "uvicorn": "server",
}
"""The extra that brings a package; those of the command line itself come with any that has commands."""


def main() -> None:
    """Run the command that ``sys.argv`` asks for, and exit with its status."""
    try:
        from .app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)  # as shells say it
    except ImportError as error:
        # A ring that needs an extra says so in words of its own, for programs.
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        package = ((isinstance(missing, ModuleNotFoundError) and missing.name) or "").partition(".")[0]
        if package in ("", "tickertape"):
            raise
        extra = _EXTRAS.get(package, "client,server")
        sys.exit(
            f"tickertape: this needs the package {package!r}, which is not installed; "
            f"next step: python -m pip install 'tickertape[{extra}]'"
        )
