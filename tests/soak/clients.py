"""The clients of the soak. Each records what it gets in an account, and resumes after it was killed."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from typing import Any, Protocol

from playwright.async_api import BrowserContext, Page

from soak.account import Account, Item
from support.servers import Program
from tickertape.client import EventSource, Gap
from tickertape.errors import ClientError, TickertapeError

__all__ = ["Client", "Listener", "Ours", "Tab"]


class Client(Protocol):
    """A client of one of the kinds."""

    account: Account

    async def start(self) -> None:
        """Connect after the last item of the account."""

    async def vanish(self) -> None:
        """Go without a word."""

    async def read(self) -> None:
        """Bring the account up to date."""


class Ours(Client):
    """Our own source. It stalls now and then, and may change its topics.

    Arguments:
        account: of the client; its patterns are always in the URL.
        url: of the hub.
        changing: whether it adds and removes other topics.
    """

    def __init__(self, account: Account, url: str, rng: random.Random, *, changing: bool = False) -> None:
        self.account = account
        self._url = url
        self._rng = rng
        self._changing = changing
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        query = "&".join(f"topic={pattern}" for pattern in self.account.patterns)
        source = EventSource(
            f"{self._url}/events?{query}&subscription=true",
            last_event_id=self.account.last,
            max_delay=0.5,
            silence=5.0,
            yield_gaps=True,
        )
        self._tasks = [asyncio.create_task(self._run(source))]
        if self._changing:
            self._tasks.append(asyncio.create_task(self._change(source)))

    async def _run(self, source: EventSource) -> None:
        async with source:
            async for event in source:
                kind = "stream:gap" if isinstance(event, Gap) else "message"
                self.account.items.append(Item(kind, event.id or "", event.data))
                if self._rng.random() < 0.001:
                    await asyncio.sleep(self._rng.random() * 2)

    async def _change(self, source: EventSource) -> None:
        while True:
            await asyncio.sleep(self._rng.random() * 0.5)
            topic = f"t/{self._rng.randrange(4)}"
            with suppress(TickertapeError):
                await (source.unsubscribe(topic) if topic in source.topics else source.subscribe(topic))

    async def vanish(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, ClientError):
                raise result

    async def read(self) -> None:
        """Do nothing: items are entered as they come."""
        for task in self._tasks:
            if task.done():
                task.result()


class Listener(Client):
    """A program that prints what it gets, in a process that is killed.

    Arguments:
        account: of the client.
        url: of the hub.
        command: the program; the address of the stream and the last event's id follow.
    """

    def __init__(self, account: Account, url: str, *command: str) -> None:
        self.account = account
        self._url = url
        self._command = command
        self._program: Program | None = None
        self._before: list[Item] = []

    async def start(self) -> None:
        query = "&".join(f"topic={pattern}" for pattern in self.account.patterns)
        self._before = list(self.account.items)
        self._program = Program([*self._command, f"{self._url}/events?{query}", self.account.last])

    async def vanish(self) -> None:
        if self._program is not None:
            self._program.process.kill()
            self._program.process.wait()
            self._enter(self._program)
            self._program.close()
            self._program = None

    async def read(self) -> None:
        if self._program is not None:
            status = self._program.process.poll()
            assert status is None, f"{self.account.name} has ended with status {status}: {self._program.output[-2000:]}"
            self._enter(self._program)

    def _enter(self, program: Program) -> None:
        lines = program.output.splitlines(keepends=True)
        found = [Item(*json.loads(line)) for line in lines if line.startswith("[") and line.endswith("]\n")]
        self.account.items[:] = [*self._before, *found]


LISTEN = """([url, start]) => {
  globalThis.seen = [];
  let last = start;
  const open = () => {
    const source = new EventSource(`${url}&last_event_id=${last}`);
    for (const type of ["message", "stream:gap"]) {
      source.addEventListener(type, ({ lastEventId, data }) => {
        last = lastEventId;
        seen.push([type, lastEventId, data]);
      });
    }
    source.onerror = () => source.readyState === 2 && setTimeout(open, 300);
  };
  open();
}"""


class Tab(Client):
    """The browser's own ``EventSource`` in a tab that is closed."""

    def __init__(self, account: Account, url: str, context: BrowserContext) -> None:
        self.account = account
        self._url = url
        self._context = context
        self._page: Page | None = None
        self._before: list[Item] = []

    async def start(self) -> None:
        query = "&".join(f"topic={pattern}" for pattern in self.account.patterns)
        page = await self._context.new_page()
        await page.route(f"{self._url}/blank", lambda route: route.fulfill(body="", content_type="text/html"))
        await page.goto(f"{self._url}/blank")  # of the hub's origin, also while it is down
        arguments: list[Any] = [f"{self._url}/events?{query}", self.account.last]
        await page.evaluate(LISTEN, arguments)
        self._before = list(self.account.items)
        self._page = page

    async def vanish(self) -> None:
        if self._page is not None:
            await self.read()
            await self._page.close()
            self._page = None

    async def read(self) -> None:
        if self._page is not None:
            found = [Item(*each) for each in await self._page.evaluate("() => seen")]
            self.account.items[:] = [*self._before, *found]
