"""Firefox for tests, over WebDriver BiDi: tabs that open pages and run functions in them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from support.servers import Program, free_port

__all__ = ["Firefox", "FirefoxTab", "firefox"]

NAMES: Final = ("firefox-esr", "firefox")

PATIENCE: Final = 60.0
"""Seconds for one command: pages and functions that a test waits for, on a busy machine."""

START: Final = 60.0
"""Seconds until Firefox accepts connections."""

MAX_MESSAGE: Final = 2**26

_PREFERENCES: Final = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.min_background_timeout_value": 4,  # ms; by default, each timer of a tab in the background waits for a second
    "dom.min_background_timeout_value_without_budget_throttling": 4,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}


class Firefox:
    """A running Firefox.

    Arguments:
        socket: an open session.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def run(cls, path: str) -> AsyncIterator[Self]:
        """Start Firefox without a window, with an empty profile, and end it after the block."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items()]
            (Path(profile) / "user.js").write_text("".join(lines))
            port = free_port()
            command = [path, "--headless", "--no-remote", "--profile", profile, f"--remote-debugging-port={port}"]
            program = Program(command, {"HOME": profile})
            try:
                async with asyncio.timeout(START):
                    await program.says("WebDriver BiDi listening", within=START)
                    socket = await connect(f"ws://127.0.0.1:{port}/session", max_size=MAX_MESSAGE)
                firefox = cls(socket)
                await firefox.send("session.new", capabilities={})
                yield firefox
                firefox._reader.cancel()
                await socket.close()
            finally:
                program.close()

    async def send(self, method: str, **parameters: Any) -> Any:
        """Send a command and return its result."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(PATIENCE):
            return await answer

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if message["type"] == "success":
                self._answers.pop(message["id"]).set_result(message["result"])
            elif message["type"] == "error":
                self._answers.pop(message["id"]).set_exception(
                    RuntimeError(f"{message['error']}: {message['message']}")
                )

    @asynccontextmanager
    async def open_profile(self) -> AsyncIterator[str]:
        """Create an empty storage that tabs share; return its name."""
        context = (await self.send("browser.createUserContext"))["userContext"]
        yield context
        with suppress(RuntimeError):
            await self.send("browser.removeUserContext", userContext=context)

    async def open_tab(self, profile: str, url: str) -> FirefoxTab:
        """Open a tab and load a page in it."""
        created = await self.send("browsingContext.create", type="tab", userContext=profile)
        tab = FirefoxTab(self, created["context"])
        await tab.goto(url)
        return tab


class FirefoxTab:
    """A tab of Firefox, with the methods of Playwright's page that tests need."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox = firefox
        self._context = context

    async def goto(self, url: str) -> None:
        """Load a page."""
        await self._firefox.send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def reload(self) -> None:
        """Load the page again."""
        await self._firefox.send("browsingContext.reload", context=self._context, wait="complete")

    async def evaluate(self, function: str, argument: Any = None) -> Any:
        """Call a function of JavaScript with a value of JSON, and return its result or that of its promise."""
        answer = await self._firefox.send(
            "script.callFunction",
            functionDeclaration=f"async (text) => JSON.stringify(await ({function})(JSON.parse(text)) ?? null)",
            arguments=[{"type": "string", "value": json.dumps(argument)}],
            awaitPromise=True,
            target={"context": self._context},
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    async def close(self) -> None:
        """Close the tab."""
        await self._firefox.send("browsingContext.close", context=self._context)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def firefox() -> AsyncIterator[Firefox]:
    """Firefox, for tests whose loop is the session's: ``pytest.mark.asyncio(loop_scope="session")``."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = f"none of {', '.join(NAMES)} is on the path"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    async with Firefox.run(path) as running:
        yield running
