"""The interface does what its description says: Schemathesis makes the requests, valid and invalid ones."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from support.program import serving

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

STREAMS = ("subscribe", "readRun")
"""Operations whose answers have no end."""


async def schemathesis(url: str, folder: Path, *options: str) -> tuple[int, str]:
    """Run it with a fixed seed, and return its status and its report."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{url}openapi.json",
        "--phases=examples,fuzzing",
        "--generation-deterministic",
        "--seed=1",
        "--no-color",
        *(f"--exclude-operation-id={name}" for name in STREAMS),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_description(tmp_path: Path) -> None:
    async with serving("--broker=memory://") as server:
        status, report = await schemathesis(server.url, tmp_path, f"--checks={','.join(CHECKS)}", "--max-examples=25")
        assert status == 0, report
        assert "Traceback" not in server.output
