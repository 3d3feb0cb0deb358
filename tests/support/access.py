"""Access control for tests: words as credentials, each with a grant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tickertape.access import CredentialAccess, Revocations, Tickets, Verified
from tickertape.errors import UnauthorizedError
from tickertape.hub import Grant, Hub

__all__ = ["ADMIN", "SECRET", "Words", "bearer", "protect"]

SECRET = b"the secret of the tickets of all tests"

ADMIN = Grant(user="root", admin=True)


class Words:
    """A verifier whose tokens are words.

    Attributes:
        issued: when all of them were issued.
    """

    def __init__(self, grants: Mapping[str, Grant], issued: float | None = None) -> None:
        self.grants = dict(grants)
        self.issued = issued

    async def verify(self, token: str) -> Verified:
        """Return the grant of a word."""
        if token not in self.grants:
            raise UnauthorizedError("the word is unknown")
        return Verified(self.grants[token], self.issued)


def protect(hub: Hub, grants: Mapping[str, Grant], issued: float | None = None, **options: Any) -> CredentialAccess:
    """Set up a hub with access control, and revocations; ``options`` are those of ``CredentialAccess``."""
    access = CredentialAccess(
        jwt=Words(grants, issued), tickets=Tickets(SECRET, hub), revocations=Revocations(hub), **options
    )
    hub.access = access
    return access


def bearer(word: str) -> dict[str, str]:
    """Return the headers of a request with a word as its credential."""
    return {"authorization": f"Bearer {word}"}
