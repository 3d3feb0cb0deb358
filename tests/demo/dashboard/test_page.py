"""The page of the dashboard in a real browser."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from support.browser import Tab, open_tab
from support.local import serve_here
from support.servers import Program, free_port
from tickertape.demo.dashboard import dashboard_demo
from tickertape.demo.dashboard.demo import TOPIC
from tickertape.demo.dashboard.samples import Snapshot, make_sample
from tickertape.demo.site import Site, open_hub
from tickertape.testing import FakeClock

from .machine import EPOCH, PATIENCE, FakeMachine, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARKUP = "<b onclick=alert(1)>host</b>"
GAP = range(300, 345)
"""Seconds of the history while the server was down."""

FRAMES = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
MODULE = "const { cards, history } = await import('/static/dashboard.js');"


class Shown(NamedTuple):
    """The page, and the clock of the server."""

    tab: Tab
    url: str
    clock: FakeClock

    @property
    def page(self) -> Page:
        return self.tab.page

    async def tick(self, seconds: float = 1) -> None:
        """Advance the clock and wait for the sample."""
        last = await self.evaluate("return history.last.at")
        await until(lambda: "timers=1" in repr(self.clock))
        self.clock.advance(seconds)
        await self.wait_for(f"history.last.at > {last}")

    async def evaluate(self, script: str) -> Any:
        """Return the result of a script that may use ``cards`` and ``history`` of the page."""
        return await self.page.evaluate(f"(async () => {{ {MODULE} {script} }})()")

    async def wait_for(self, condition: str) -> None:
        """Wait until a condition of ``cards`` and ``history`` is true."""
        async with asyncio.timeout(PATIENCE):
            while not await self.evaluate(f"return cards.length > 0 && ({condition})"):
                await self.page.evaluate(FRAMES)

    async def has_line(self, second: float) -> bool:
        """Return True if the CPU chart has a line at a second of the fake clock."""
        drawn: bool = await self.evaluate(
            f"""
            const {{ ctx, bbox, valToPos }} = cards[0].chart.plot;
            const x = Math.round(valToPos({EPOCH + second}, "x", true));
            const name = getComputedStyle(document.documentElement).getPropertyValue("--series-1").trim();
            const wanted = [1, 3, 5].map((at) => parseInt(name.slice(at, at + 2), 16));
            const copy = new OffscreenCanvas(ctx.canvas.width, ctx.canvas.height).getContext("2d");
            copy.drawImage(ctx.canvas, 0, 0);
            const {{ data }} = copy.getImageData(x, bbox.top, 1, bbox.height);
            for (let at = 0; at < data.length; at += 4)
                if (data[at + 3] > 200 && wanted.every((one, of) => Math.abs(one - data[at + of]) < 24)) return true;
            return false;
            """
        )
        return drawn


async def fill(folder: Path, clock: FakeClock, machine: FakeMachine) -> None:
    """Store a history of 15 minutes with a gap."""
    before: Snapshot | None = None
    async with open_hub(folder) as hub:
        drafts = []
        for second in range(900):
            if second in GAP:
                before = None
            else:
                now = await machine(), hub.statistics()
                drafts.append(hub.draft(TOPIC, make_sample(before, now), event="metrics"))
                before = now
            clock.advance(1)
        await hub.publish_many(drafts)


@asynccontextmanager
async def shown(browser: Browser, folder: Path, **options: Any) -> AsyncIterator[Shown]:
    """Open the page of a demo with a history."""
    clock = FakeClock(0)
    machine = FakeMachine(clock, host=MARKUP)
    await fill(folder, clock, machine)
    hub = open_hub(folder)
    demo = dashboard_demo(hub, read=machine, clock=clock)
    async with serve_here(Site(hub, [demo])) as url, open_tab(browser, **options) as tab:
        await tab.page.goto(f"{url}/dashboard/")
        await expect(tab.page.locator(".board canvas")).to_have_count(7, timeout=PATIENCE * 1000)
        yield Shown(tab, url, clock)
        assert tab.own_errors == []
        hosts = {urlsplit(request).netloc for request in tab.requests if not request.startswith("data:")}
        assert hosts == {urlsplit(url).netloc}


async def test_history_then_live(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as it:
        await it.wait_for("history.samples.length === 856")
        assert it.tab.errors == []
        assert await it.evaluate("return cards.map((card) => card.chart.plot.data.length - 1)") == [1, 1, 2, 3, 2, 2, 4]
        ends = "return [cards[0].chart.plot.scales.x.min, cards[0].chart.plot.scales.x.max]"
        await it.wait_for("cards[0].chart.plot.data[0].length > 850")
        before, end = await it.evaluate(ends)
        assert (before, end) == (EPOCH, EPOCH + 900)
        for _ in range(3):
            await it.tick()
        await it.wait_for(f"cards[0].chart.plot.scales.x.max === {EPOCH + 903}")
        assert await it.evaluate(ends) == [EPOCH + 3, EPOCH + 903]
        assert await it.evaluate("return history.last.after === history.samples.at(-2).at")
        figures = await it.page.locator(".board dd").all_text_contents()
        assert figures[:4] == ["25.0%", "75.0%", "50%", "0%"]
        assert figures[7:11] == ["2.00KiB/s", "1.00KiB/s", "–", "–"]
        assert await it.page.locator("#host").text_content() == MARKUP
        await expect(it.page.get_by_role("cell", name="<b>bold</b>")).to_be_visible()
        assert await it.page.locator("main b").count() == 0
        label = await it.page.get_by_role("img").first.get_attribute("aria-label")
        assert label == "CPU over 15 min. In use: 25.0\u202f% on average, from 25.0\u202f% to 25.0\u202f%."


async def test_first_samples_fill_the_chart(browser: Browser, tmp_path: Path) -> None:
    """A chart starts with its first sample, even if the chosen span is longer."""
    async with shown(browser, tmp_path) as it:
        await it.wait_for("cards[0].chart.plot.data[0].length > 850")
        ranges = []
        for count in (10, 100, 800):
            await it.evaluate(f"cards[0].chart.draw(history.samples.slice(-{count}), 900)")
            await it.page.evaluate(FRAMES)  # uPlot draws in the next frame
            ranges.append(
                await it.evaluate("return cards[0].chart.plot.scales.x.max - cards[0].chart.plot.scales.x.min")
            )
        assert ranges == [30, 99, 844]


async def test_gap_has_no_line(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path, color_scheme="light") as it:
        await it.wait_for("cards[0].chart.plot.data[0].length > 850")
        line = await it.evaluate("return cards[0].chart.plot.data.map((column) => Array.from(column))")
        # The last sample before the gap, a row of nulls, and the first sample after it, which has no rates.
        index = line[0].index(EPOCH + 299)
        assert line[0][index : index + 4] == [EPOCH + second for second in (299, 322, 345, 346)]
        assert line[1][index : index + 4] == [25.0, None, None, 25.0]
        for scheme in ("light", "dark"):
            await it.page.emulate_media(color_scheme=scheme)
            await it.page.evaluate(FRAMES)
            drawn = [await it.has_line(second) for second in (200, 298, 310, 322, 340, 350, 600)]
            assert drawn == [True, True, False, False, False, True, True]


HISTORIES: list[tuple[list[tuple[float, float | None]], list[float], list[float]]] = [
    ([(1, None), (2, 1), (3, 2)], [1, 2, 3], []),
    ([(1, None), (2, 1), (9, None), (10, 9)], [1, 2, 9, 10], [9]),  # a restart
    ([(1, None), (2, 1), (4, 3), (5, 4)], [1, 2, 4, 5], [4]),  # one sample was missed
    ([(1, None), (2, 1), (3, 2), (1, None), (2, 1), (3, 2)], [1, 2, 3], []),  # the log was replayed
    ([(5, None), (6, 5), (2, None), (3, 2)], [2, 3], []),  # the server's clock was set back
    ([(7, 6), (8, 7)], [7, 8], []),  # nothing is known of the time before the first sample
]
"""The times of samples and of their predecessors; the samples kept, and those after a gap."""


async def test_history_and_gaps(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as it:
        for samples, kept, broken in HISTORIES:
            found = await it.page.evaluate(
                """async (samples) => {
                    const { History } = await import("/static/history.js");
                    const history = new History();
                    for (const [at, after] of samples) history.add({ at, after });
                    const times = (found) => found.map(({ at }) => at);
                    return [times(history.samples), times(history.samples.filter(({ gap }) => gap))];
                }""",
                samples,
            )
            assert found == [kept, broken], samples


async def test_controls(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as it:
        await it.page.get_by_label("Span").select_option("1 minute")
        await it.wait_for(f"cards[0].chart.plot.scales.x.min === {EPOCH + 840}")
        await it.page.get_by_label("Update").select_option("every 5 s")
        await it.page.evaluate(FRAMES)  # the page draws once after the change
        await it.wait_for(f"cards[0].chart.plot.scales.x.max === {EPOCH + 900}")
        ends = []
        for _ in range(6):
            await it.tick()
            await it.page.evaluate(FRAMES)
            ends.append(await it.evaluate("return cards[0].chart.plot.scales.x.max") - EPOCH)
        assert ends == [900, 900, 900, 900, 905, 905]
        await it.page.get_by_role("button", name="Table").click()
        row = it.page.get_by_role("row", name="Network, in")
        await expect(row.get_by_role("cell")).to_have_text(["2.00\u202fKiB/s"] * 4)
        await expect(it.page.locator("#board")).to_be_hidden()
        await it.page.get_by_role("button", name="Pause").click()
        await expect(it.page.locator("#connection")).to_contain_text("Disconnected")
        await it.page.get_by_role("button", name="Resume").click()
        await expect(it.page.locator("#connection")).to_contain_text("Open")


async def test_pointer_selects_a_time(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as it:
        await expect(it.page.locator("#moment")).to_contain_text("last sample at ")
        latest = await it.page.locator("#moment").text_content() or ""
        await it.page.locator(".u-over").nth(4).hover()
        await expect(it.page.locator("#moment")).not_to_contain_text("last sample")
        assert (await it.page.locator("#moment").text_content() or "")[-8:] < latest[-8:]
        assert await it.evaluate("return cards.every((card) => card.chart.plot.cursor.idx > 0)")
        await it.page.locator("h1").hover()
        await expect(it.page.locator("#moment")).to_contain_text("last sample at ")  # perhaps a newer one by now
        assert (await it.page.locator("#moment").text_content() or "") >= latest


async def test_keyboard_and_announcements(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as it:
        order = []
        for _ in range(7):
            await it.page.keyboard.press("Tab")
            order.append(
                await it.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
            )
        assert order[-4:] == ["span", "every", "table", "toggle"]
        summary = it.page.locator("#summary")
        await expect(summary).to_have_attribute("role", "status")
        await it.wait_for(f"history.last.at === {EPOCH + 900}")
        # The history may have been drawn in parts, each with a summary: after a minute, the next one is due for sure.
        await it.tick(61)
        earlier = await summary.text_content() or ""
        await it.tick()
        await expect(summary).not_to_have_text(earlier, timeout=PATIENCE * 1000)
        await expect(summary).to_contain_text("CPU 25.0\u202f%, memory 75.0\u202f%, load 0.50")
        announced = await summary.text_content()
        for _ in range(3):
            await it.tick()
        await it.page.evaluate(FRAMES)
        assert await summary.text_content() == announced  # at most once per minute


async def test_page_width(browser: Browser, tmp_path: Path) -> None:
    async with shown(browser, tmp_path) as it:
        for width in (320, 390, 768, 1280):
            await it.page.set_viewport_size({"width": width, "height": 800})
            await it.wait_for(
                "[...document.querySelectorAll('.chart')].every((c) => c.firstChild.offsetWidth === c.clientWidth)"
            )
            assert await it.page.evaluate("document.documentElement.scrollWidth") == width
        await it.page.set_viewport_size({"width": 320, "height": 800})
        await it.page.get_by_role("button", name="Table").click()
        assert await it.page.evaluate("document.documentElement.scrollWidth") == 320


async def test_gap_after_killed_server(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    command = [str(Path(sys.executable).parent / "tickertape"), "demo", "--port", str(port)]
    options = ["--metrics-interval", "0.5", "--data", str(tmp_path)]

    def start() -> Program:
        program = Program([*command, *options])
        program.wait_for(port)
        return program

    program = start()
    try:
        async with open_tab(browser) as tab:
            await tab.page.goto(f"http://127.0.0.1:{port}/dashboard/")
            it = Shown(tab, "", FakeClock())
            await it.wait_for("history.samples.length >= 3")
            program.close()
            await expect(tab.page.locator("#connection")).to_have_attribute(
                "data-state", "lost", timeout=PATIENCE * 1000
            )
            last, count = await it.evaluate("return [history.last.at, history.samples.length]")
            program = start()
            await it.wait_for(f"cards[1].chart.plot.data[0].length >= {count + 4}")
            # A busy machine may cause other gaps: check this one only.
            times, memory, gap = await it.evaluate(
                f"""
                const [times, memory] = cards[1].chart.plot.data;
                const index = times.indexOf({last});
                const next = history.samples.find(({{ at }}) => at > {last});
                return [times.slice(index, index + 3), memory.slice(index, index + 3), next.gap];
                """
            )
            assert gap is True
            assert times[0] == last < times[1] < times[2]
            assert [value is None for value in memory] == [False, True, False]
            assert tab.own_errors == []
    finally:
        program.close()
