"""The command line: ``tickertape``."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["main"]

_EXTRAS: Final = {
    "httpx2": "client",
    "itsdangerous": "demo",
    "nats": "nats",
    "psutil": "demo",
    "psycopg": "postgres",
    "pydantic": "server",
    "redis": "redis",
    "starlette": "server",
    "uvicorn": "server",
}
"""The extra with a package. The packages of the command line itself come with every extra that has commands."""


def main() -> None:
    """Run the command in ``sys.argv``, and exit with its status."""
    try:
        from .app import app

        app()
    except KeyboardInterrupt:
        sys.exit(130)  # the convention of shells
    except ImportError as error:
        # A package that needs an extra raises a special ImportError, for programs.
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        package = ((isinstance(missing, ModuleNotFoundError) and missing.name) or "").partition(".")[0]
        if package in ("", "tickertape"):
            raise
        extra = _EXTRAS.get(package, "client,server")
        if sys.argv[1:2] == ["demo"] and "server" in extra:
            extra = "demo"  # it has the packages of the server, and its own
        sys.exit(
            f"tickertape: the package {package!r} is not installed; "
            f"next step: python -m pip install 'tickertape[{extra}]'"
        )
