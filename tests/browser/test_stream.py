"""``EventStream`` in browsers: its interface, requests, statuses, reconnecting, notices and the stored cursor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from support.local import serve_here
from support.page_site import page_site
from support.scripted_site import Answer, Script, problem, stream
from support.tabs import OpenProfile

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORD: Final = """
export { EventStream } from "tickertape";
import { EventStream } from "tickertape";

/** Opens a stream and records the events of these types, until `count` are there. */
export function record(url, options, types, count) {
  return new Promise((resolve) => {
    const seen = [];
    const stream = new EventStream(url, options);
    globalThis.stream = stream;
    globalThis.seen = seen;
    for (const type of types) {
      stream.addEventListener(type, (event) => {
        const fields = { type, state: stream.state, readyState: stream.readyState };
        for (const name of ["data", "lastEventId", "reason", "status", "problem", "detail"]) {
          if (event[name] !== undefined) fields[name] = event[name];
        }
        seen.push(fields);
        if (seen.length >= count) resolve(seen.slice(0, count));
      });
    }
  });
}

globalThis.record = record;
globalThis.EventStream = EventStream;
"""

FAST: Final = "retry: 500\n\n"


@asynccontextmanager
async def page_of(open_profile: OpenProfile, **answers: list[Answer]) -> AsyncIterator[tuple[Any, Script]]:
    script = Script({f"/{name}": given for name, given in answers.items()})
    async with serve_here(page_site(*script.routes, scripts={"record.js": RECORD})) as url, open_profile() as open_tab:
        page = await open_tab(url)
        await page.evaluate("async () => void (await import('/scripts/record.js'))")
        try:
            yield page, script
        finally:
            script.end()


async def record(page: Any, types: list[str], count: int, options: str = "{}", url: str = "/s") -> list[dict[str, Any]]:
    """Open a stream in the page, and return the first events of these types."""
    function = f"([url, types, count]) => record(url, {options}, types, count)"
    found: list[dict[str, Any]] = await page.evaluate(function, [url, types, count])
    return found


async def test_interface(open_profile: OpenProfile) -> None:
    """The members of ``EventSource``, with the same values."""
    async with page_of(open_profile, s=[stream("data: a\n\n", "stay")]) as (page, _):
        found = await page.evaluate("""async () => {
            const of = (Type, wait) => new Promise((resolve) => {
                const source = new Type("/s?x=1", { withCredentials: true });
                const first = [source.readyState, source.url, source.withCredentials, source.onopen];
                const events = [];
                source.onopen = (event) => events.push(["open", event.constructor.name, source.readyState]);
                source.onmessage = (event) => {
                    events.push([event.type, event.constructor.name, event.data, event.origin, event.lastEventId]);
                    source.close();
                    resolve([first, events, source.readyState, Type.OPEN, source.CLOSED]);
                };
            });
            return [await of(EventSource), await of(EventStream)];
        }""")
        assert found[0] == found[1]


STATUSES: list[tuple[str, Answer, dict[str, Any]]] = [
    ("no content", Answer(204), {"state": "closed", "readyState": 2, "status": 204, "reason": "status 204"}),
    ("problem", problem(403, "not yours"), {"state": "closed", "readyState": 2, "status": 403, "reason": "not yours"}),
    ("not found", Answer(404, body="x"), {"state": "closed", "readyState": 2, "status": 404, "reason": "status 404"}),
    ("bad gateway", Answer(502), {"state": "waiting", "readyState": 0, "status": 502, "reason": "status 502"}),
    (
        "content type",
        Answer(200, {"content-type": "text/html"}),
        {
            "state": "closed",
            "readyState": 2,
            "status": 200,
            "reason": "unexpected type: text/html",
        },
    ),
    ("ended", stream(""), {"state": "waiting", "readyState": 0, "reason": "the stream ended"}),
]


@pytest.mark.parametrize(("answer", "expected"), [row[1:] for row in STATUSES], ids=[row[0] for row in STATUSES])
async def test_statuses(open_profile: OpenProfile, answer: Answer, expected: dict[str, Any]) -> None:
    async with page_of(open_profile, s=[answer]) as (page, script):
        [error] = await record(page, ["error"], 1)
        found = error.pop("problem", {})
        assert error == {"type": "error", **expected}
        assert found.get("status", expected.get("status")) == expected.get("status")
        assert len(script.asked) == 1


async def test_resumes(open_profile: OpenProfile) -> None:
    """Losses of all kinds, and one stream for the page: the id is sent in UTF-8, and no part of an event is kept."""
    answers = [
        Answer(503),
        stream(f"{FAST}id: ä1\ndata: a\n\nid: 2\ndata: b", "cut"),
        stream("id: 2\ndata: b\n\n"),
        problem(429, "slowly", retry_after="1"),
        stream("data: c\n\n", "stay"),
    ]
    async with page_of(open_profile, s=answers) as (page, script):
        seen = await record(page, ["message"], 3)
        assert [(event["data"], event["lastEventId"]) for event in seen] == [("a", "ä1"), ("b", "2"), ("c", "2")]
        ids = [asked.headers.get("last-event-id", "").encode("latin-1").decode() for asked in script.asked]
        assert ids == ["", "", "ä1", "2", "2"]
        assert {asked.headers["accept"] for asked in script.asked} == {"text/event-stream"}
        at = [asked.at for asked in script.asked]
        assert at[2] - at[1] > 0.49
        assert at[4] - at[3] > 0.99


async def test_requests(open_profile: OpenProfile) -> None:
    """Headers and bodies are asked for at each attempt."""
    for method in ("POST", "QUERY"):
        async with page_of(open_profile, s=[Answer(500), stream("data: a\n\n", "stay")]) as (page, script):
            options = f"{{method: '{method}', headers: async () => ({{'X-Token': String((globalThis.n ??= 1, n++))}})"
            await record(page, ["message"], 1, options + ", body: () => 'q' + n}")
            assert [asked.method for asked in script.asked] == [method] * 2
            assert [asked.headers["x-token"] for asked in script.asked] == ["1", "2"]
            assert [asked.body for asked in script.asked] == ["q2", "q3"]


async def test_post_is_not_repeated(open_profile: OpenProfile) -> None:
    async with page_of(open_profile, s=[stream("data: a\n\n")]) as (page, script):
        [_, error] = await record(page, ["message", "error"], 2, "{method: 'POST', body: 'x'}")
        assert (error["state"], error["reason"]) == ("closed", "the stream ended")
        assert len(script.asked) == 1


async def test_silence(open_profile: OpenProfile) -> None:
    async with page_of(open_profile, s=[stream("", "stay"), stream("data: a\n\n", "stay")]) as (page, _):
        [error, event] = await record(page, ["error", "message"], 2, "{silence: 300}")
        assert (error["state"], error["reason"]) == ("waiting", "the server was silent")
        assert event["data"] == "a"


@pytest.mark.parametrize(
    "event",
    ["window.dispatchEvent(new Event('online'))", "document.dispatchEvent(new Event('visibilitychange', bubbles))"],
    ids=["online", "visible"],
)
async def test_wakes(open_profile: OpenProfile, event: str) -> None:
    """A stream that waits is opened at once when the network or the tab returns."""
    async with page_of(open_profile, s=[stream("retry: 300000\n\n"), stream("data: a\n\n", "stay")]) as (page, script):
        await record(page, ["error"], 1)
        await page.evaluate(f"""() => new Promise((resolve) => {{
            const bubbles = {{ bubbles: true }};
            stream.onmessage = () => resolve(1);
            {event};
        }})""")
        first, second = (asked.at for asked in script.asked)
        assert second - first < 300


async def test_close_in_listener(open_profile: OpenProfile) -> None:
    async with page_of(open_profile, s=[stream("data: a\n\ndata: b\n\n")]) as (page, script):
        found = await page.evaluate("""() => new Promise((resolve) => {
            const seen = [];
            const stream = new EventStream("/s");
            stream.onmessage = ({ data }) => { seen.push(data); stream.close(); setTimeout(() => resolve(seen), 700); };
            stream.onerror = () => seen.push("error");
        })""")
        assert found == ["a"]
        assert len(script.asked) == 1


async def test_opens_again(open_profile: OpenProfile) -> None:
    """A closed stream continues after its last event."""
    async with page_of(open_profile, s=[stream("id: 1\ndata: a\n\n", "stay")]) as (page, script):
        await record(page, ["message"], 1)
        await page.evaluate(
            "() => { stream.close(); stream.open(); return new Promise((r) => (stream.onopen = () => r(1))); }"
        )
        assert script.asked[-1].headers["last-event-id"] == "1"


async def test_reload(open_profile: OpenProfile) -> None:
    """The cursor survives a reload if the page asks for it."""
    async with page_of(open_profile, s=[stream("id: 1\ndata: a\n\n", "stay")]) as (page, script):
        for options, expected in (("{}", None), ("{persist: true}", None), ("{persist: true}", "1"), ("{}", None)):
            await record(page, ["message"], 1, options)
            assert script.asked[-1].headers.get("last-event-id") == expected
            await page.reload()
            await page.evaluate("async () => void (await import('/scripts/record.js'))")


GAP: Final = 'event: stream:gap\nid: e-7\ndata: {"reason": "expired", "after": "e-1", "resumed": "e-7"}\n\n'


async def test_notices(open_profile: OpenProfile) -> None:
    """Notices are events of the page; access that expired is renewed at once; an end closes the stream."""
    answers = [
        stream(f'{GAP}event: stream:error\ndata: {{"message": "broken"}}\n\n', "stay"),
        stream("event: stream:expired\ndata: {}\n\n", "stay"),
        stream('event: stream:end\ndata: {"reason": "done"}\n\n', "stay"),
    ]
    tickets = [Answer(201, {"content-type": "application/json"}, f'{{"ticket": "t{number}"}}') for number in (1, 2, 3)]
    async with page_of(open_profile, s=answers, tickets=[problem(503, "busy"), *tickets]) as (page, script):
        types = ["gap", "stream:gap", "expired", "end", "error"]
        options = "{ticket: '/tickets', headers: () => ({Authorization: 'Bearer ann'})}"
        seen = await record(page, types, 6, options, "/s?topic=a&topic=b/*")
        assert [event["type"] for event in seen] == ["error", "stream:gap", "gap", "error", "expired", "end"]
        assert seen[0]["reason"] == "busy"
        assert seen[2]["detail"] == {"reason": "expired", "after": "e-1", "resumed": "e-7"}
        assert seen[3]["reason"] == "broken"
        await page.evaluate(
            "async () => { while (stream.state !== 'closed') await new Promise((r) => setTimeout(r)); }"
        )
        streams = [asked.path for asked in script.asked if asked.method == "GET"]
        assert streams == [f"/s?topic=a&topic=b%2F*&ticket=t{number}" for number in (1, 2, 3)]
        assert {asked.body for asked in script.asked if asked.method == "POST"} == {'{"topics":["a","b/*"]}'}
        assert {asked.headers["authorization"] for asked in script.asked} == {"Bearer ann"}


async def test_renewed_again(open_profile: OpenProfile) -> None:
    """Each renewal follows at once, also without an event in between, unless the last one was short before."""
    expired = stream("event: stream:expired\ndata: {}\n\n", "stay")
    async with page_of(open_profile, s=[expired, expired, expired, stream("data: a\n\n", "stay")]) as (page, _):
        await page.evaluate(
            "() => { globalThis.renewals = 0; const now = Date.now; Date.now = () => now() + 4000 * renewals; }"
        )
        every = (
            "{every: ({type}) => { renewals += type === 'stream:expired'; if (renewals === 1) throw Error('mine'); }}"
        )
        seen = await record(page, ["error", "message"], 1, every)
        assert [event["type"] for event in seen] == ["message"]


async def test_ticket_refused(open_profile: OpenProfile) -> None:
    async with page_of(open_profile, s=[stream("")], tickets=[problem(401, "sign in")]) as (page, script):
        [error] = await record(page, ["error"], 1, "{ticket: '/tickets'}")
        assert (error["state"], error["status"], error["reason"]) == ("closed", 401, "sign in")
        assert [asked.path for asked in script.asked] == ["/tickets"]


async def test_too_large(open_profile: OpenProfile) -> None:
    async with page_of(open_profile, s=[stream("data: " + "x" * (2**23 + 1), "stay")]) as (page, _):
        [error] = await record(page, ["error"], 1)
        assert (error["state"], error["reason"]) == ("closed", "event too large")
