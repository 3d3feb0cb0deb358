"""An assistant whose answers are runs: they survive a reload, are read by several tabs, and can be stopped by each."""

from .demo import assistant_demo

__all__ = ["assistant_demo"]
