"""The application: the commands and the options of ``tickertape``."""

from __future__ import annotations

import difflib
import inspect
import os
import sys
from typing import Annotated, Final

import typer

from .. import __version__
from .access import KEY_EPILOG, TOKEN_EPILOG, key, token
from .bench import BENCH_EPILOG, bench
from .demo import DEMO_EPILOG, demo
from .doctor import DOCTOR_EPILOG, doctor
from .listen import LISTEN_EPILOG, listen
from .publish import PUBLISH_EPILOG, publish
from .serve import SERVE_EPILOG, serve

_PREFIX: Final = "TICKERTAPE_"

_OTHER_VARIABLES: Final = ("TICKERTAPE_URL", "TICKERTAPE_TOKEN_REFUSED")
"""The variables that are no setting of ``serve``."""

_OF_TESTS: Final = "TICKERTAPE_TEST_"
"""Variables of our own tests, which may be in the same shell."""

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
app.command(epilog=TOKEN_EPILOG)(token)
app.command(epilog=KEY_EPILOG)(key)
app.command(epilog=DOCTOR_EPILOG)(doctor)
app.command(epilog=BENCH_EPILOG)(bench)
app.command(epilog=DEMO_EPILOG)(demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tickertape {__version__}")
        raise typer.Exit


def known_variables() -> list[str]:
    """Return the environment variables that the commands read."""
    settings = [name for name in inspect.signature(serve).parameters if name != "config"]
    return [*_OTHER_VARIABLES, *(f"{_PREFIX}{name.upper()}" for name in settings)]


def _check_environment() -> None:
    """Exit with status 2 if the environment has a variable that looks like ours and is none."""
    known = known_variables()
    for variable in os.environ:
        name = variable.upper()
        if name.startswith(_PREFIX) and name not in known and not name.startswith(_OF_TESTS):
            # Without the prefix, which would make all of them alike.
            near = difflib.get_close_matches(name[len(_PREFIX) :], [each[len(_PREFIX) :] for each in known], 1)
            names = f"did you mean {_PREFIX}{near[0]}?" if near else f"the variables are {', '.join(known)}"
            typer.echo(f"tickertape: unknown environment variable {variable}: {names}", err=True)
            raise typer.Exit(2)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""
    if not {"-h", "--help"} & set(sys.argv):
        _check_environment()
