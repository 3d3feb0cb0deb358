"""The dashboard: what this machine does, once a second, with the last quarter of an hour at once."""

from .collector import DEFAULT_IDLE, DEFAULT_INTERVAL, Collector
from .demo import dashboard_demo
from .readings import Reader, Reading

__all__ = ["DEFAULT_IDLE", "DEFAULT_INTERVAL", "Collector", "Reader", "Reading", "dashboard_demo"]
