"""The agent and the client of the page, with the installed SDK, over our package in place of sse-starlette."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2

from support.page_program import run_program, serve_page

REQUEST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "SendStreamingMessage",
    "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "count"}]}},
}


async def test_page(tmp_path: Path) -> None:
    """A streaming message, and a second client that joins the task while it runs."""
    with serve_page("frameworks/mcp", "agent:app", tmp_path) as [site]:
        lines = await asyncio.to_thread(run_program, tmp_path, "ask.py")
        states = [*(f"TASK_STATE_WORKING {number}" for number in (1, 2, 3)), "TASK_STATE_COMPLETED done"]
        assert [line.removeprefix("first ") for line in lines if line.startswith("first ")] == states
        seen = [line.removeprefix("second ") for line in lines if line.startswith("second ")]
        assert seen
        assert seen == states[-len(seen) :]

        async with (
            httpx2.AsyncClient(headers={"A2A-Version": "1.0"}) as client,
            client.stream("POST", f"http://127.0.0.1:{site.port}/", json=REQUEST) as answer,
        ):
            # Only our package asks proxies to pass on each part.
            assert answer.headers["incremental"] == "?1"
            text = "".join([part async for part in answer.aiter_text()])
        assert text.count("data: ") == 5
        assert text.endswith("\r\n\r\n")
