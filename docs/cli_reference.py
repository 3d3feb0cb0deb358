"""Write ``reference/cli.md`` from the commands themselves: ``python docs/cli_reference.py``.

A test compares the page with the commands, and runs the transcripts of ``publish`` and ``listen``.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import typer

from tickertape.cli.app import app

PAGE = Path(__file__).parent / "reference" / "cli.md"

START = """# The command line

You get `tickertape` with `pip install 'tickertape[client,server]'`. `--help` explains each command. An error is one
sentence on standard error with the next step, and an exit status: 1 for a failure, 2 for a mistake in the command.

If `NO_COLOR` is set in the environment, the output has no colours. `TICKERTAPE_URL` sets the hub of `listen` and
`publish`; `--url` overrides it. The settings of `serve` are the other variables. A variable that begins with
`TICKERTAPE_` and is none of them is a mistake, and every command refuses it.

## Completion

With `tickertape --install-completion`, your shell (bash, zsh or fish) completes commands and options after its next
start. `tickertape --show-completion` prints the script instead, so that you can store it yourself:

```console
$ tickertape --show-completion > ~/.local/share/bash-completion/completions/tickertape
```
"""

TRANSCRIPTS = {
    "serve": """
$ tickertape serve
tickertape serve at http://127.0.0.1:8000/ (open it in a browser)
Broker: sqlite:///tickertape.db
Subscribe: curl -N 'http://127.0.0.1:8000/events?topic=greetings'
Publish: curl -d hello http://127.0.0.1:8000/events/greetings
To stop: Ctrl-C
""",
    "publish": """
$ tickertape publish greetings hello
5b0c3a9e1f24-1
$ tickertape publish orders/42 '{"total": 99}' --event paid --key order-42-paid
5b0c3a9e1f24-2
$ tickertape publish orders/42 '{"total": 99}' --event paid --key order-42-paid
5b0c3a9e1f24-2
$ printf 'one\\ntwo\\n' | tickertape publish log/web
5b0c3a9e1f24-4
tickertape: published 2 events
$ tickertape publish 'orders/*' hello
tickertape: expected a topic without '*', got 'orders/*': wildcards are for subscriptions; next step: tickertape \
publish --help
""",
    "listen": """
$ tickertape listen orders/42 greetings --last 2 | head -2
tickertape: connected to http://127.0.0.1:8000/events
{"id": "5b0c3a9e1f24-1", "event": "message", "topic": "greetings", "data": "hello"}
{"id": "5b0c3a9e1f24-2", "event": "paid", "topic": "orders/42", "data": {"total": 99}}
$ tickertape listen orders/42 --since 5b0c3a9e1f24-1 | head -1
tickertape: connected to http://127.0.0.1:8000/events
{"id": "5b0c3a9e1f24-2", "event": "paid", "topic": "orders/42", "data": {"total": 99}}
$ tickertape listen http://127.0.0.1:8000/
tickertape: expected content type 'text/event-stream' from http://127.0.0.1:8000/, got 'text/html; charset=utf-8'; \
next step: give the URL of an event stream, or a topic and --url with a hub's address
""",
    "doctor": """
$ tickertape doctor 'http://127.0.0.1:8000/events?topic=greetings&last=3' --seconds 2
http://127.0.0.1:8000/events
                    found                                         what to do
ok    status        200 after 5 ms
ok    content type  text/event-stream
info  HTTP          HTTP/1.1, without TLS                         browsers open six connections to a host over
                                                                  HTTP/1.1, for all tabs, and speak HTTP/2 only
                                                                  over TLS
info  TLS           none, on this machine
ok    caching       Cache-Control: no-store, no-transform
ok    Incremental   ?1
ok    compression   none
ok    first byte    1 ms after the head
ok    buffering     none seen; at most 3 events at once
info  heartbeat     none needed in 2 s                            look for longer: --seconds 40
ok    ids           all 3 events have one
ok    retry         2674 ms
ok    resume        after 5b0c3a9e1f24-1 the same event followed
""",
    "bench": """
$ tickertape bench
100 events to 300 subscribers, the best of 3 rounds
                     µs a delivery  deliveries/s of one core  to the bare loop
bare loop of writes            7.9                   126,152              1.00
tickertape hub                11.1                    90,260              1.40
""",
    "demo": """
$ tickertape demo
tickertape demo at http://127.0.0.1:8000/ (open it in a browser)
In a terminal: curl -N http://127.0.0.1:8000/events
To stop: Ctrl-C
""",
}


def page() -> str:
    """Return the whole page."""
    group: Any = typer.main.get_command(app)
    return "\n".join([START, *(section(name, command) for name, command in group.commands.items())])


def section(name: str, command: Any) -> str:
    """Return the section about one command."""
    parts = [f"## tickertape {name}", inspect.cleandoc(command.help)]
    if name in TRANSCRIPTS:
        parts.append(f"```console\n{TRANSCRIPTS[name].strip()}\n```")
    rows = [row(parameter) for parameter in command.params if parameter.name != "help"]
    parts.append("\n".join(["| | |", "|---|---|", *rows]))
    parts.append(inspect.cleandoc(command.epilog))
    return "\n\n".join(parts) + "\n"


def row(parameter: Any) -> str:
    """Return a row of the table of options."""
    metavar = (parameter.metavar or "").replace("|", "\\|")
    names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    is_argument = parameter.param_type_name == "argument"
    shown = f"`{metavar}`" if is_argument else f"{names} `{metavar}`" if metavar else names
    text = parameter.help or ""
    if parameter.show_default and parameter.default not in (None, False) and not is_argument:
        text += f" Default: {parameter.default}."
    if parameter.envvar:
        text += f" From the environment: `{parameter.envvar}`."
    return f"| {shown} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(page())
