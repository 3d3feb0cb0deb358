"""Topics over one shared log, and what all who deliver events agree on."""

from .clock import Clock, Timer
from .reason import DisconnectReason

__all__ = ["Clock", "DisconnectReason", "Timer"]
