"""The access control of ``tickertape serve``: from settings to the function that a hub calls."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from pathlib import Path

from ..access import MIN_SECRET, CredentialAccess, JWTVerifier, KeyFile, KeyFileError, Revocations, Tickets
from .settings import Settings, SettingsError


def create_access(settings: Settings, tickets: Tickets, revocations: Revocations) -> CredentialAccess | None:
    """Return the access control of a hub; ``None`` if none is configured.

    Raises:
        SettingsError: a file cannot be used, or PyJWT is missing.
    """
    if not settings.has_access:
        return None
    return CredentialAccess(
        jwt=_create_verifier(settings),
        keys=_open_keys(settings),
        tickets=tickets,
        revocations=revocations,
        subscribe=settings.anonymous_subscribe,
        publish=settings.anonymous_publish,
        cookie=settings.cookie,
        origins=[origin for origin in settings.cors_origin if origin != "*"],
    )


def read_ticket_secret(settings: Settings) -> bytes:
    """Return the secret in the file; without one, a random secret, for the processes of this program alone.

    Raises:
        SettingsError: the file cannot be used.
    """
    if settings.ticket_secret_file is None:
        return secrets.token_bytes(MIN_SECRET)
    secret = _read("ticket_secret_file", settings.ticket_secret_file)
    if len(secret) < MIN_SECRET:
        raise SettingsError(
            f"expected ticket_secret_file to have at least {MIN_SECRET} bytes, got {len(secret)}: "
            "make one with `openssl rand -base64 48`"
        )
    return secret


def check_access(settings: Settings) -> None:
    """Read all files of access once, so that a server with a mistake in them does not start.

    Raises:
        SettingsError: a file cannot be used, or PyJWT is missing.
    """
    read_ticket_secret(settings)
    _create_verifier(settings)
    _open_keys(settings)


def check_exposure(settings: Settings, listener: socket.socket) -> None:
    """Refuse to serve other machines without access control, unless the settings allow it.

    Raises:
        SettingsError: they do not.
    """
    if settings.has_access or settings.open or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return  # other machines do not reach a Unix socket
    address = listener.getsockname()[0]
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        return
    raise SettingsError(
        f"without access control, every client that reaches {address} could read and publish: "
        "configure access (docs/operations/access.md), or allow it with --open"
    )


def _create_verifier(settings: Settings) -> JWTVerifier | None:
    if settings.jwt_key_file is None and settings.jwks_url is None:
        return None
    key = None if settings.jwt_key_file is None else _read("jwt_key_file", settings.jwt_key_file)
    try:
        return JWTVerifier(
            key,
            jwks_url=settings.jwks_url,
            algorithms=settings.jwt_algorithm or None,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            leeway=settings.jwt_leeway,
            claim=settings.jwt_claim,
            subscribe=settings.jwt_subscribe,
            publish=settings.jwt_publish,
        )
    except (ImportError, ValueError) as error:
        name = "jwks_url" if settings.jwt_key_file is None else "jwt_key_file"
        raise SettingsError(f"{name}: {error}") from None


def _open_keys(settings: Settings) -> KeyFile | None:
    if settings.api_key_file is None:
        return None
    try:
        return KeyFile(settings.api_key_file)
    except KeyFileError as error:
        raise SettingsError(f"api_key_file: {error}") from None


def _read(name: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"cannot read {name} {file}: {error.strerror}") from None
