"""The interface does what its description says: Schemathesis makes the requests, valid and invalid ones."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from support.program import serving
from tickertape.access import add_key

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "unsupported_method",
)

STREAMS = ("subscribe", "readRun", "statistics")
"""Operations whose answers have no end."""

LENIENT = ("listRuns", "subscribers", "topics")
"""Operations left out at the boundaries: unknown parameters are ignored."""


async def schemathesis(url: str, folder: Path, *options: str) -> tuple[int, str]:
    """Run it with a fixed seed, and return its status and its report."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{url}openapi.json",
        "--generation-deterministic",
        "--seed=1",
        "--no-color",
        "--request-timeout=60",
        f"--checks={','.join(CHECKS)}",
        *(f"--exclude-operation-id={name}" for name in STREAMS),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_description(tmp_path: Path) -> None:
    """Without access control, with values that are made up from a fixed seed."""
    async with serving("--broker=memory://") as server:
        status, report = await schemathesis(
            server.url, tmp_path, "--phases=examples,fuzzing", "--max-examples=10", "--suppress-health-check=all"
        )
        assert status == 0, report
        assert "Traceback" not in server.output


async def test_boundaries(tmp_path: Path) -> None:
    """With access control, with the values at the limits of each parameter and field."""
    keys = tmp_path / "keys.toml"
    key = add_key(keys, "tester", admin=True)
    async with serving("--broker=memory://", f"--api-key-file={keys}") as server:
        status, report = await schemathesis(
            server.url,
            tmp_path,
            "--phases=coverage",
            f"--header=Authorization: Bearer {key}",
            *(f"--exclude-operation-id={name}" for name in LENIENT),
        )
        assert status == 0, report
        assert "Traceback" not in server.output
