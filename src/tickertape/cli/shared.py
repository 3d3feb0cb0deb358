"""What the commands that talk to servers share: their options, and how they tell of what went wrong."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Final, NoReturn, TypeAlias

import typer
from rich.console import Console

__all__ = [
    "DEFAULT_URL",
    "HeaderOption",
    "HubOption",
    "NoColorOption",
    "Stop",
    "headers_of",
    "leave_pipe",
    "misuse",
    "quiet_logs",
    "stderr_console",
    "until_told_to_stop",
]

DEFAULT_URL: Final = "http://127.0.0.1:8000"
"""Where ``tickertape serve`` listens unless it is told otherwise."""

HubOption: TypeAlias = Annotated[
    str,
    typer.Option("--url", envvar="TICKERTAPE_URL", help="Address of the hub that the topics are of.", metavar="URL"),
]

HeaderOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        "-H",
        help="Header of each request, as 'Authorization: Bearer …'; may be repeated. Default: none.",
        metavar="NAME:VALUE",
        show_default=False,
    ),
]

NoColorOption: TypeAlias = Annotated[
    bool, typer.Option("--no-color", help="Print without colours, as with `NO_COLOR` in the environment.")
]


def headers_of(lines: Sequence[str] | None, *, command: str) -> dict[str, str]:
    """Return the headers that options gave, each as ``Name: value``."""
    pairs = [line.partition(":") for line in lines or ()]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            misuse(f"expected a header as 'Name: value', got {name!r}", command=command)
    return {name.strip(): value.strip() for name, _, value in pairs}


def misuse(sentence: str, *, command: str) -> NoReturn:
    """Tell somebody that the command cannot be meant like that, and exit with status 2."""
    typer.echo(f"tickertape: {sentence}; next step: {command} --help", err=True)
    raise typer.Exit(2)


def stderr_console(no_color: bool) -> Console:
    """Return where to tell of what happens: not among the output, which may go to a pipe."""
    return Console(stderr=True, highlight=False, soft_wrap=True, no_color=no_color or None)


def quiet_logs() -> None:
    """Keep the client's log out of the output: the command says the same in its own words."""
    logger = logging.getLogger("tickertape")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


class Stop:
    """Turn SIGINT and SIGTERM into :class:`KeyboardInterrupt`, but not in the middle of what must not be halved."""

    def __init__(self) -> None:
        self._holding = False
        self._told = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a signal wait for the end of the block; a second one does not wait: the block may hang."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._told:
            raise KeyboardInterrupt

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if not self._holding or self._told:
            raise KeyboardInterrupt
        self._told = True


@contextmanager
def until_told_to_stop() -> Iterator[Stop]:
    """Run the block; let SIGINT and SIGTERM end it by a :class:`KeyboardInterrupt`."""
    stop = Stop()
    former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def leave_pipe() -> None:
    """Let what is still to be flushed to a closed pipe at the exit go nowhere."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
