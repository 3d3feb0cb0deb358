"""Access control: credentials, and the grants to subscribe, publish and administrate that they carry.

The hub itself knows only :class:`~tickertape.hub.Grant` and a function that finds one for a request. This package has
such a function for JSON Web Tokens, API keys, tickets and cookies.
"""

from .credentials import TICKET, CredentialAccess, ImmediateVerifier, Verifier, find_credential, find_foreign_origin
from .keys import KEY_PREFIX, KeyFile, KeyFileError, add_key
from .revocations import Revocations
from .tickets import DEFAULT_VALID, MIN_SECRET, Tickets
from .tokens import ALGORITHMS, DEFAULT_CLAIM, DEFAULT_LEEWAY, JWTVerifier
from .verified import Verified

__all__ = [
    "ALGORITHMS",
    "DEFAULT_CLAIM",
    "DEFAULT_LEEWAY",
    "DEFAULT_VALID",
    "KEY_PREFIX",
    "MIN_SECRET",
    "TICKET",
    "CredentialAccess",
    "ImmediateVerifier",
    "JWTVerifier",
    "KeyFile",
    "KeyFileError",
    "Revocations",
    "Tickets",
    "Verified",
    "Verifier",
    "add_key",
    "find_credential",
    "find_foreign_origin",
]
