"""``tickertape serve``."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from .console import address_of, explain, fail, misuse

SERVE_EPILOG: Final = """You can also put every setting into the environment, as `TICKERTAPE_PORT=9000`, or into the
TOML file of `--config`, as `port = 9000`. A flag wins over the environment, the environment over the file.
`none` means no limit.

Examples:

- `tickertape serve`: serve http://127.0.0.1:8000 to this machine only
- `tickertape serve --host 0.0.0.0 --jwt-key-file key.pem --cors-origin https://example.org`: serve other machines and
  the pages of a site, with tokens
- `tickertape serve --host 0.0.0.0 --open`: serve other machines without access control
- `tickertape serve --config /etc/tickertape.toml`: read the settings from a file
"""

_SOME: Final = "SECONDS|none"


def _option(help: str, metavar: str, default: str) -> Any:
    # Flags stay text here: the settings check them by the same rules as the environment and the file.
    return typer.Option(help=f"{help} Default: {default}.", metavar=metavar, show_default=False)


def serve(
    host: Annotated[
        str | None,
        _option("Address to listen on; 0.0.0.0 accepts connections from other machines.", "ADDRESS", "127.0.0.1"),
    ] = None,
    port: Annotated[str | None, _option("Port to listen on; 0 chooses a free port.", "PORT", "8000")] = None,
    uds: Annotated[str | None, _option("Unix socket to listen on, instead of an address.", "PATH", "none")] = None,
    root_path: Annotated[
        str | None, _option("Path below which a proxy publishes the hub, as /live.", "PATH", "none")
    ] = None,
    tls_cert: Annotated[
        str | None, _option("Certificate for HTTPS, in PEM; SIGHUP reads it again.", "FILE", "none")
    ] = None,
    tls_key: Annotated[str | None, _option("Private key of the certificate, in PEM.", "FILE", "none")] = None,
    broker: Annotated[str | None, _option("Broker that keeps the events.", "URL", "sqlite:///tickertape.db")] = None,
    workers: Annotated[
        str | None, _option("Number of processes; more than one needs a broker that they can share.", "NUMBER", "1")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings. Default: none.", metavar="FILE")] = None,
    retention_events: Annotated[str | None, _option("Number of events to keep.", "NUMBER|none", "100000")] = None,
    retention_bytes: Annotated[
        str | None, _option("Bytes of events to keep, as 67108864 or 64MiB.", "BYTES|none", "64MiB")
    ] = None,
    retention_age: Annotated[str | None, _option("Age up to which to keep events.", _SOME, "none")] = None,
    retention_topic: Annotated[
        list[str] | None,
        _option(
            "Separate limits for some topics, as 'metrics/**=60s' or 'audit/**=90d+1GiB'; can be repeated.",
            "PATTERN=LIMITS",
            "none",
        ),
    ] = None,
    heartbeat: Annotated[str | None, _option("Silence after which to send a heartbeat.", _SOME, "15")] = None,
    send_timeout: Annotated[
        str | None, _option("Time after which to disconnect a subscriber that reads nothing.", _SOME, "30")
    ] = None,
    retry: Annotated[str | None, _option("Time after which clients reconnect, ± 20 %.", "SECONDS", "3")] = None,
    max_event_size: Annotated[str | None, _option("Largest data of an event, in bytes.", "BYTES", "1MiB")] = None,
    max_topics: Annotated[
        str | None, _option("Largest number of topic patterns of a subscription.", "NUMBER", "100")
    ] = None,
    drain_window: Annotated[
        str | None, _option("Longest time over which to end the streams when the server stops.", "SECONDS", "5")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _option("Origin whose pages may read and publish, or *; can be repeated.", "ORIGIN", "none"),
    ] = None,
    cors_credentials: Annotated[
        bool | None,
        typer.Option(
            "--cors-credentials/--no-cors-credentials",
            help="Allow these pages to send cookies and to authenticate. Default: no.",
            show_default=False,
        ),
    ] = None,
    cors_max_age: Annotated[
        str | None, _option("Time for which browsers remember what pages may send.", "SECONDS", "600")
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        _option("Name under which the server is reached, *.example.org, or *; can be repeated.", "NAME", "none"),
    ] = None,
    trusted_proxies: Annotated[
        list[str] | None,
        _option("Address or network of a proxy whose X-Forwarded-For counts; can be repeated.", "NETWORK", "none"),
    ] = None,
    head_timeout: Annotated[str | None, _option("Time for the head of a request.", _SOME, "10")] = None,
    body_timeout: Annotated[str | None, _option("Time for the body of a request.", _SOME, "30")] = None,
    body_rate: Annotated[
        str | None, _option("Bytes of a body for each of which it may take a second more.", "BYTES|none", "32KiB")
    ] = None,
    keep_alive: Annotated[
        str | None, _option("Time for which a connection may stay open between requests.", "SECONDS", "5")
    ] = None,
    max_head_size: Annotated[str | None, _option("Largest head of a request, in bytes.", "BYTES", "32KiB")] = None,
    max_headers: Annotated[str | None, _option("Largest number of headers of a request.", "NUMBER", "100")] = None,
    max_body_memory: Annotated[
        str | None, _option("Memory for all large bodies that are being received.", "BYTES|none", "64MiB")
    ] = None,
    max_answer_memory: Annotated[
        str | None, _option("Memory for all large answers that are not read yet.", "BYTES|none", "64MiB")
    ] = None,
    max_batch: Annotated[str | None, _option("Largest number of events of a batch.", "NUMBER", "10000")] = None,
    max_values: Annotated[
        str | None, _option("Largest number of values in an event of JSON.", "NUMBER|none", "50000")
    ] = None,
    max_digits: Annotated[
        str | None, _option("Largest number of digits of an integer in JSON, up to 4300.", "NUMBER", "400")
    ] = None,
    max_history_bytes: Annotated[
        str | None, _option("Largest page of the history, in bytes of data.", "BYTES", "1MiB")
    ] = None,
    client_connections: Annotated[
        str | None, _option("Largest number of connections of one address.", "NUMBER|none", "10000")
    ] = None,
    max_streams: Annotated[str | None, _option("Largest number of streams.", "NUMBER|none", "none")] = None,
    client_streams: Annotated[
        str | None, _option("Largest number of streams of one client.", "NUMBER|none", "none")
    ] = None,
    stream_rate: Annotated[str | None, _option("New streams per second.", "NUMBER|none", "none")] = None,
    client_stream_rate: Annotated[
        str | None, _option("New streams per second of one client.", "NUMBER|none", "none")
    ] = None,
    publish_rate: Annotated[str | None, _option("Published events per second.", "NUMBER|none", "none")] = None,
    client_publish_rate: Annotated[
        str | None, _option("Published events per second of one client.", "NUMBER|none", "none")
    ] = None,
    publish_bytes: Annotated[str | None, _option("Published bytes per second.", "BYTES|none", "none")] = None,
    client_publish_bytes: Annotated[
        str | None, _option("Published bytes per second of one client.", "BYTES|none", "none")
    ] = None,
    publish_wait: Annotated[
        str | None, _option("Time for which a publisher waits for slow readers, before it is refused.", _SOME, "none")
    ] = None,
    open: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open",
            help="Serve other machines without access control. Default: no.",
            show_default=False,
        ),
    ] = None,
    jwt_key_file: Annotated[
        str | None, _option("File with the secret or the public key (PEM) of tokens.", "FILE|none", "none")
    ] = None,
    jwks_url: Annotated[str | None, _option("URL of the public keys of tokens.", "URL|none", "none")] = None,
    jwt_algorithm: Annotated[
        list[str] | None,
        _option("Allowed algorithm of tokens, instead of those of the key; can be repeated.", "NAME", "none"),
    ] = None,
    jwt_issuer: Annotated[str | None, _option("Issuer that tokens must have.", "TEXT|none", "none")] = None,
    jwt_audience: Annotated[str | None, _option("Audience that tokens must be for.", "TEXT|none", "none")] = None,
    jwt_leeway: Annotated[str | None, _option("Seconds by which clocks may differ.", "SECONDS", "10")] = None,
    jwt_claim: Annotated[
        str | None, _option("Claim with the rights; `mercure` for Mercure's.", "NAME", "tickertape")
    ] = None,
    jwt_subscribe: Annotated[
        list[str] | None,
        _option("Pattern that every token may read, as 'users/{sub}/**'; can be repeated.", "PATTERN", "none"),
    ] = None,
    jwt_publish: Annotated[
        list[str] | None,
        _option("Pattern to which every token may publish; can be repeated.", "PATTERN", "none"),
    ] = None,
    api_key_file: Annotated[
        str | None, _option("File with API keys, as `tickertape key` writes it.", "FILE|none", "none")
    ] = None,
    ticket_secret_file: Annotated[
        str | None,
        _option("File with the secret that signs tickets, for several machines.", "FILE|none", "none"),
    ] = None,
    cookie: Annotated[str | None, _option("Cookie that may carry a token or a key.", "NAME|none", "none")] = None,
    anonymous_subscribe: Annotated[
        list[str] | None,
        _option("Pattern that requests without a credential may read; can be repeated.", "PATTERN", "none"),
    ] = None,
    anonymous_publish: Annotated[
        list[str] | None,
        _option("Pattern to which they may publish; can be repeated.", "PATTERN", "none"),
    ] = None,
    max_age: Annotated[
        str | None, _option("Age at which a stream ends, so that its client reconnects.", _SOME, "none")
    ] = None,
    metrics: Annotated[
        str | None,
        _option(
            "Requests that /metrics answers: open (all), admin (if access is controlled, those of administrators) or "
            "off (none).",
            "open|admin|off",
            "admin",
        ),
    ] = None,
    log_level: Annotated[
        str | None, _option("Level of the log: debug, info, warning or error.", "LEVEL", "info")
    ] = None,
    log_format: Annotated[str | None, _option("Format of the log: text or json.", "FORMAT", "text")] = None,
    access_log: Annotated[
        bool | None,
        typer.Option(
            "--access-log/--no-access-log",
            help="Log each request, and each stream when it opens and ends. Default: no.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a hub: publish events to topics and subscribe to topics over plain HTTP.

    The page at `/` shows the stream of events; `/openapi.json` describes all requests.

    Press `Ctrl-C` or send SIGTERM to stop it. The server ends the streams one after the other; clients reconnect later.
    """
    flags = {name: value for name, value in locals().items() if name != "config" and value not in (None, [])}
    from ..broker import without_secrets
    from ..errors import BrokerError
    from ..server import (
        NotStartedError,
        SettingsError,
        check_broker,
        check_exposure,
        check_files,
        load_settings,
    )
    from ..server import serve as run

    try:
        settings = load_settings(flags, config)
        check_files(settings)
    except SettingsError as error:
        misuse(str(error), command="tickertape serve")
    shown = without_secrets(settings.broker)
    listener = _listen(settings)
    scheme = "http" if settings.certificate is None else "https"
    try:
        with listener:
            check_exposure(settings, listener)
            check_broker(settings)
            run(
                settings,
                listener,
                on_start=lambda: _greet(address_of(listener, scheme, settings.root_path or ""), shown),
                load=lambda: load_settings(flags, config),
            )
    except BrokerError as error:
        fail(f"the broker {shown} does not work: {error}")
    except SettingsError as error:
        misuse(str(error), command="tickertape serve")
    except NotStartedError:
        fail("the server did not start: see the log above")
    finally:
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


def _listen(settings: Any) -> socket.socket:
    from ..server import inherited_socket, listen, listen_at_path

    try:
        if (listener := inherited_socket()) is not None:
            return listener
        if settings.uds is not None:
            return listen_at_path(settings.uds)
        return listen(settings.host, settings.port, workers=settings.workers)
    except OSError as error:
        if settings.uds is not None:
            fail(f"cannot listen at {settings.uds}: {error.strerror or error}")
        fail(explain(error, settings.host, settings.port, command="tickertape serve"))


def _greet(address: str, broker: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    at, hint = (address, "") if address.startswith("unix:") else (address + "/", " (open it in a browser)")
    console.print(f"[bold]tickertape serve[/bold] at [bold green]{escape(at)}[/bold green]{hint}")
    console.print(f"Broker: {escape(broker)}")
    curl, url = "curl", address
    if address.startswith("unix:"):
        curl, url = f"curl --unix-socket {address.removeprefix('unix:')}", "http://localhost"
    console.print(f"Subscribe: {escape(curl)} -N '{escape(url)}/events?topic=greetings'")
    console.print(f"Publish: {escape(curl)} -d hello {escape(url)}/events/greetings")
    console.print("To stop: Ctrl-C")
