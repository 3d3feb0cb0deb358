"""One stream for all tabs: connections, topics, positions, and takeovers without loss or repetition."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser
from starlette.types import ASGIApp, Receive, Scope, Send

from support.access import protect
from support.local import serve_here
from support.page_site import page_site
from support.servers import until
from support.tabs import OpenProfile, OpenTab, chromium_profile, wait_in
from tickertape import Hub
from tickertape.asgi import send_problem
from tickertape.broker import Retention
from tickertape.server import create_app

pytestmark = pytest.mark.asyncio(loop_scope="session")

OPEN: Final = """
import { EventStream } from "tickertape";

/** Opens a shared stream and records its events. */
globalThis.listen = (query, options = {}) => {
  globalThis.seen = [];
  const every = ({ type, data, lastEventId }) => seen.push([type, data, lastEventId]);
  globalThis.stream = new EventStream(`/events?${query}`, { shared: true, every, ...options });
};
globalThis.isOpen = async () => {
  while (stream.state !== "open") await new Promise((resolve) => setTimeout(resolve, 20));
};
"""


class Counted:
    """An application that counts the requests for streams.

    Attributes:
        opened: their number.
        changed: the number of changes of streams.
        changes: whether it accepts changes of streams, as servers of other kinds do not.
        refused: the number of changes to refuse with 429.
        streams_pass, changes_pass: while an event is not set, such requests wait.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.opened = self.changed = 0
        self.changes = True
        self.refused = 0
        self.streams_pass, self.changes_pass = asyncio.Event(), asyncio.Event()
        self.streams_pass.set()
        self.changes_pass.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http" and scope["path"] == "/events":
            self.opened += 1
            await self.streams_pass.wait()
        if scope["type"] == "http" and scope["method"] == "PATCH":
            self.changed += 1
            await self.changes_pass.wait()
            if self.refused:
                self.refused -= 1
                await send_problem(send, 429, "too many requests")
                return
            if not self.changes:
                await send_problem(send, 405, "no changes")
                return
        await self._app(scope, receive, send)


class Site:
    """A hub behind a page, and the tabs that are open."""

    def __init__(self, url: str, hub: Hub, counted: Counted, open_tab: OpenTab) -> None:
        self.url = url
        self.hub = hub
        self.counted = counted
        self._open_tab = open_tab

    async def tab(self, query: str, options: dict[str, Any] | None = None, *, wait: bool = True) -> Any:
        """Open a tab with a shared stream."""
        page = await self._open_tab(self.url)
        await page.evaluate("async () => void (await import('/scripts/open.js'))")
        await page.evaluate("([query, options]) => void listen(query, options)", [query, options or {}])
        if wait:
            await page.evaluate("() => isOpen().then(() => 1)")
        return page

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return len(self.hub.presence)

    async def publish(self, topic: str, *data: str) -> None:
        """Publish events, one after the other."""
        for text in data:
            await self.hub.publish(topic, text, event="e")

    async def until_seen(self, page: Any, *data: str) -> None:
        """Return when a tab has exactly these data, in order."""
        await wait_in(page, "seen.length >= argument", len(data))
        assert await self.seen(page) == list(data)

    async def seen(self, page: Any) -> list[str]:
        """Return the data of the events in a tab."""
        return [data for _, data, _ in await page.evaluate("() => seen")]


@asynccontextmanager
async def site(open_profile: OpenProfile, **options: Any) -> AsyncIterator[Site]:
    hub = Hub(drain_window=0, retry=0.5, **options)
    server = create_app(hub)
    counted = Counted(server)

    pages = page_site(scripts={"open.js": OPEN})

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and (scope["path"] == "/" or scope["path"].startswith("/scripts/"))
        await (pages if is_page else counted)(scope, receive, send)

    async with serve_here(both) as url, open_profile() as open_tab:
        yield Site(url, hub, counted, open_tab)


async def test_twelve_tabs(open_profile: OpenProfile) -> None:
    """HTTP/1.1 allows six connections: twelve tabs have one stream, and all get all events."""
    async with site(open_profile) as here:
        tabs = [await here.tab("topic=a") for _ in range(12)]
        await until(lambda: here.streams == 1, lambda: f"one stream, got {here.streams}")
        data = [str(number) for number in range(20)]
        await here.publish("a", *data)
        for tab in tabs:
            await here.until_seen(tab, *data)
        assert (here.streams, here.counted.opened) == (1, 1)


async def test_topics(open_profile: OpenProfile) -> None:
    """Tabs with different topics share a stream. Each gets its own events, with the data as published."""
    async with site(open_profile) as here:
        queries = ["topic=a", "topic=b/*", "topic=a&topic=**&envelope=topic", "topic=b/**/c"]
        tabs = [await here.tab(query) for query in queries]
        await here.publish("a", "1")
        await here.publish("b/x", "2")
        await here.publish("b/x/c", "3")
        await here.until_seen(tabs[0], "1")
        await here.until_seen(tabs[1], "2")
        envelopes = [f'{{"topic":"{topic}","data":"{n}"}}' for topic, n in (("a", 1), ("b/x", 2), ("b/x/c", 3))]
        await wait_in(tabs[2], "seen.map(([, data]) => data.replaceAll(' ', '')).join() === argument.join()", envelopes)
        await here.until_seen(tabs[3], "3")
        assert here.streams == 1


async def test_past_events(open_profile: OpenProfile) -> None:
    """Each tab gets the past events that it asks for, and the others get nothing twice."""
    async with site(open_profile) as here:
        await here.publish("a", "1", "2", "3")
        first = await here.tab("topic=a&last=2")
        await here.until_seen(first, "2", "3")
        second = await here.tab("topic=a&last=1")
        await here.until_seen(second, "3")
        third = await here.tab("topic=a")
        await here.publish("a", "4")
        await here.until_seen(first, "2", "3", "4")
        await here.until_seen(second, "3", "4")
        await here.until_seen(third, "4")
        fourth = await here.tab("topic=a&last=3")
        await here.until_seen(fourth, "2", "3", "4")
        await here.publish("a", "5")
        await here.until_seen(first, "2", "3", "4", "5")
        await here.until_seen(fourth, "2", "3", "4", "5")
        await until(lambda: here.streams == 1, lambda: f"one stream, got {here.streams}")


END = {
    "closes the stream": "() => stream.close()",
    "leaves the page": "() => void (location.href = 'about:blank')",
}


@pytest.mark.parametrize("end", [*END, "closes the tab"])
async def test_takeover(open_profile: OpenProfile, end: str) -> None:
    """While events are published, one leader after the other goes: no tab loses or repeats one."""
    async with site(open_profile) as here:
        tabs = [await here.tab("topic=a") for _ in range(4)]
        data = [str(number) for number in range(200)]

        async def publish() -> None:
            for text in data:
                await here.publish("a", text)
                await asyncio.sleep(0.01)

        publishing = asyncio.create_task(publish())
        while len(tabs) > 1:
            leader = tabs.pop(0)  # the first that waits for the lock gets it
            before = len(await here.seen(leader))
            await wait_in(tabs[0], "seen.length > argument", before)
            if end in END:
                await leader.evaluate(END[end])
            else:
                await leader.close()
        await publishing
        await here.until_seen(tabs[0], *data)
        await until(lambda: here.streams == 1, lambda: f"one stream, got {here.streams}")


async def test_crash_of_the_leader(browser: Browser) -> None:
    """The renderer of the leader crashes: another tab continues from its own cursor. Firefox has no such command."""
    async with site(lambda: chromium_profile(browser)) as here:
        leader = await here.tab("topic=a")
        others = [await here.tab("topic=a") for _ in range(2)]
        data = [str(number) for number in range(100)]
        await here.publish("a", *data[:50])
        await here.until_seen(others[0], *data[:50])
        session = await leader.context.new_cdp_session(leader)
        crash = asyncio.create_task(session.send("Page.crash"))
        await here.publish("a", *data[50:])
        for tab in others:
            await here.until_seen(tab, *data)
        crash.cancel()
        assert here.streams <= 2


async def test_server_restarts(open_profile: OpenProfile) -> None:
    """All tabs see the state of the one stream."""
    async with site(open_profile) as here:
        tabs = [await here.tab("topic=a") for _ in range(2)]
        await here.publish("a", "1")
        for tab in tabs:
            await here.until_seen(tab, "1")
            await tab.evaluate("""() => {
                globalThis.states = [];
                stream.addEventListener("statechange", () => states.push(stream.state));
            }""")
        here.hub.drain(0)
        expected = ["waiting", "connecting", "waiting"]
        for tab in tabs:
            await wait_in(tab, "states.slice(0, 3).join() === argument.join()", expected)


async def test_join_without_another_stream(open_profile: OpenProfile) -> None:
    """Tabs of other topics change the open stream, also when they leave."""
    async with site(open_profile) as here:
        tabs = [await here.tab(f"topic=t/{number}") for number in range(4)]
        assert (here.streams, here.counted.opened) == (1, 1)
        assert topics_of(here) == {f"t/{number}" for number in range(4)}
        for number, tab in enumerate(tabs):
            await here.publish(f"t/{number}", str(number))
            await here.until_seen(tab, str(number))
        await tabs.pop().close()
        await tabs.pop().evaluate("() => stream.close()")
        assert await tabs[1].evaluate(CHANGE, ["unsubscribe", "t/1", {}]) == [None, ONE_TOPIC]
        await tabs[1].evaluate("() => stream.subscribe('u')")
        await until(lambda: topics_of(here) <= {"t/0", "t/1", "u"}, lambda: f"two topics, got {topics_of(here)}")
        assert here.counted.opened == 1


def topics_of(here: Site) -> set[str]:
    """Return the topics of the one stream."""
    (info,) = here.hub.presence
    return set(info.topics)


ONE_TOPIC = "a subscription needs at least one topic"

CHANGE = """([method, topics, options]) =>
  stream[method](topics, options).then(() => "done", ({ status, message }) => [status, message])"""


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("changes", [True, False], ids=["by a change", "by another stream"])
async def test_subscribe(open_profile: OpenProfile, shared: bool, changes: bool) -> None:
    async with site(open_profile) as here:
        here.counted.changes = changes
        await here.hub.publish("b", "past")
        tab = await here.tab("topic=a&subscription=true", {"shared": shared})
        await here.publish("a", "1")
        await here.until_seen(tab, "1")
        assert await tab.evaluate(CHANGE, ["subscribe", ["b", "c"], {}]) == "done"
        for number, topic in enumerate("abc", 2):
            await here.publish(topic, str(number))
        await wait_in(tab, "seen.some(([, data]) => data === '4')")
        assert await tab.evaluate(CHANGE, ["unsubscribe", "a", {}]) == "done"
        await here.publish("a", "no")
        await here.publish("b", "5")
        await wait_in(tab, "seen.some(([, data]) => data === '5')")
        found = [data for kind, data, _ in await tab.evaluate("() => seen") if kind == "e"]
        assert found == ["1", "2", "3", "4", "5"]
        assert (here.counted.opened == 1) is changes
        await tab.evaluate("() => { stream.close(); stream.open(); return isOpen().then(() => 1); }")
        await here.publish("a", "no")
        await here.publish("c", "6")
        await wait_in(tab, "seen.some(([, data]) => data === '6')")
        assert "no" not in await here.seen(tab)


async def test_changes_that_wait(open_profile: OpenProfile) -> None:
    """Changes at once, in the only tab and in another; while the leader goes; and when the stream closes."""
    async with site(open_profile) as here:
        start = """([topic, added]) => { listen(`topic=${topic}`); globalThis.change = stream.subscribe(added); }"""
        tabs = [await here.tab("topic=q") for _ in range(2)]
        for tab in tabs:
            await tab.evaluate("() => stream.close()")
        for tab, topic, added in zip(tabs, "ab", "xy", strict=True):
            await tab.evaluate(start, [topic, added])
            await tab.evaluate("() => change")
        await until(lambda: topics_of(here) == set("abxy"), lambda: f"the topics of both, got {topics_of(here)}")

        here.counted.changes_pass.clear()
        await tabs[1].evaluate("() => { globalThis.change = stream.subscribe('z'); }")
        await until(lambda: here.counted.changed > 0, lambda: "a change")
        await tabs[0].close()
        await tabs[1].evaluate("() => change")
        await here.publish("z", "1")
        await here.until_seen(tabs[1], "1")

        await tabs[1].evaluate("() => { globalThis.change = stream.subscribe('w'); stream.close(); stream.open(); }")
        await tabs[1].evaluate("() => change")
        await tabs[1].evaluate("() => isOpen().then(() => 1)")
        await here.publish("w", "2")
        await here.until_seen(tabs[1], "1", "2")
        here.counted.changes_pass.set()


END_OF_B = '{"topic":"b","reason":"ended"}'

RECORD = """() => {
    globalThis.notices = [];
    for (const type of ["gap", "end", "topic-end"]) {
        stream.addEventListener(type, ({ detail }) => notices.push([type, detail.topic ?? detail.reason]));
    }
}"""


async def test_ends(open_profile: OpenProfile) -> None:
    """A tab ends with its own topics, though others continue. A tab that comes later ends at once."""
    async with site(open_profile) as here:
        tabs = [await here.tab(query) for query in ("topic=a", "topic=b", "topic=b&topic=c")]
        for tab in tabs:
            await tab.evaluate(RECORD)
        await here.publish("b", "1")
        await here.hub.end("b")
        await wait_in(tabs[1], "stream.state === 'closed'")
        await here.until_seen(tabs[1], "1", END_OF_B)
        await here.publish("c", "2")
        await here.until_seen(tabs[2], "1", END_OF_B, "2")
        late = await here.tab("topic=b", wait=False)
        await wait_in(late, "stream.state === 'closed'")
        await here.publish("a", "3")
        await here.until_seen(tabs[0], "3")
        found = [await tab.evaluate("() => notices") for tab in tabs]
        assert found == [[], [["end", "b"]], [["topic-end", "b"]]]
        assert await late.evaluate("() => [stream.reason, seen]") == ["all topics have ended", []]


async def test_gap_of_another_tab(open_profile: OpenProfile) -> None:
    """A tab with an old position starts the stream again with a gap. A tab that missed nothing gets none."""
    async with site(open_profile, retention=Retention(events=2)) as here:
        leader = await here.tab("topic=a")
        await leader.evaluate(RECORD)
        first = str(await here.hub.publish("a", "0", event="e"))
        data = [str(number) for number in range(1, 6)]
        for number, each in enumerate(data, 1):
            await here.publish("a", each)
            await here.until_seen(leader, "0", *data[:number])
        late = await here.tab("topic=a", {"lastEventId": first})
        await wait_in(late, "seen.some(([type]) => type === 'stream:gap')")
        await here.publish("a", "end")
        await here.until_seen(leader, "0", *data, "end")
        assert await leader.evaluate("() => notices") == []


async def test_crash_of_another_tab(browser: Browser) -> None:
    """A tab that crashed sends no message. The leader finds it, and removes its topics."""
    async with site(lambda: chromium_profile(browser)) as here:
        leader = await here.tab("topic=a")
        await leader.evaluate("""() => {
            stream.close();
            globalThis.setInterval = (run) => { globalThis.patrol = run; };
            stream.open();
            return isOpen().then(() => 1);
        }""")
        other = await here.tab("topic=b")
        await until(lambda: topics_of(here) == {"a", "b"}, lambda: f"both topics, got {topics_of(here)}")
        session = await other.context.new_cdp_session(other)
        crash = asyncio.create_task(session.send("Page.crash"))
        await wait_in(leader, "(await navigator.locks.query()).held.length === 2")
        await leader.evaluate("() => void patrol()")
        await until(lambda: topics_of(here) == {"a"}, lambda: f"one topic, got {topics_of(here)}")
        crash.cancel()


async def test_too_many_changes(open_profile: OpenProfile) -> None:
    """If a proxy refuses a change for now, the tab waits, and is not closed."""
    async with site(open_profile) as here:
        await here.tab("topic=a")
        here.counted.refused = 1
        other = await here.tab("topic=b")
        await here.publish("b", "1")
        await here.until_seen(other, "1")
        assert here.counted.changed == 2


HELLOS = """() => {
    globalThis.hellos = [];
    const url = new URL("/events?envelope=topic&subscription=true", location);
    new BroadcastChannel(`tickertape true ${url}`).onmessage = ({ data }) => data.hello && hellos.push(data.hello);
}"""


async def test_tabs_with_positions_at_the_same_time(open_profile: OpenProfile) -> None:
    """The stream starts again for a tab. A tab with a later position that comes in the meantime does not move it on."""
    async with site(open_profile) as here:
        leader = await here.tab("topic=a")
        await leader.evaluate(HELLOS)
        cursors = [str(await here.hub.publish("a", str(number), event="e")) for number in range(4)]
        await here.until_seen(leader, "0", "1", "2", "3")
        counted = here.counted
        counted.changes_pass.clear()
        counted.streams_pass.clear()
        early = await here.tab("topic=a", {"lastEventId": cursors[0]}, wait=False)
        await until(lambda: counted.changed == 1, lambda: "a change for the first tab")
        late = await here.tab("topic=a", {"lastEventId": cursors[2]}, wait=False)
        await wait_in(leader, "hellos.includes(argument)", cursors[2])
        counted.changes_pass.set()
        await until(lambda: counted.opened == 3, lambda: f"a stream for each of them, got {counted.opened}")
        counted.streams_pass.set()
        await here.publish("a", "4")
        await here.until_seen(early, "1", "2", "3", "4")
        await here.until_seen(late, "3", "4")
        await here.until_seen(leader, "0", "1", "2", "3", "4")


async def test_further_topic_from_a_position(open_profile: OpenProfile) -> None:
    """A tab that comes with a position and another topic gets its events from there, though the stream is further."""
    async with site(open_profile) as here:
        first = await here.tab("topic=a")
        await here.publish("a", "0")
        await here.until_seen(first, "0")
        start = await here.hub.publish("b", "before", event="e")
        await here.publish("b", "1", "2")
        tabs = await asyncio.gather(
            here.tab("topic=b", {"lastEventId": str(start)}), *(here.tab(f"topic=c/{number}") for number in range(3))
        )
        await here.publish("b", "3")
        await here.until_seen(tabs[0], "1", "2", "3")
        assert here.streams == 1


async def test_other_group(open_profile: OpenProfile) -> None:
    """A tab that belongs to another user now continues after its last event, in the stream of that user's tabs."""
    async with site(open_profile) as here:
        first, second = await here.tab("topic=a", {"shared": "x"}), await here.tab("topic=a", {"shared": "y"})
        await first.evaluate("""() => {
            stream.close();
            globalThis.user = "x";
            listen("topic=a", { shared: () => user });
            return isOpen().then(() => 1);
        }""")
        assert here.streams == 2
        await here.publish("a", "1")
        await here.until_seen(first, "1")
        await first.evaluate("() => { stream.close(); user = 'y'; }")
        await here.publish("a", "2")
        await first.evaluate("() => { stream.open(); return isOpen().then(() => 1); }")
        await here.publish("a", "3")
        for tab in (first, second):
            await here.until_seen(tab, "1", "2", "3")
        assert here.streams == 1


async def test_past_events_of_a_change(open_profile: OpenProfile) -> None:
    async with site(open_profile) as here:
        await here.publish("b", "1", "2", "3")
        tab = await here.tab("topic=a&subscription=true", {"shared": False})
        record = "({ detail }) => seen.push(['', detail.topics.join(), ''])"
        await tab.evaluate(f"() => stream.addEventListener('topics', {record})")
        assert await tab.evaluate(CHANGE, ["subscribe", "b", {"last": 2}]) == "done"
        await wait_in(tab, "seen.length >= 4")
        assert [data for kind, data, _ in await tab.evaluate("() => seen") if kind in ("", "e")] == ["2", "3", "a,b"]


async def test_refused_topic(open_profile: OpenProfile) -> None:
    """Only the tab that asks for a refused topic gets the error. The stream of the others stays open."""
    async with site(open_profile) as here:
        protect(here.hub, {}, subscribe=["a", "b"])
        tabs = [await here.tab("topic=a") for _ in range(2)]
        for topic in ("a/*b", "secret"):
            bad = await here.tab(f"topic={topic}", wait=False)
            await wait_in(bad, "stream.state === 'closed'")
            assert topic in await bad.evaluate("() => stream.reason")
        for tab in tabs:
            status, message = await tab.evaluate(CHANGE, ["subscribe", "secret", {}])
            assert (status, "secret" in message) == (401, True)
            assert await tab.evaluate(CHANGE, ["subscribe", "b", {}]) == "done"
        await here.publish("b", "1")
        for tab in tabs:
            await here.until_seen(tab, "1")
        assert (here.streams, here.counted.opened) == (1, 1)
        await bad.close()
        await tabs[0].close()
        await here.publish("b", "2")
        await here.until_seen(tabs[1], "1", "2")


@pytest.mark.parametrize(("seed", "changes"), [(1, True), (2, False)], ids=["by changes", "by other streams"])
async def test_ledger_of_changes(open_profile: OpenProfile, seed: int, changes: bool) -> None:
    """Tabs change their topics while events are published. A topic that a tab always has loses no event.

    After each round of changes, a mark of each topic reaches exactly the tabs that have it.
    """
    rng = random.Random(seed)
    names = [f"t/{number}" for number in range(4)]
    async with site(open_profile) as here:
        here.counted.changes = changes
        tabs = [await here.tab("topic=always") for _ in range(3)]
        has: list[set[str]] = [set() for _ in tabs]
        expected: list[list[str]] = [[] for _ in tabs]
        always: list[str] = []
        running = True

        async def publish() -> None:
            while running:
                always.append(f"always {len(always)}")
                await here.publish("always", always[-1])
                await here.publish(rng.choice(names), "any")
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        for turn in range(20 if changes else 6):
            calls = []
            for at, tab in enumerate(tabs):
                name = rng.choice(names)
                method = "unsubscribe" if name in has[at] else "subscribe"
                has[at] ^= {name}
                calls.append(tab.evaluate(CHANGE, [method, name, {}]))
            assert await asyncio.gather(*calls) == ["done"] * len(tabs)
            for name in names:
                await here.publish(name, f"mark {turn} {name}")
                for at in range(len(tabs)):
                    expected[at] += [f"mark {turn} {name}"] if name in has[at] else []
            await here.publish("always", f"turn {turn}")
            for tab in tabs:
                await wait_in(tab, "seen.some(([, data]) => data === argument)", f"turn {turn}")
        running = False
        await publishing
        await here.publish("always", "end")
        for at, tab in enumerate(tabs):
            await wait_in(tab, "seen.at(-1)?.[1] === 'end'")
            found = await here.seen(tab)
            assert [data for data in found if data.startswith("mark")] == expected[at]
            assert [data for data in found if data.startswith("always")] == always
            ids = await tab.evaluate("() => seen.filter(([type]) => type === 'e').map(([, , id]) => id)")
            assert len(set(ids)) == len(ids)
        assert (here.counted.opened == 1) is changes
