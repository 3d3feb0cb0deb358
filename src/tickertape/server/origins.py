"""Pages of other origins: which of them may publish.

To read an answer, a page of another origin needs our word (CORS). To *send* a form or a text it
needs nobody's: any page that somebody visits could publish to the hub on that person's machine. So
requests that publish are looked at first, as Go's ``http.CrossOriginProtection`` does: browsers say
by ``Sec-Fetch-Site`` and ``Origin`` where a request comes from, programs send neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.requests import Request

from .refusal import Refusal

__all__ = ["check_origin"]


def check_origin(request: Request, allowed: Sequence[str]) -> None:
    """Refuse a request of a page whose origin is neither ours nor one of ``allowed``."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site")
    if (origin in allowed) or "*" in allowed:
        return
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if foreign:
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            f"expected a page of this server, or of an origin that --cors-origin allows, got one of {origin or site}",
        )
