"""``tickertape doctor``: look at an event stream, and report what is wrong with it."""

from .command import DOCTOR_EPILOG, doctor

__all__ = ["DOCTOR_EPILOG", "doctor"]
