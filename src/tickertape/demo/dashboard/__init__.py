"""The dashboard: one sample of this machine per second, with the last 15 minutes as history."""

from .collector import DEFAULT_INTERVAL
from .demo import dashboard_demo

__all__ = ["DEFAULT_INTERVAL", "dashboard_demo"]
