"""``tickertape doctor``: look at an event stream, and report its faults."""

from .command import DOCTOR_EPILOG, doctor

__all__ = ["DOCTOR_EPILOG", "doctor"]
