"""The page about browsers, in a browser."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser, Route

from support.browser import open_tab
from support.pages import files_of
from support.servers import BIN, Service

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "browser.md").read_text("utf-8")
SCRIPTS = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
SUBSCRIBE = next(script for script in SCRIPTS if script.startswith("function subscribe")).partition("\nconst ")[0]
ORIGIN = "http://localhost:3000"
PUBLISH = """

@app.post("/publish")
async def publish():
    await hub.publish("orders/42", {"number": 42}, event="order")
"""


@pytest.mark.asyncio(loop_scope="session")
async def test_other_origin(browser: Browser, tmp_path: Path) -> None:
    """A page of another origin resumes without a preflight, and `subscribe` opens a new stream after a 502."""
    (tmp_path / "index.html").write_text("<!doctype html><title>Orders</title><link rel=icon href=data:>")
    host = Service(sys.executable, "-m", "http.server", "--bind=127.0.0.1", "{port}", folder=tmp_path)
    program = files_of("how-to/browser")["app.py"].replace(ORIGIN, host.url).replace("Hub()", "Hub(retry=0.3)")
    (tmp_path / "app.py").write_text(program + PUBLISH)
    app = Service(str(BIN / "uvicorn"), "app:app", "--port={port}", folder=tmp_path)
    urls: list[str] = []
    refuse = False

    async def proxy(route: Route) -> None:
        urls.append(route.request.url)
        if refuse:
            await route.fulfill(status=502)
        else:
            await route.fallback()

    host.start()
    app.start()
    try:
        async with open_tab(browser) as tab:
            await tab.page.route(re.compile(re.escape(app.url) + "/events"), proxy)
            await tab.page.goto(host.url)
            await tab.page.evaluate("""() => {
                window.shown = [];
                window.wait = (count) => new Promise((done) => {
                    const look = () => shown.length >= count ? done(shown) : setTimeout(look, 20);
                    look();
                });
            }""")
            await tab.page.add_script_tag(content=SUBSCRIBE)
            await tab.page.evaluate(
                """(url) => {
                    const show = (event) => shown.push([event.type, event.lastEventId]);
                    window.unsubscribe = subscribe(url, ["order"], show);
                }""",
                f"{app.url}/events",
            )
            publish = f"fetch({app.url + '/publish'!r}, {{method: 'POST'}}).then((answer) => answer.status)"
            assert await tab.page.evaluate(publish) == 200
            [[kind, first]] = await tab.page.evaluate("wait(1)")
            assert (kind, first.rpartition("-")[2]) == ("order", "1")

            # The browser reconnects by itself, with the header: the new hub reports that its log is another one.
            app.kill()
            app.start()
            shown = await tab.page.evaluate("wait(2)")
            assert shown[1][0] == "stream:gap"
            assert '"GET /events HTTP/1.1" 200' in app.output
            assert "OPTIONS" not in app.output

            # A proxy answers 502, and the browser stops. A new EventSource passes the id in the URL.
            refuse = True
            app.kill()
            async with tab.page.expect_response(lambda answer: answer.status == 502):
                pass
            refuse = False
            app.start()
            shown = await tab.page.evaluate("wait(3)")
            assert urls[-1].endswith(f"?last_event_id={shown[1][1]}")
            await tab.page.evaluate("unsubscribe()")
    finally:
        app.kill()
        host.kill()
