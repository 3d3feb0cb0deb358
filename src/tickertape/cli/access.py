"""``tickertape token`` and ``tickertape key``: credentials for a hub."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from .console import fail, misuse

TOKEN_EPILOG: Final = """The token goes to standard output. Treat it as a password.

Examples:

- `tickertape token --key-file secret --user alice --subscribe 'users/alice/**'`: a token for one hour
- `tickertape token --key-file secret --publish '**' --expires 86400`: publish for a day
"""

KEY_EPILOG: Final = """The key goes to standard output, once. The file gets its hash only, so a lost key cannot be found
again. To revoke a key, remove its table from the file: the server reads the file again within a second.

Examples:

- `tickertape key sensor-7 --publish 'sensors/7/**'`: a key for a sensor
- `tickertape key wall --subscribe 'prices/*' --file /etc/tickertape/keys.toml`: a key for a screen
- `tickertape key operator --admin`: a key for everything
"""

_ALGORITHM: Final = "HS256"

Subscribe = Annotated[
    list[str] | None,
    typer.Option(
        help="Pattern of topics to read; can be repeated. Default: none.", metavar="PATTERN", show_default=False
    ),
]
Publish = Annotated[
    list[str] | None,
    typer.Option(
        help="Pattern of topics to publish to; can be repeated. Default: none.", metavar="PATTERN", show_default=False
    ),
]
Admin = Annotated[bool, typer.Option("--admin", help="Allow everything.")]


def token(
    key_file: Annotated[Path, typer.Option(help="File with the secret, as of `serve --jwt-key-file`.", metavar="FILE")],
    user: Annotated[
        str | None, typer.Option(help="Name of the user (`sub`). Default: none.", metavar="NAME", show_default=False)
    ] = None,
    subscribe: Subscribe = None,
    publish: Publish = None,
    admin: Admin = False,
    expires: Annotated[float, typer.Option(help="Seconds after which it expires.", metavar="SECONDS")] = 3600,
    issuer: Annotated[
        str | None, typer.Option(help="Issuer (`iss`). Default: none.", metavar="TEXT", show_default=False)
    ] = None,
    audience: Annotated[
        str | None, typer.Option(help="Audience (`aud`). Default: none.", metavar="TEXT", show_default=False)
    ] = None,
    claim: Annotated[str, typer.Option(help="Claim with the rights.", metavar="NAME")] = "tickertape",
) -> None:
    """Make a token (JWT, HS256) for a hub, with the secret that the hub knows."""
    from ..access import JWTVerifier
    from ..errors import InvalidTopicError
    from ..hub import Grant

    try:
        grant = Grant(subscribe=tuple(subscribe or ()), publish=tuple(publish or ()))
    except InvalidTopicError as error:
        misuse(str(error), command="tickertape token")
    if not 0 < expires < 1e10:
        misuse(f"expected --expires to be a number of seconds over 0, got {expires:g}", command="tickertape token")
    try:
        secret = key_file.read_bytes().strip()
    except OSError as error:
        fail(f"cannot read {key_file}: {error.strerror}; next step: openssl rand -base64 48 > {key_file}")
    try:
        JWTVerifier(secret, algorithms=[_ALGORITHM])
    except (ImportError, ValueError) as error:
        fail(f"{key_file}: {error}")
    import jwt

    now = int(time.time())
    rights: dict[str, Any] = {"subscribe": list(grant.subscribe), "publish": list(grant.publish)}
    claims: dict[str, Any] = {claim: {name: value for name, value in rights.items() if value}}
    if admin:
        claims[claim]["admin"] = True
    given = {"sub": user, "iss": issuer, "aud": audience}
    claims |= {name: value for name, value in given.items() if value is not None}
    claims |= {"iat": now, "exp": now + int(expires)}
    typer.echo(jwt.encode(claims, secret, _ALGORITHM))


def key(
    name: Annotated[str, typer.Argument(help="Name of the key, which is the user of its requests.", metavar="NAME")],
    subscribe: Subscribe = None,
    publish: Publish = None,
    admin: Admin = False,
    file: Annotated[Path, typer.Option(help="File of the keys.", metavar="FILE")] = Path("keys.toml"),
) -> None:
    """Make an API key for a hub, and add its hash and its rights to the file of the keys."""
    from ..access import KeyFileError, add_key
    from ..errors import InvalidTopicError

    if not (subscribe or publish or admin):
        misuse("a key needs --subscribe, --publish or --admin", command="tickertape key")
    try:
        made = add_key(file, name, subscribe=subscribe or (), publish=publish or (), admin=admin)
    except KeyFileError as error:
        fail(str(error))
    except (InvalidTopicError, ValueError) as error:
        misuse(str(error), command="tickertape key")
    typer.echo(made)
