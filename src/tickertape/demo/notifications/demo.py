"""The notifications demo: a table, the feed that publishes its rows, and what the page asks for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ...errors import TickertapeError
from ...hub import Hub, HubResponse
from ...sources import Poll, poll, postgres_listen
from ...wire import Cursor
from ..identity import signed_in
from ..requests import read_json
from ..site import RETRY, Demo, log_url
from .notification import read_draft, topic_of, user_id
from .queue import Queue
from .sqlite import SQLite
from .table import CHANNEL, MAX_ID, MAX_PAGE, Database, Entry, Table, TableError

__all__ = ["notifications_demo", "open_database", "reach_database"]

logger = logging.getLogger("tickertape.demo")

T = TypeVar("T")

PAGE: Final = 20
"""Notifications of an answer that was not asked for another number: two screens."""

EVERY: Final = 0.25
"""Seconds between two looks at a table of which nothing is heard: rows of other programs are not felt as late."""

SAFETY: Final = 10.0
"""Seconds between two looks at a table that tells of its rows, in case that was lost."""


class _Requests:
    def __init__(self, table: Table, hub: Hub, source: Poll) -> None:
        self._table = table
        self._hub = hub
        self._source = source

    async def events(self, request: Request) -> HubResponse:
        # Whose stream it is, the session says: nothing else in a request is asked.
        return self._hub.response(request, topic_of(user_id(signed_in(request))))

    async def inbox(self, request: Request) -> JSONResponse:
        user = user_id(signed_in(request))
        before = _number(request, "before", MAX_ID, most=MAX_ID)
        limit = _number(request, "limit", PAGE, most=MAX_PAGE)
        # The place in the log is taken before the table is read: a stream from there on misses nothing.
        state = await _done(self._hub.check())
        found = await _done(self._table.inbox(user, before=before, limit=limit))
        return JSONResponse(
            {
                "user": user,
                "notifications": [notification.as_json() for notification in found.notifications],
                "more": found.more,
                "unread_older": found.unread_older,
                "cursor": str(Cursor(state.epoch, state.newest)),
            },
            headers={"cache-control": "no-store"},
        )

    async def send(self, request: Request) -> JSONResponse:
        # From a terminal, without a session: whoever reaches the server may. Ask for a token where that is too many.
        try:
            draft = read_draft(await read_json(request))
        except ValueError as error:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        stored = await _done(self._table.insert(draft))
        self._source.wake()  # as for a row by anyone, but at once
        return JSONResponse({"id": stored, "user": draft.user}, HTTPStatus.CREATED)

    async def read(self, request: Request) -> JSONResponse:
        """Mark as read, and say so: also what was read already, for the answer to the first time may be lost."""
        user = user_id(signed_in(request))
        match await read_json(request):
            case {"ids": [_, *_] as ids, **rest} if not rest and len(ids) <= MAX_PAGE and all(map(_is_id, ids)):
                await _done(self._table.mark_read(user, ids))
                told: dict[str, Any] = {"ids": ids}
            case {"up_to": int() as up_to, **rest} if not rest and _is_id(up_to):
                await _done(self._table.mark_all_read(user, up_to))
                told = {"up_to": up_to}
            case _:
                sentence = f'expected {{"ids": [1 to {MAX_PAGE} ids]}} or {{"up_to": id}}, got something else'
                raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
        await _done(self._hub.publish(topic_of(user), told, event="read"))
        return JSONResponse(told)


async def _done(work: Awaitable[T]) -> T:
    """Await what the table or the log is asked for; HTTPException if it cannot be had."""
    try:
        return await work
    except (TableError, TickertapeError) as error:
        logger.error("a request failed: %s", error)
        sentence = "expected the database and the log to answer, got an error of one of them: try again in a moment"
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, sentence, {"Retry-After": "1"}) from error


def _number(request: Request, name: str, default: int, *, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= most):
        sentence = f"expected {name} to be a number from 1 to {most}, got {text!r:.40}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return int(text)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID


def open_database(url: str) -> Database:
    """Return the database at a URL: of PostgreSQL, or ``sqlite:///`` and a path.

    Raises:
        ValueError: it is neither; or what PostgreSQL needs is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        try:
            from .postgres import Postgres
        except ModuleNotFoundError as error:
            raise ValueError(
                f"expected the package {error.name}, got none: pip install 'tickertape[postgres]'"
            ) from error
        return Postgres(url)
    if scheme == "sqlite" and len(rest) > 1:
        return SQLite(Path(rest[1:]))
    raise ValueError(f"expected a database as postgresql://… or sqlite:///path, got {scheme}://…")


def reach_database(url: str | None) -> None:
    """Open the database at a URL once, if there is one: a mistake is told before a server starts.

    Raises:
        TableError: it cannot be opened.
        ValueError: the URL is none that is known.
    """

    async def reach(database: Database) -> None:
        try:
            await database.open()
        finally:
            await database.close()

    if url is not None:
        asyncio.run(reach(open_database(url)))


def key_of(entry: Entry) -> str:
    """Return what tells a row from all others, also from one with the same id in a table that was made anew."""
    return f"{entry.notification.id} {entry.notification.created_at}"


def notifications_demo(*, folder: Path, database: str | None = None, queue: str | None = None) -> Demo:
    """Describe the notifications demo.

    Arguments:
        folder: where its files are.
        database: the URL of the database with the table: ``postgresql://…``, or ``sqlite:///…``; by default a
            file in ``folder``. PostgreSQL keeps the log of events too, so that any number of servers share it.
        queue: where messages come from that become notifications: ``nats://host/subject``.

    Raises:
        ValueError: a URL is none that is known.
    """
    place = open_database(database or f"sqlite:///{folder}/notifications.sqlite")
    on_server = not isinstance(place, SQLite)
    table = Table(place)
    hub = Hub(database if database and on_server else log_url(folder / "notifications-log.db"), retry=RETRY / 1000)
    source = poll(
        table.newer_soon,
        position="position",
        after=table.position,
        save=table.save_position,
        every=SAFETY if on_server else EVERY,
        fallback=EVERY,
        wake=postgres_listen(database, CHANNEL) if database and on_server else None,
    )
    hub.feed(
        lambda entry: topic_of(entry.notification.user),
        source,
        name="notifications",
        key=key_of,
        event="notification",
        data=lambda entry: entry.notification.as_json(),
    )
    worker = None if queue is None else Queue(queue, table, source.wake)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await place.open()
            stack.push_async_callback(place.close)
            await stack.enter_async_context(hub)
            if worker is not None:
                await stack.enter_async_context(worker)
            yield

    requests = _Requests(table, hub, source)
    return Demo(
        name="Notifications",
        title="Notifications",
        summary=(
            "Rows of a database table, pushed to the people they are for, wherever they come from: this form, "
            "a terminal, a message queue, another program. What comes while you are away waits for you."
        ),
        path="/notifications/",
        web=files(__package__) / "web",
        script="notifications.js",
        style="notifications.css",
        routes=[
            Route("/notifications/", requests.send, methods=["POST"]),
            Route("/notifications/events", requests.events),
            Route("/notifications/inbox", requests.inbox),
            Route("/notifications/read", requests.read, methods=["POST"]),
        ],
        running=running,
    )
