"""The dashboard: one sample of this machine per second, with the last 15 minutes as history."""

from .demo import DEFAULT_INTERVAL, dashboard_demo

__all__ = ["DEFAULT_INTERVAL", "dashboard_demo"]
