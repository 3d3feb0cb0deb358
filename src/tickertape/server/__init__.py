"""ASGI applications under uvicorn, and the hub as a program."""

from .access import check_exposure
from .app import create_app
from .descriptors import raise_descriptor_limit
from .program import check_broker, check_files, serve
from .settings import DEFAULT_BROKER, Settings, SettingsError, load_settings
from .sockets import inherited_socket, listen, listen_at_path
from .static import fill_page, read_static_files
from .uvicorn import NotStartedError, run
from .workers import run_workers

__all__ = [
    "DEFAULT_BROKER",
    "NotStartedError",
    "Settings",
    "SettingsError",
    "check_broker",
    "check_exposure",
    "check_files",
    "create_app",
    "fill_page",
    "inherited_socket",
    "listen",
    "listen_at_path",
    "load_settings",
    "raise_descriptor_limit",
    "read_static_files",
    "run",
    "run_workers",
    "serve",
]
