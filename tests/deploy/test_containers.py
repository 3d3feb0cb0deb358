"""Files for containers, and the workflows: valid by their schemas, and true to the program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.testing import CliRunner

from support.program import serving
from tickertape.cli.app import app
from tickertape.server.openapi import describe
from tickertape.server.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
MANIFESTS: list[dict[str, Any]] = [*yaml.safe_load_all((ROOT / "deploy/kubernetes/tickertape.yml").read_text())]
POD: dict[str, Any] = MANIFESTS[0]["spec"]["template"]["spec"]
COMPOSE = {path.name: yaml.safe_load(path.read_text()) for path in sorted(DOCKER.glob("compose.*.yml"))}


def instruction(name: str) -> Any:
    """Return the argument of the last instruction of this name in the Dockerfile."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.+)$", text, re.MULTILINE)[-1]


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    """Return the first mistake that the program finds; the last argument is one."""
    return CliRunner().invoke(app, ["serve", *arguments, "--port", "x"], env=env).stderr


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_manifests_are_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.37", strict=True)


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_is_valid(name: str) -> None:
    check_schema("vendor.compose-spec", DOCKER / name)


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_are_valid(path: Path) -> None:
    check_schema("vendor.github-workflows", path)


def check_schema(schema: str, path: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_options_exist() -> None:
    program, serve, *arguments = json.loads(instruction("ENTRYPOINT"))
    assert (program, serve) == ("/opt/tickertape/bin/tickertape", "serve")
    for more in (
        json.loads(instruction("CMD")),
        POD["containers"][0]["args"],
        *(c["services"]["hub"]["command"] for c in COMPOSE.values()),
    ):
        assert "expected port to be an integer" in refused(*arguments, *more), more


def test_variables_exist() -> None:
    known = {f"TICKERTAPE_{name.upper()}" for name in Settings.model_fields}
    used = {entry["name"] for entry in POD["containers"][0]["env"]}
    for compose in COMPOSE.values():
        used |= compose["services"]["hub"]["environment"].keys()
    assert used <= known


def test_probes() -> None:
    container = POD["containers"][0]
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"/health/live", "/health/ready"}
    assert paths <= describe()["paths"].keys()


def test_time_to_drain() -> None:
    """The drain window, the time before it, and two seconds are over before the kubelet kills the program."""
    window = float(POD["containers"][0]["args"][1])
    before = float(POD["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert before + window + 2 <= POD["terminationGracePeriodSeconds"]
    for compose in COMPOSE.values():
        grace = float(compose["services"]["hub"]["stop_grace_period"].removesuffix("s"))
        assert Settings().drain_window + 2 <= grace


async def test_health_check_of_the_image() -> None:
    _, _, code = json.loads(instruction("HEALTHCHECK").partition("CMD")[2])
    async with serving() as program:
        there = code.replace("127.0.0.1:8000", f"127.0.0.1:{program.port}")
        assert run_check(there) == 0
        await program.end()
        assert run_check(there) != 0


def run_check(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode


def test_image_copies_what_the_build_needs() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    [copied] = re.findall(r"^COPY (pyproject.+) \./$", text, re.MULTILINE)
    for name in (*copied.split(), "src"):
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored
