"""``Source``, what the asynchronous and the synchronous source have in common: all but the waiting."""

from __future__ import annotations

import json as jsonlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx2

from ..wire import ServerSentEvent
from .actions import Closed, Connect, Notice, Opened, Reconnecting, State, Statistics
from .clock import Clock
from .headers import HeaderList, header_list, merged, shown
from .inbox import Gap
from .policy import Policy, PolicyOptions
from .problem import said
from .reconnect import Reconnector, id_header

__all__ = ["FAILURES", "LIMITS", "TIMEOUT", "Source"]

logger = logging.getLogger("tickertape.client")

FAILURES: Final = (httpx2.TransportError, httpx2.DecodingError, OSError)
"""What another attempt may do away with. All else is a mistake in a program, and is raised."""

TIMEOUT: Final = httpx2.Timeout(10.0)
"""Seconds to connect and to send, for our own client: a network that needs more is as good as down."""

LIMITS: Final = httpx2.Limits(max_keepalive_connections=0)
"""For our own client: a reconnect has to prove the whole way, and not find a connection that died in the pool."""

_DEFAULT_HEADERS: Final = [("Accept", b"text/event-stream"), ("Cache-Control", b"no-cache")]


class Source:
    """Hold a state machine and what it needs to make requests."""

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str,
        headers: Mapping[str, str] | None,
        content: bytes | str | None,
        json: Any,
        last_event_id: object,
        hooks: Mapping[type, Callable[[Any], object] | None],
        random: Callable[[], float],
        policy: PolicyOptions,
    ) -> None:
        self.url = httpx2.URL(url)
        self._method = method.upper()
        self._content, body_headers = _body(content, json)
        own_headers = header_list(headers)
        if any(name.lower() == "last-event-id" for name, _ in own_headers):
            raise ValueError("expected the place as last_event_id=, got a header Last-Event-ID")
        all_headers = merged(_DEFAULT_HEADERS, body_headers, own_headers)
        self._machine = Reconnector(Policy(**policy), headers=all_headers, random=random)
        if isinstance(last_event_id, str):
            self._machine.last_event_id = ServerSentEvent(id=last_event_id).id  # checked by it
        self._hooks = hooks
        self._closing = False
        self._is_loaded = False
        self._secret: list[str] = []  # names of the headers that carry the credentials of this attempt
        self._at_home = True  # no redirect of this attempt has left the place that credentials are for

    def __repr__(self) -> str:
        place, events = self.last_event_id, self.statistics().events
        return f"<{type(self).__name__} {shown(self.url)} {self.state} last_event_id={place!r} events={events}>"

    @property
    def state(self) -> State:
        """Where the source stands: connecting, open or closed."""
        return State.CLOSED if self._closing else self._machine.state

    @property
    def last_event_id(self) -> str | None:
        """The place: the id of the last event that the loop is done with; the next attempt resumes after it."""
        return self._machine.last_event_id

    def statistics(self) -> Statistics:
        """Return what the source has done since it was made."""
        return self._machine.statistics()

    def _request(
        self,
        client: httpx2.AsyncClient | httpx2.Client,
        connect: Connect,
        credentials: HeaderList,
        read_timeout: float | None,
        extensions: Mapping[str, Any],
    ) -> httpx2.Request:
        if self.last_event_id and id_header(self.last_event_id) is None:
            logger.warning("%s starts anew: no header can carry the place %r", shown(self.url), self.last_event_id)
        self._secret = [name for name, _ in credentials]
        self._at_home = True
        timeout = client.timeout
        return client.build_request(
            self._method,
            self.url,
            headers=[(name.encode(), value) for name, value in merged(connect.headers, credentials)],
            content=self._content,
            timeout=httpx2.Timeout(connect=timeout.connect, write=timeout.write, pool=timeout.pool, read=read_timeout),
            extensions=dict(extensions),
        )

    def _responded(self, response: httpx2.Response, body: bytes, clock: Clock) -> None:
        headers = dict(response.headers)
        self._machine.responded(
            response.status_code,
            headers,
            now=clock.now(),
            wall=clock.wall(),
            url=shown(response.url),
            detail=said(body, headers.get("content-type", "")),
        )

    def _log(self, notice: Notice) -> None:
        url = shown(self.url)
        match notice:
            case Opened():
                logger.info("%s is open", url)
            case Gap():
                logger.warning("%s has a gap (%s) after %s", url, notice.reason, notice.after)
            case Reconnecting(reason, delay, _, error):
                level = logging.INFO if error is None else logging.WARNING
                logger.log(level, "%s: %s; next attempt in %.1f s", url, reason, delay)
            case Closed(None):
                logger.info("%s is closed", url)
            case Closed(error):
                logger.error("%s is closed: %s", url, error)


def _body(content: bytes | str | None, json: Any) -> tuple[bytes | None, HeaderList]:
    """Return the bytes of the body, which every attempt sends again, and the headers that tell of it."""
    if json is None:
        return content.encode() if isinstance(content, str) else content, []
    if content is not None:
        raise ValueError("expected content or json, got both")
    return jsonlib.dumps(json, ensure_ascii=False, allow_nan=False).encode(), [("Content-Type", b"application/json")]
