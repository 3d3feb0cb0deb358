"""Notifications: rows of a database table, pushed to the people they are for."""

from .demo import notifications_demo, reach_database
from .notification import Draft, Notification, read_draft, topic_of, user_id
from .sqlite import SQLite
from .table import Database, Entry, Inbox, Table, TableError

__all__ = [
    "Database",
    "Draft",
    "Entry",
    "Inbox",
    "Notification",
    "SQLite",
    "Table",
    "TableError",
    "notifications_demo",
    "reach_database",
    "read_draft",
    "topic_of",
    "user_id",
]
