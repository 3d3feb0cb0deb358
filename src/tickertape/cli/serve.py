"""``tickertape serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from .console import address_of, explain, fail

__all__ = ["SERVE_EPILOG", "serve"]

SERVE_EPILOG: Final = """Every setting may also come from the environment, as `TICKERTAPE_PORT=9000`, or from the
file of `--config`, in TOML, as `port = 9000`. A flag wins over the environment, the environment over the file.
`none` means no limit.

Examples:

- `tickertape serve`: at http://127.0.0.1:8000, for this machine alone
- `tickertape serve --host 0.0.0.0 --cors-origin https://example.org`: for other machines, and for the pages of a site
- `tickertape serve --config /etc/tickertape.toml`
"""

_SOME: Final = "SECONDS|none"


def _option(help: str, metavar: str, default: str) -> Any:
    # All as text: the settings check it, by the same rules wherever it comes from.
    return typer.Option(help=f"{help} Default: {default}.", metavar=metavar, show_default=False)


def serve(
    host: Annotated[
        str | None, _option("Address to listen at; 0.0.0.0 lets other machines in.", "ADDRESS", "127.0.0.1")
    ] = None,
    port: Annotated[str | None, _option("Port to listen at; 0 takes a free one.", "PORT", "8000")] = None,
    broker: Annotated[str | None, _option("Where events are kept.", "URL", "sqlite:///tickertape.db")] = None,
    workers: Annotated[
        str | None, _option("Processes; more than one needs a broker that they can share.", "NUMBER", "1")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="File with settings, in TOML. Default: none.", metavar="FILE")
    ] = None,
    retention_events: Annotated[str | None, _option("Events that are kept.", "NUMBER|none", "100000")] = None,
    retention_bytes: Annotated[
        str | None, _option("Bytes that are kept, as 67108864 or 64MiB.", "BYTES|none", "64MiB")
    ] = None,
    retention_age: Annotated[str | None, _option("Age up to which events are kept.", _SOME, "none")] = None,
    heartbeat: Annotated[str | None, _option("Silence after which a stream gets a comment.", _SOME, "15")] = None,
    send_timeout: Annotated[
        str | None, _option("Time after which a subscriber that takes nothing is dropped.", _SOME, "30")
    ] = None,
    retry: Annotated[
        str | None, _option("Time after which clients reconnect, give or take a fifth.", "SECONDS", "3")
    ] = None,
    max_event_size: Annotated[str | None, _option("Bytes of an event's data.", "BYTES", "1MiB")] = None,
    max_topics: Annotated[str | None, _option("Topic patterns of a subscription.", "NUMBER", "100")] = None,
    drain_window: Annotated[
        str | None, _option("Time over which streams are ended when the server stops.", "SECONDS", "5")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        _option("Origin whose pages may read and publish, or *; may be repeated.", "ORIGIN", "none"),
    ] = None,
    log_level: Annotated[str | None, _option("What is logged: debug, info, warning or error.", "LEVEL", "info")] = None,
    access_log: Annotated[
        bool | None,
        typer.Option("--access-log/--no-access-log", help="Log each request. Default: no.", show_default=False),
    ] = None,
) -> None:
    """Run a hub: publish events to topics, and subscribe to them, over plain HTTP.

    A page at `/` shows the stream; `/openapi.json` describes all requests.

    `Ctrl-C`, or SIGTERM, stops it: it ends the streams one after the other, and their clients come back later.
    """
    flags = {name: value for name, value in locals().items() if name != "config" and value not in (None, [])}
    from ..broker.urls import without_secrets
    from ..errors import BrokerError
    from ..server import listen
    from ..server.program import reach_broker
    from ..server.program import serve as run
    from ..server.run import NotStartedError
    from ..server.settings import SettingsError, load_settings

    try:
        settings = load_settings(flags, config)
    except SettingsError as error:
        _misuse(str(error))
    shown = without_secrets(settings.broker)
    try:
        listener = listen(settings.host, settings.port, workers=settings.workers)
    except OSError as error:
        fail(explain(error, settings.host, settings.port, command="tickertape serve"))
    try:
        with listener:
            reach_broker(settings)
            run(settings, listener, on_start=lambda: _greet(address_of(listener), shown))
    except BrokerError as error:
        fail(f"the broker {shown} cannot be used: {error}")
    except NotStartedError:
        fail("the server could not start; the log above says why")


def _misuse(sentence: str) -> NoReturn:
    typer.echo(f"tickertape: {sentence}; next step: tickertape serve --help", err=True)
    raise typer.Exit(2)


def _greet(address: str, broker: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"[bold]tickertape serve[/bold] at [bold green]{escape(address)}/[/bold green] (open it in a browser)"
    )
    console.print(f"Broker: {escape(broker)}")
    console.print(f"Subscribe: curl -N '{escape(address)}/events?topic=greetings'")
    console.print(f"Publish: curl -d hello {escape(address)}/events/greetings")
    console.print("To stop: Ctrl-C")
