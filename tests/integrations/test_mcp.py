"""The event store on every broker, and the installed SDK's server and client over our package."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from mcp import Client
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCResponse
from mcp_types.jsonrpc import ErrorData

from broker.nats_logs import NatsLog, nats_absent
from broker.postgres_logs import PostgresLog, postgres_absent
from broker.private_servers import require
from broker.redis_logs import RedisLog, redis_absent
from broker.sqlite_logs import SQLiteLog
from support.asgi import Wire, scope_of
from support.local import serve_here
from support.page_program import run_program, serve_page
from tickertape import Hub
from tickertape.broker import MemoryBroker, Retention
from tickertape.integrations.mcp import HubEventStore
from tickertape.testing.contract import Log

VERSION: Final = "2025-11-25"
PAGE: Final = "frameworks/mcp"
PATIENCE: Final = 20.0

LOGS: Final[dict[str, tuple[type[Log] | None, Callable[[], str | None]]]] = {
    "memory": (None, lambda: None),
    "sqlite": (SQLiteLog, lambda: None),
    "redis": (RedisLog, redis_absent),
    "postgres": (PostgresLog, postgres_absent),
    "nats": (NatsLog, nats_absent),
}

RESPONSE: Final = JSONRPCResponse(jsonrpc="2.0", id=1, result={"done": True})


def note(number: int) -> JSONRPCMessage:
    return JSONRPCNotification(jsonrpc="2.0", method="notifications/progress", params={"progress": number})


async def replay(store: HubEventStore, last_event_id: str) -> list[EventMessage]:
    """Return what a client gets that resumes."""
    sent: list[EventMessage] = []

    async def send(message: EventMessage) -> None:
        sent.append(message)

    async with asyncio.timeout(PATIENCE):
        assert await store.replay_events_after(last_event_id, send) is None
    return sent


# The store


@pytest.fixture(params=LOGS)
async def hubs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Hub, Hub]]:
    """Two hubs on one log, as in two processes; one and the same on a log in memory."""
    kind, absent = LOGS[request.param]
    require(absent())
    async with AsyncExitStack() as stack:
        if kind is None:
            hub = await stack.enter_async_context(Hub("memory://"))
            yield hub, hub
            return
        log = kind(tmp_path)
        stack.push_async_callback(log.remove)
        first = await stack.enter_async_context(Hub(log.broker()))
        yield first, await stack.enter_async_context(Hub(log.broker()))


async def test_replay(hubs: tuple[Hub, Hub]) -> None:
    """The messages of one stream of one session, in their order, from both processes."""
    here, there = (HubEventStore(hub, session="one") for hub in hubs)
    foreign = HubEventStore(hubs[1], session="two")
    priming = await here.store_event("1", None)
    first = await here.store_event("1", note(1))
    await here.store_event("2", note(-1))
    await foreign.store_event("1", note(-2))
    await there.store_event("1", None)
    second = await there.store_event("1", note(2))
    last = await here.store_event("1", RESPONSE)
    expected = [EventMessage(note(1), first), EventMessage(note(2), second), EventMessage(RESPONSE, last)]
    assert await replay(there, priming) == expected
    assert await replay(here, first) == expected[1:]
    assert await replay(foreign, priming) == []


async def test_follow(hubs: tuple[Hub, Hub]) -> None:
    """A client that resumes at one process gets what a request in the other one still sends."""
    here, there = (HubEventStore(hub, session="one") for hub in hubs)
    priming = await here.store_event("1", None)
    await here.store_event("1", note(1))
    sent: list[JSONRPCMessage] = []

    async def send(message: EventMessage) -> None:
        sent.append(message.message)
        await here.store_event("1", RESPONSE if len(sent) == 3 else note(len(sent) + 1))

    async with asyncio.timeout(PATIENCE):
        await there.replay_events_after(priming, send)
    assert sent == [note(1), note(2), note(3), RESPONSE]


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub("memory://") as hub:
        yield hub


@pytest.mark.parametrize("id", ["", "text", "{epoch}-0", "{epoch}-2", "{epoch}-3", "{epoch}-99", "other-1"])
async def test_unknown_ids(hub: Hub, id: str, caplog: pytest.LogCaptureFixture) -> None:
    """Positions without an event, events of other topics, and those of other logs."""
    store = HubEventStore(hub, session="one")
    await store.store_event("1", None)
    await hub.publish("other")
    await HubEventStore(hub, session="one", topic="other").store_event("1", RESPONSE)
    assert await replay(store, id.format(epoch=hub.epoch)) == []
    assert "which its session does not have" in caplog.text


async def test_events_no_longer_kept() -> None:
    """Without the event itself nothing shows that it was of this session."""
    async with Hub(MemoryBroker(retention=Retention(events=2))) as hub:
        store = HubEventStore(hub, session="one")
        ids = [await store.store_event("1", message) for message in (None, note(1), note(2), RESPONSE)]
        assert await replay(store, ids[0]) == []
        assert len(await replay(store, ids[2])) == 1


async def test_error_without_id_is_not_the_end(hub: Hub) -> None:
    store = HubEventStore(hub, session="one")
    priming = await store.store_event("1", None)
    error = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=-32700, message="parse error"))
    await store.store_event("1", error)
    await store.store_event("1", RESPONSE)
    assert [event.message for event in await replay(store, priming)] == [error, RESPONSE]


async def test_without_wrap(hub: Hub) -> None:
    with pytest.raises(RuntimeError, match=r"HubEventStore.wrap\(app\)"):
        await HubEventStore(hub).store_event("1", None)


# wrap()


def user_of(client_id: str | None) -> Any:
    if client_id is None:
        return None
    return AuthenticatedUser(AccessToken(token="t", client_id=client_id, scopes=[]))


class Application:
    """A server whose sessions are in another process: it stores for the requests that it accepts.

    Attributes:
        store: its store.
        ids: the ids of stored events.
    """

    def __init__(self, hub: Hub) -> None:
        self.store = HubEventStore(hub)
        self.app = self.store.wrap(self.answer)
        self.ids: list[str] = []

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = scope.get("who")  # as an authentication inside the application does
        if scope["method"] == "POST":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"mcp-session-id", scope["new"])]})
            for message in (None, note(1), RESPONSE):
                self.ids.append(await self.store.store_event("1", message))
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.start", "status": scope.get("status", 404), "headers": []})
            await send({"type": "http.response.body", "body": b"refused"})

    async def request(self, method: str, headers: dict[bytes, bytes], **scope: Any) -> tuple[int, bytes]:
        wire = Wire()
        async with asyncio.timeout(PATIENCE):
            await self.app({**scope_of(method, **scope), "headers": list(headers.items())}, wire.receive, wire.send)
        return wire.messages[0]["status"], wire.body


REFUSED: Final = (404, b"refused")


@pytest.mark.parametrize(
    ("session", "who", "status", "accepted"),
    [
        ("one", "alice", 404, True),
        ("one", "bob", 404, False),
        ("one", None, 404, False),
        ("two", "alice", 404, False),
        (None, "alice", 404, False),
        ("one", "alice", 401, False),
    ],
)
async def test_resume_elsewhere(hub: Hub, session: str | None, who: str | None, status: int, accepted: bool) -> None:
    """If the SDK does not know the session, its events come from the log, for its own user only."""
    application = Application(hub)
    await application.request("POST", {}, new=b"one", who=user_of("alice"))
    headers = {b"last-event-id": application.ids[0].encode()}
    if session is not None:
        headers[b"mcp-session-id"] = session.encode()
    answer = await application.request("GET", headers, who=user_of(who), status=status)
    if accepted:
        assert answer[0] == 200
        assert [line for line in answer[1].split(b"\n") if line.startswith(b"id: ")] == [
            f"id: {event_id}".encode() for event_id in application.ids[1:]
        ]
    else:
        assert answer == (status, b"refused")


async def test_other_refusals_pass(hub: Hub) -> None:
    application = Application(hub)
    assert await application.request("GET", {b"mcp-session-id": b"one"}) == REFUSED
    assert await application.request("DELETE", {b"mcp-session-id": b"one", b"last-event-id": b"x"}) == REFUSED


async def test_lifespan_passes(hub: Hub) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    wire = Wire()
    await HubEventStore(hub).wrap(app)({"type": "lifespan"}, wire.receive, wire.send)
    assert seen == ["lifespan"]


# The SDK

PROGRESS: Final = [f"{number} of 4" for number in (1, 2, 3, 4)]


async def test_page(tmp_path: Path) -> None:
    """Progress, a closed stream that is resumed, a notification on the GET stream, and both protocols."""
    with serve_page(PAGE, "app:app", tmp_path):
        newest = (tmp_path / "client.py").read_text().replace('mode="legacy", ', "")
        (tmp_path / "newest.py").write_text(newest)
        runs = (asyncio.to_thread(run_program, tmp_path, name) for name in ("client.py", "newest.py"))
        legacy, modern = await asyncio.gather(*runs)
    for lines in (legacy, modern):
        assert [line for line in lines if " of " in line] == PROGRESS
        assert lines[-1] == "counted to 4"
    assert "notifications/tools/list_changed" in legacy


class Session:
    """Requests of one MCP session, written by hand.

    Attributes:
        headers: sent with each request, later with the session.
    """

    def __init__(self, client: httpx2.AsyncClient, url: str, token: str = "none") -> None:
        self.client = client
        self.url = url
        self.headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {token}"}

    async def open(self) -> None:
        """Send ``initialize``, and keep the session's id."""
        info = {"name": "test", "version": "1"}
        params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": info}
        async with self.client.stream("POST", self.url, json=rpc("initialize", params), headers=self.headers) as answer:
            assert answer.status_code == 200
            self.headers |= {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": VERSION}
            await answer.aread()
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await self.client.post(self.url, json=ready, headers=self.headers)).status_code == 202

    async def call(self, tool: str, **arguments: Any) -> str:
        """Call a tool, and return the body of the answer."""
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": 1}}
        return (await self.client.post(self.url, json=rpc("tools/call", params), headers=self.headers)).text

    async def resume(self, url: str, last_event_id: str, token: str) -> tuple[int, str]:
        """Resume with the token of any user, and return the status and the body."""
        headers = {**self.headers, "Last-Event-ID": last_event_id, "Authorization": f"Bearer {token}"}
        answer = await self.client.get(url, headers=headers)
        return answer.status_code, answer.text


def rpc(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


async def test_sigterm(tmp_path: Path) -> None:
    """An open GET stream and an open request end with the server."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as client:
        with serve_page(PAGE, "app:app", tmp_path) as [site]:
            session = Session(client, f"http://127.0.0.1:{site.port}/mcp")
            await session.open()
            params = {"name": "count", "arguments": {"to": 1000}, "_meta": {"progressToken": 1}}
            call = client.stream("POST", session.url, json=rpc("tools/call", params), headers=session.headers)
            async with client.stream("GET", session.url, headers=session.headers) as get, call as post:
                assert (get.status_code, post.status_code) == (200, 200)
                lines = post.aiter_lines()
                while not (await anext(lines)).startswith("data: {"):
                    pass
                assert await site.program.end() < 2


class Tokens:
    """Tokens that are the names of their users."""

    async def verify_token(self, token: str) -> AccessToken | None:
        return AccessToken(token=token, client_id=token, scopes=[]) if token in ("alice", "bob") else None


def server_with_users(hub: Hub) -> Any:
    """Return a server of the SDK that asks for a token."""
    address: Any = "http://127.0.0.1:1"
    settings = AuthSettings(issuer_url=address, resource_server_url=address, validate_token_resource=False)
    server = MCPServer("Users", auth=settings, token_verifier=Tokens())

    @server.tool()
    async def greet(ctx: Context) -> str:
        await ctx.report_progress(1)
        return "a secret"

    store = HubEventStore(hub)
    return store.wrap(server.streamable_http_app(event_store=store))


async def test_users_of_the_sdk(hub: Hub) -> None:
    """The user that the SDK's own authentication finds is part of a session, at another server too."""
    async with (
        serve_here(server_with_users(hub)) as here,
        serve_here(server_with_users(hub)) as there,
        httpx2.AsyncClient(timeout=PATIENCE) as client,
    ):
        session = Session(client, f"{here}/mcp", "alice")
        await session.open()
        body = await session.call("greet")
        priming = next(line for line in body.splitlines() if line.startswith("id: ")).removeprefix("id: ")
        for url in (f"{here}/mcp", f"{there}/mcp"):
            status, text = await session.resume(url, priming, "alice")
            assert (status, "a secret" in text) == (200, True)
            status, text = await session.resume(url, priming, "bob")
            assert (status, "a secret" in text) == (404, False)
            status, text = await session.resume(url, priming, "mallory")
            assert (status, "a secret" in text) == (401, False)


class RoundRobin:
    """A proxy for two servers. A session's requests go to its server, and those that resume to the other one.

    Attributes:
        resumed: the status of each answer to a request that resumes.
    """

    def __init__(self, ports: list[int], client: httpx2.AsyncClient) -> None:
        self._turns = itertools.cycle(ports)
        self._other = {ports[0]: ports[1], ports[1]: ports[0]}
        self._owners: dict[str, int] = {}
        self._client = client
        self.resumed: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for part in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{part}.complete"})
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"host", b"connection")]
        names = dict(headers)
        session = names.get(b"mcp-session-id", b"").decode()
        port = self._owners.get(session) or next(self._turns)
        if b"last-event-id" in names:
            port = self._other[port]
        body = (await receive())["body"]
        url = f"http://127.0.0.1:{port}{scope['path']}"
        async with self._client.stream(scope["method"], url, headers=headers, content=body, timeout=None) as answer:
            if b"last-event-id" in names:
                self.resumed.append(answer.status_code)
            self._owners.setdefault(answer.headers.get("mcp-session-id", session), port)
            start = {"type": "http.response.start", "status": answer.status_code, "headers": answer.headers.raw}
            await send(start)
            async for data in answer.aiter_raw():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_two_processes(kind: str, tmp_path: Path) -> None:
    """The request runs in one process, and the client resumes at the other one."""
    log_type, absent = LOGS[kind]
    require(absent())
    assert log_type is not None
    log: Any = log_type(tmp_path)
    url = log.url if kind == "redis" else f"sqlite:///{tmp_path}/shared.db"
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    seen: list[float] = []

    async def note_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    try:
        with serve_page(PAGE, "app:app", *folders, changes={"sqlite:///mcp.db": url}) as sites:
            async with httpx2.AsyncClient() as client:
                proxy = RoundRobin([site.port for site in sites], client)
                async with (
                    asyncio.timeout(PATIENCE),
                    serve_here(proxy) as address,
                    Client(f"{address}/mcp", mode="legacy") as user,
                ):
                    result: Any = await user.call_tool("count", {"to": 4}, progress_callback=note_progress)
        assert result.content[0].text == "counted to 4"
        assert seen == [1, 2, 3, 4]
        assert proxy.resumed == [200]
    finally:
        await log.remove()
