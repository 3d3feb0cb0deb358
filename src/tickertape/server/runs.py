"""Runs over HTTP: a program in any language opens, fills and ends a run, and any client reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, Literal, cast

from starlette.requests import Request
from starlette.responses import Response

from ..asgi import ASGIApp
from ..errors import EventTooLargeError, InvalidEventError, InvalidTopicError, RunEndedError
from ..hub import Hub
from ..runs import FRAMINGS, Run, RunInfo, Runs
from ..wire import MAX_OFFSET, Cursor, ServerSentEvent
from .body import BODY_FACTOR, Turns, check_object, parse_object, parse_text, parse_values
from .broker_health import BrokerHealth
from .endpoints import SMALL_BODY, after_of, flag_of, integer_of, json_response, limit_of, published, wait_for_readers
from .limits import Guard
from .problems import Problem

_OPTIONS: Final = {"key": "string", "owner": "string", "ttl": "number", "replace": "boolean"}
_END: Final = {"state": "string", "error": "string"}
_ITEM: Final = {"data": "value", "event": "string"}

_STATES: Final = ("done", "error", "cancelled")


class RunEndpoints:
    """Handle requests for runs.

    Arguments:
        hub: an open hub.
        runs: the runs on its log.
        health: records and reports failed writes.
        guard: the limits for clients.
        receive: returns the body of a request that writes, up to a limit, if the request is allowed.
    """

    def __init__(
        self,
        hub: Hub,
        runs: Runs,
        health: BrokerHealth,
        guard: Guard,
        receive: Callable[[Request, int], Awaitable[bytes]],
    ) -> None:
        self._hub = hub
        self._runs = runs
        self._health = health
        self._guard = guard
        self._receive = receive

    async def list_runs(self, request: Request) -> Response:
        """``GET /runs``: a page of the active runs, or of all that can be read."""
        grant = await self._hub.authorize(request)
        if not (grant.admin or grant.subscribe):
            raise grant.refusal("list runs")
        after, limit = after_of(request), limit_of(request)
        found = await self._runs.list_runs(active=not flag_of(request, "finished"))
        if after is not None:
            offset = _offset_of(after)
            found = [info for info in found if _offset_of(info.run) > offset]
        found = [info for info in found if grant.may_subscribe(info.topic)]
        return json_response({"runs": [_description(info) for info in found[:limit]]})

    async def run(self, request: Request) -> ASGIApp:
        """``GET /runs/{name}``: its event stream. ``POST /runs/{name}``: open it."""
        return await (self._open(request) if request.method == "POST" else self._read(request))

    async def _read(self, request: Request) -> ASGIApp:
        grant = await self._hub.authorize(request)
        grant.check_subscribe(_events_of(request))
        query = request.query_params
        framing = query.get("framing", "events")
        if framing not in FRAMINGS:
            raise Problem(
                HTTPStatus.BAD_REQUEST, f"expected framing to be one of {', '.join(FRAMINGS)}, got {framing[:40]!r}"
            )
        after: int | Literal["now"] | None = "now"
        if query.get("after") != "now":
            after = integer_of(request, "after", 0, MAX_OFFSET)
        return await self._runs.response(
            request,
            request.path_params["name"],
            run=query.get("run"),
            owner=query.get("owner", ...),
            framing=cast("Any", framing),
            after=after,
            grant=grant,
        )

    async def _check_write(self, request: Request) -> None:
        """Refuse a request that writes to a run to whose events it may not publish."""
        (await self._hub.authorize(request)).check_publish(_events_of(request))

    async def _open(self, request: Request) -> Response:
        await self._check_write(request)
        options = await self._options(request, _OPTIONS)
        with self._storing():
            run = await self._runs.open(request.path_params["name"], **options)
        status = HTTPStatus.OK if run.joined else HTTPStatus.CREATED
        return json_response({**_description(run.info), "joined": run.joined}, status)

    async def append(self, request: Request) -> Response:
        """``POST /runs/{name}/events``: store items of a run."""
        await self._check_write(request)
        body = await self._receive(request, BODY_FACTOR * self._hub.max_event_size)
        items, many = await self._items(request, body)
        run = await self._find(request)
        await wait_for_readers(self._hub, self._guard)
        with self._storing():
            cursors = await run.append(*items, key=request.query_params.get("key") or None)
        return published(cursors, many=many)

    async def _items(self, request: Request, body: bytes) -> tuple[list[Any], bool]:
        """Return the items in a body, and whether they came as a list."""
        turns = Turns()
        kind = request.query_params.get("event")
        values = await parse_values(request.headers.get("content-type", ""), body, turns, self._guard.limits)
        if values is None:
            return [_item(parse_text(body), kind, {})], False
        items = []
        for index, value in enumerate(values.items):
            items.append(_item(value, kind, {"index": index} if values.many else {}))
            await turns.take()
        return items, values.many

    async def _options(self, request: Request, fields: Mapping[str, str]) -> dict[str, Any]:
        body = await self._receive(request, SMALL_BODY)
        return await parse_object(request.headers.get("content-type", ""), body, Turns(), self._guard.limits, fields)

    async def end(self, request: Request) -> Response:
        """``POST /runs/{name}/end``: end a run."""
        await self._check_write(request)
        fields = await self._options(request, _END)
        state, error = fields.get("state", "done"), fields.get("error")
        if state not in _STATES:
            sentence = f"expected state to be one of {', '.join(_STATES)}, got {state[:40]!r}"
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, sentence)
        run = await self._find(request)
        if run.info.active:
            with self._storing():
                await run.end(cast("Literal['done', 'error', 'cancelled']", state), error=error)
        return json_response(_description(run.info))

    async def cancel(self, request: Request) -> Response:
        """``POST /runs/{name}/cancel``: ask the producer of a run to stop."""
        await self._check_write(request)
        await self._receive(request, SMALL_BODY)
        run = await self._find(request)
        with self._storing():
            info = await run.cancel()
        return json_response(_description(run.info if info is None else info))

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Record whether the broker works, and answer mistakes of the request with problems."""
        try:
            with self._health.writing():
                yield
        except InvalidTopicError:
            raise
        except (InvalidEventError, EventTooLargeError) as error:
            raise Problem.of(error) from None
        except RunEndedError as error:
            raise Problem.of(error, state=error.state) from None
        except ValueError as error:  # an option that is out of its range
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None

    async def _find(self, request: Request) -> Run:
        """Return the newest run of a name, or the one whose id is in the query, if it has the owner of the query."""
        name, query = request.path_params["name"], request.query_params
        run = await self._runs.get(name, query.get("run"))
        if run is None:
            which = f" with the id {query['run'][:80]!r}" if "run" in query else ""
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no run {name!r}{which}")
        if "owner" in query and run.info.owner != query["owner"]:
            raise Problem(HTTPStatus.FORBIDDEN, f"run {name!r} has another owner")
        return run


def _events_of(request: Request) -> str:
    """Return the pattern of the topics of all runs of a name."""
    return f"run/{request.path_params['name']}/*"


def _description(info: RunInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "run": info.run,
        "topic": info.topic,
        "state": info.state,
        "owner": info.owner,
        "started": info.started,
        "ended": info.ended,
        "error": info.error,
    }


def _item(value: Any, kind: str | None, place: dict[str, int]) -> str | ServerSentEvent:
    """Return the item of a run for a value of the request, with the event type ``kind`` if it names no other."""
    if isinstance(value, str):
        return value if kind is None else _event(value, kind, **place)
    fields = check_object(value, _ITEM, **place)
    if "data" not in value:
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the item has no field 'data'", **place)
    return _event(value["data"], fields.get("event", kind), **place)


def _event(data: Any, event: str | None, **place: int) -> ServerSentEvent:
    try:
        return ServerSentEvent("null" if data is None else data, event=event)
    except InvalidEventError as error:
        raise Problem.of(error, **place) from None


def _offset_of(run: str) -> int:
    cursor = Cursor.parse(run)
    return 0 if cursor is None else cursor.offset
