"""Example applications for the browser: ``tickertape demo``."""

from .app import create_app
from .notifications import TableError, check_database

__all__ = ["TableError", "check_database", "create_app"]
