"""The notifications demo: its routes, the feed that publishes the rows of the table, and the consumer of a queue."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import unquote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ...errors import TickertapeError
from ...hub import Hub, HubResponse
from ...sources import NatsMessage, Poll, nats_subject, postgres_listen
from ...wire import Cursor
from ..identity import signed_in
from ..requests import read_json
from ..site import RETRY, Demo
from .notification import parse_notification, topic_of, user_id
from .table import CHANNEL, MAX_ID, MAX_PAGE, Database, Row, SQLite, Table, TableError

logger = logging.getLogger("tickertape.demo")

T = TypeVar("T")

DEFAULT_PAGE: Final = 20
"""Notifications in an answer by default: two screens."""

POLL_INTERVAL: Final = 0.25
"""Seconds between two reads of a table without change notices: a row of another program appears without a delay that
users notice."""

SAFETY_INTERVAL: Final = 10.0
"""Seconds between two reads of a table with change notices, in case a notice was lost."""

QUEUE_RETRY: Final = 1.0
"""Seconds to wait after the queue or the table failed."""

DURABLE: Final = "tickertape-notifications"
"""The name of the consumer in NATS, which stores the position in the queue. All servers share it."""


class _Requests:
    def __init__(self, table: Table, hub: Hub, source: Poll, *, shared: bool) -> None:
        self._table = table
        self._hub = hub
        self._source = source
        self._shared = shared  # the hub is that of the site

    async def events(self, request: Request) -> HubResponse:
        # The topic depends on the session only, never on the URL or a header.
        return self._hub.response(request, topic_of(user_id(signed_in(request))))

    async def inbox(self, request: Request) -> JSONResponse:
        user = user_id(signed_in(request))
        before = _number(request, "before", MAX_ID, largest=MAX_ID)
        limit = _number(request, "limit", DEFAULT_PAGE, largest=MAX_PAGE)
        # The cursor is read before the table, so a stream that resumes from it misses no row.
        state = await _available(self._hub.check())
        page = await _available(self._table.inbox(user, before=before, limit=limit))
        return JSONResponse(
            {
                "user": user,
                "notifications": [notification.as_json() for notification in page.notifications],
                "more": page.more,
                "unread_older": page.unread_older,
                "cursor": str(Cursor(state.epoch, state.newest)),
                "topic": topic_of(user) if self._shared else None,
            },
            headers={"cache-control": "no-store"},
        )

    async def send(self, request: Request) -> JSONResponse:
        # Without a session, so that curl works too. A public server should require a token here.
        try:
            new = parse_notification(await read_json(request))
        except ValueError as error:
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        stored = await _available(self._table.insert(new))
        self._source.wake()
        return JSONResponse({"id": stored, "user": new.user}, HTTPStatus.CREATED)

    async def read(self, request: Request) -> JSONResponse:
        """Mark notifications as read and publish that, even if they were read already: the first answer may be lost."""
        user = user_id(signed_in(request))
        match await read_json(request):
            case {"ids": [_, *_] as ids, **rest} if not rest and len(ids) <= MAX_PAGE and all(map(_is_id, ids)):
                await _available(self._table.mark_read(user, ids))
                marked: dict[str, Any] = {"ids": ids}
            case {"up_to": int() as up_to, **rest} if not rest and _is_id(up_to):
                await _available(self._table.mark_all_read(user, up_to))
                marked = {"up_to": up_to}
            case _:
                sentence = f'expected {{"ids": [1 to {MAX_PAGE} ids]}} or {{"up_to": id}}, got something else'
                raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
        await _available(self._hub.publish(topic_of(user), marked, event="read"))
        return JSONResponse(marked)


async def _available(operation: Awaitable[T]) -> T:
    """Await an operation of the table or the hub. Raise HTTPException 503 if it fails."""
    try:
        return await operation
    except (TableError, TickertapeError) as error:
        logger.error("a request failed: %s", error)
        sentence = "the database or the event log is not available: try again in a moment"
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, sentence, {"Retry-After": "1"}) from error


def _number(request: Request, name: str, default: int, *, largest: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= largest):
        sentence = f"expected {name} to be a number from 1 to {largest}, got {text!r:.40}"
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
    return int(text)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID


class QueueConsumer:
    """Store the messages of a NATS subject in the table, each once. ``async with`` starts and stops it.

    Arguments:
        url: ``nats://host/subject``.
        table: the table of notifications.
        on_stored: called after each stored message.

    Raises:
        ValueError: the URL contains no subject.
        BrokerError: an option of the URL is wrong, or nats-py is not installed.
    """

    def __init__(self, url: str, table: Table, on_stored: Callable[[], None]) -> None:
        parts = urlsplit(url)
        self._subject = unquote(parts.path[1:])
        if parts.scheme != "nats" or not parts.hostname or not self._subject:
            raise ValueError(f"expected a queue as nats://host/subject, got {parts.scheme}://{parts.hostname or ''}")
        # The stream is created if no stream has the subject. It keeps messages while this server is down.
        stream = re.sub(r"[^A-Za-z0-9_-]", "_", self._subject)
        server = parts._replace(path="").geturl()
        self._messages = nats_subject(server, self._subject, durable=DURABLE, stream=stream)
        self._table = table
        self._on_stored = on_stored
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<QueueConsumer {self._subject}>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                async with aclosing(aiter(self._messages)) as batches:
                    async for batch in batches:  # requesting the next batch acknowledges this one
                        for message in batch:
                            await self._store(message)
            except Exception as error:
                logger.error("queue %s failed, retrying in %g s: %s", self._subject, QUEUE_RETRY, error)
            await asyncio.sleep(QUEUE_RETRY)

    async def _store(self, message: NatsMessage) -> None:
        try:
            fields = json.loads(message.data)
            if not isinstance(fields, dict):
                raise ValueError(f"expected a JSON object, got {fields!r:.40}")
            new = parse_notification(fields)
        except (ValueError, RecursionError) as error:
            # The message is acknowledged. Otherwise the queue would deliver it again without end.
            logger.warning("skipped an invalid message of queue %s: %s", self._subject, error)
            return
        if await self._table.insert(new, queue_key=message.key) is not None:
            self._on_stored()


def open_database(url: str) -> Database:
    """Return the database for a URL: ``postgresql://…``, or ``sqlite:///`` and a path.

    Raises:
        ValueError: the URL is not valid, or psycopg is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        try:
            from .postgres import Postgres
        except ModuleNotFoundError as error:
            raise ValueError(f"{error.name} is not installed: pip install 'tickertape[postgres]'") from error
        return Postgres(url)
    if scheme == "sqlite" and len(rest) > 1:
        return SQLite(Path(rest[1:]))
    raise ValueError(f"expected a database as postgresql://… or sqlite:///path, got {scheme}://…")


def check_database(url: str) -> None:
    """Open the database at a URL and close it, so that a mistake is reported before the server starts.

    Raises:
        TableError: the database cannot be opened.
        ValueError: the URL is not valid.
    """

    async def check(database: Database) -> None:
        try:
            await database.open()
        finally:
            await database.close()

    asyncio.run(check(open_database(url)))


def key_of(row: Row) -> str:
    """Return a key that no other row has, not even one with the same id after the table was created again."""
    return f"{row.notification.id} {row.notification.created_at}"


def notifications_demo(hub: Hub, *, folder: Path, database: str | None = None, queue: str | None = None) -> Demo:
    """Return the notifications demo.

    Arguments:
        hub: the hub of the site. It has the events, unless the table is in PostgreSQL.
        folder: the folder for its files.
        database: the database with the table: ``postgresql://…`` or ``sqlite:///…``. The default is a file in
            ``folder``. PostgreSQL also stores the events, so that any number of servers can share them.
        queue: a queue of messages that become notifications: ``nats://host/subject``.

    Raises:
        ValueError: a URL is not valid.
    """
    table_database = open_database(database or f"sqlite:///{folder}/notifications.sqlite")
    postgres = None if isinstance(table_database, SQLite) else database
    table = Table(table_database)
    own_hub = None if postgres is None else Hub(postgres, retry=RETRY / 1000)
    log = own_hub or hub
    source = Poll(
        table.newer_settled,
        position="position",
        after=table.position,
        save=table.save_position,
        every=SAFETY_INTERVAL if postgres else POLL_INTERVAL,
        fallback=POLL_INTERVAL,
        wake=postgres_listen(postgres, CHANNEL) if postgres else None,
    )
    consumer = None if queue is None else QueueConsumer(queue, table, source.wake)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await table_database.open()
            stack.push_async_callback(table_database.close)
            if own_hub is not None:
                await stack.enter_async_context(own_hub)
            feed = log.feed(
                lambda row: topic_of(row.notification.user),
                source,
                name="notifications",
                key=key_of,
                event="notification",
                data=lambda row: row.notification.as_json(),
            )
            stack.push_async_callback(feed.stop)
            if consumer is not None:
                await stack.enter_async_context(consumer)
            yield

    def own_topics(request: Request, user: str | None) -> list[str]:
        return [] if user is None or own_hub is not None else [topic_of(user_id(user))]

    requests = _Requests(table, log, source, shared=own_hub is None)
    return Demo(
        name="Notifications",
        title="Notifications",
        summary=(
            "Rows of a database table, pushed to their users. They may come from this form, a terminal, a message "
            "queue or another program. Nothing is lost while you are away."
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
        own_topics=own_topics,
        running=running,
    )
