"""The application: the commands and the options of ``tickertape``."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .bench import BENCH_EPILOG, bench
from .demo import DEMO_EPILOG, demo
from .doctor import DOCTOR_EPILOG, doctor
from .listen import LISTEN_EPILOG, listen
from .publish import PUBLISH_EPILOG, publish
from .serve import SERVE_EPILOG, serve

app = typer.Typer(
    name="tickertape",
    help=(
        "Server-Sent Events: events pushed from a server to browsers and programs, over plain HTTP, "
        "and resumed after every interruption.\n\n"
        "Start with `tickertape demo` and open the address that it prints."
    ),
    epilog="`tickertape COMMAND --help` explains a command. Set `NO_COLOR` for output without colours.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=SERVE_EPILOG)(serve)
app.command(epilog=LISTEN_EPILOG)(listen)
app.command(epilog=PUBLISH_EPILOG)(publish)
app.command(epilog=DOCTOR_EPILOG)(doctor)
app.command(epilog=BENCH_EPILOG)(bench)
app.command(epilog=DEMO_EPILOG)(demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tickertape {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
