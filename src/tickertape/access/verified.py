"""``Verified``, a credential that was found valid."""

from __future__ import annotations

from typing import NamedTuple

from ..hub import Grant


class Verified(NamedTuple):
    """A valid credential.

    Attributes:
        grant: its rights.
        issued: when it was issued, in seconds since the Unix epoch; ``None`` if it has no such time.
    """

    grant: Grant
    issued: float | None = None
