"""Notifications: rows of a database table, pushed to the users they belong to."""

from .demo import check_database, notifications_demo
from .table import TableError

__all__ = ["TableError", "check_database", "notifications_demo"]
