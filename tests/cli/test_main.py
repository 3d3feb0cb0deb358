"""The entry point, its help and its errors, as a person at a terminal gets them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import tickertape
from tickertape.cli.app import known_variables
from tickertape.server.settings import Settings

SCRIPT = [str(Path(sys.executable).parent / "tickertape")]
MODULE = [sys.executable, "-m", "tickertape"]


def run(*arguments: str, command: list[str] = SCRIPT, env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Return the exit status, the output and the errors."""
    result = subprocess.run(
        [*command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "COLUMNS": "100", **(env or {})},
    )
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(command: list[str], option: str) -> None:
    assert run(option, command=command) == (0, f"tickertape {tickertape.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--help"], ["Server-Sent Events", "tickertape demo", "--version", "NO_COLOR"]),
        (["-h"], ["Server-Sent Events"]),
        (
            ["demo", "--help"],
            ["/events", "--host", "127.0.0.1", "--port", "8000", "--interval", "Ctrl-C", "Examples:", "--port 0"],
        ),
    ],
)
def test_help(arguments: list[str], message: list[str]) -> None:
    status, output, errors = run(*arguments)
    assert (status, errors) == (0, "")
    assert [text for text in message if text not in output] == []
    assert "`" not in output  # the markup is rendered


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {}])
def test_no_colours(env: dict[str, str]) -> None:
    _, output, _ = run("--help", env=env)
    assert "\x1b[3" not in output
    assert "\x1b[9" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense"),
        (["demo", "--port", "70000"], "65535"),
        (["demo", "--port", "http"], "integer"),
        (["demo", "--interval", "0"], "0"),
        (["demo", "--nonsense"], "--nonsense"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert message in errors
    assert "Traceback" not in errors


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, output, errors = run("demo", "--port", str(port))
    assert (status, output) == (1, "")
    assert errors == f"tickertape: port {port} is in use; next step: tickertape demo --port {port + 1}\n"


def test_foreign_address() -> None:
    status, output, errors = run("demo", "--host", "192.0.2.1")  # RFC 5737: no machine has it
    assert (status, output) == (1, "")
    step = "next step: tickertape demo --host 127.0.0.1"
    assert errors == f"tickertape: '192.0.2.1' is no address of this machine; {step}\n"


def test_missing_extras() -> None:
    source = str(Path(tickertape.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r}); from tickertape.cli import main; main()"
    status, output, errors = run("--help", command=[sys.executable, "-I", "-S", "-c", code])
    assert (status, output) == (1, "")
    assert errors == (
        "tickertape: the package 'typer' is not installed; "
        "next step: python -m pip install 'tickertape[client,server]'\n"
    )


@pytest.mark.parametrize("package", ["uvicorn", "itsdangerous", "psutil"])
def test_demo_names_its_extra(package: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; from tickertape.cli import main; main()"
    status, output, errors = run("demo", command=[sys.executable, "-c", code])
    assert (status, output) == (1, "")
    assert errors == (
        f"tickertape: the package {package!r} is not installed; next step: python -m pip install 'tickertape[demo]'\n"
    )


WITHOUT_HTTPX2 = "import sys; sys.modules['httpx2'] = None; from tickertape.cli import main; main()"


@pytest.mark.parametrize("arguments", [("--help",), ("serve", "--help"), ("doctor", "--help")])
def test_help_without_client(arguments: tuple[str, ...]) -> None:
    """The server alone needs no HTTP client."""
    status, _, errors = run(*arguments, command=[sys.executable, "-c", WITHOUT_HTTPX2])
    assert (status, errors) == (0, "")


@pytest.mark.parametrize("arguments", [("listen", "a"), ("publish", "a", "x"), ("doctor", "http://127.0.0.1")])
def test_client_commands_without_client(arguments: tuple[str, ...]) -> None:
    status, output, errors = run(*arguments, command=[sys.executable, "-c", WITHOUT_HTTPX2])
    assert (status, output) == (1, "")
    assert errors == (
        "tickertape: the package 'httpx2' is not installed; next step: python -m pip install 'tickertape[client]'\n"
    )


def test_import_error_of_our_own() -> None:
    code = "import sys; sys.modules['tickertape.demo'] = None; from tickertape.cli import main; main()"
    status, _, errors = run("demo", command=[sys.executable, "-c", code])
    assert status == 1
    assert "Traceback" in errors


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("TICKERTAPE_PROT", "did you mean TICKERTAPE_PORT?"),
        ("TICKERTAPE_URLS", "did you mean TICKERTAPE_URL?"),
        ("tickertape_hearbeat", "did you mean TICKERTAPE_HEARTBEAT?"),
        ("TICKERTAPE_X", "the variables are TICKERTAPE_URL, "),
    ],
)
def test_unknown_variables(variable: str, message: str) -> None:
    status, output, errors = run("doctor", "http://127.0.0.1", env={variable: "1"})
    assert (status, output) == (2, "")
    assert errors.startswith(f"tickertape: unknown environment variable {variable}: {message}")


@pytest.mark.parametrize(("arguments", "expected"), [(("serve",), 2), (("serve", "--help"), 0)])
def test_unknown_variable_of_a_setting(arguments: tuple[str, ...], expected: int) -> None:
    assert run(*arguments, env={"TICKERTAPE_PROT": "1"})[0] == expected


def test_known_variables_are_the_settings() -> None:
    settings = {f"TICKERTAPE_{name.upper()}" for name in Settings.model_fields}
    assert {
        name for name in known_variables() if name not in ("TICKERTAPE_URL", "TICKERTAPE_TOKEN_REFUSED")
    } == settings
