"""``tickertape demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from .console import address_of, explain, fail, set_up_logging

DEMO_EPILOG: Final = """Examples:

- `tickertape demo`: serve http://127.0.0.1:8000 to this machine only
- `tickertape demo --host 0.0.0.0`: serve a phone in the same network too
- `tickertape demo --port 0 --interval 0.5`: use a free port, and update the clock twice per second
"""


def demo(
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; 0.0.0.0 accepts connections from other machines.", metavar="ADDRESS"),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free port.", metavar="PORT")
    ] = 8000,
    interval: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Seconds between two updates of the clock.", metavar="SECONDS")
    ] = 2.0,
    metrics_interval: Annotated[
        float,
        typer.Option(min=0.5, max=60, help="Seconds between two samples of the dashboard.", metavar="SECONDS"),
    ] = 1.0,
    data: Annotated[
        Path, typer.Option(help="Folder for the data of the demos; created if it does not exist.", metavar="FOLDER")
    ] = Path("tickertape-demo"),
    database: Annotated[
        str | None,
        typer.Option(
            help="Database with the table of notifications: postgresql://… or sqlite:///…. Default: in the folder.",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            help="Queue whose messages become notifications: nats://host/subject. Default: none.",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve five example applications for the browser.

    The page at `/` links to all of them. The stream at `/events` sends a `connected` event and then the time every two
    seconds; the page at `/clock/` shows it. Stop the server while a page is open and start it again: the page continues
    where it was, and shows nothing twice.

    Press `Ctrl-C` to stop the server.
    """
    from ..asgi import DEFAULT_SEND_TIMEOUT, set_tcp_timeout, tcp_timeout_for
    from ..demo import TableError, check_database, create_app
    from ..errors import BrokerError
    from ..server import NotStartedError, listen, run

    set_up_logging()
    try:
        app = create_app(data, interval=interval, metrics_interval=metrics_interval, database=database, queue=queue)
        if database is not None:
            check_database(database)
    except (ValueError, TableError, BrokerError) as error:
        fail(f"{error}; next step: tickertape demo --help")
    except OSError as error:
        fail(f"cannot write to the folder {data}: {error.strerror}; next step: tickertape demo --data FOLDER")
    try:
        listener = listen(host, port)
    except OSError as error:
        fail(explain(error, host, port, command="tickertape demo"))
    set_tcp_timeout(listener, tcp_timeout_for(DEFAULT_SEND_TIMEOUT))
    try:
        run(app, listener, grace=1, on_start=lambda: _greet(address_of(listener)))
    except NotStartedError:
        fail("the demo did not start: see the log above")


def _greet(address: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]tickertape demo[/bold] at [bold green]{escape(address)}/[/bold green] (open it in a browser)")
    console.print(f"In a terminal: curl -N {escape(address)}/events")
    console.print("To stop: Ctrl-C")
