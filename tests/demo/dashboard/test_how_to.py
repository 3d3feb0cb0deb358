"""The how-to page on the dashboard: run its code and open it in a browser."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from support.browser import open_tab
from support.servers import Program, free_port

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "dashboard.md"
FILES = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
UPLOT = files("tickertape.demo.dashboard") / "web"

DRAWN = """
() => {
    const canvas = document.querySelector("canvas");
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < data.length; at += 4)
        if (data[at] < 60 && data[at + 1] < 140 && data[at + 2] > 190 && data[at + 3] > 200) return true;
    return false;
}
"""
"""True if the chart contains the colour of the memory line."""


def write(folder: Path) -> None:
    (folder / "web").mkdir()
    for name, text in FILES:
        (folder / name).write_text(text, "utf-8")
    for name in ("uPlot.esm.js", "uPlot.min.css"):
        shutil.copy(str(UPLOT / name), folder / "web" / name)


async def test_example_survives_restart(browser: Browser, tmp_path: Path) -> None:
    assert [name for name, _ in FILES] == ["app.py", "web/index.html", "web/dashboard.js"]
    write(tmp_path)
    port = free_port()
    command = [str(Path(sys.executable).parent / "uvicorn"), "app:app", "--port", str(port)]
    program = Program(command, folder=str(tmp_path))
    try:
        program.wait_for(port)
        async with open_tab(browser) as tab:
            await tab.page.goto(f"http://127.0.0.1:{port}/")
            await shows_samples(tab.page)
            assert "Traceback" not in program.output
            program.close()
            await tab.page.evaluate("document.getElementById('now').textContent = ''")
            program = Program(command, folder=str(tmp_path))
            await shows_samples(tab.page)
            assert tab.own_errors == []
            assert "Traceback" not in program.output
    finally:
        program.close()


async def shows_samples(page: Page) -> None:
    """Wait for figures and lines."""
    await expect(page.locator("#now")).to_have_text(re.compile(r"CPU [\d.]+ %, memory [\d.]+ %"), timeout=30_000)
    await page.wait_for_function(DRAWN, timeout=30_000)
