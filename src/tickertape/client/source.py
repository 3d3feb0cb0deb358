"""``Source``, the common part of the asynchronous and the synchronous source: everything but the waiting."""

from __future__ import annotations

import json as jsonlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import httpx2

from ..wire import End, Gap, ReceivedEvent, ServerSentEvent, TopicsChange
from .http import (
    Answer,
    HeaderList,
    error_detail,
    excerpt,
    header_list,
    merged,
    redirect_target,
    takes_refused,
    without_secrets,
)
from .inbox import Comment
from .policy import IDEMPOTENT, Policy, PolicyOptions
from .reconnect import (
    MAX_ID_SIZE,
    Closed,
    Connect,
    Notice,
    Opened,
    Reconnecting,
    Reconnector,
    State,
    Statistics,
    is_too_long,
)
from .topics import Change, Topics, cursor_of

logger = logging.getLogger("tickertape.client")

FAILURES: Final = (httpx2.TransportError, httpx2.DecodingError, OSError)
"""Errors worth retrying. Anything else is a programming error and propagates."""

TIMEOUT: Final = httpx2.Timeout(10.0)
"""Seconds to connect and to send, for our own client. A network that needs more is as good as down."""

LIMITS: Final = httpx2.Limits(max_keepalive_connections=0)
"""For our own client: a reconnect must not find a connection in the pool that died with the last one."""

_DEFAULT_HEADERS: Final = [("Accept", b"text/event-stream"), ("Cache-Control", b"no-cache")]


class Source:
    """Hold a state machine, and build the requests that it asks for."""

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str,
        headers: Mapping[str, str] | None,
        content: bytes | str | None,
        json: Any,
        auth: Callable[..., Any] | None,
        last_event_id: object,
        until: Callable[[ReceivedEvent], bool] | str | None,
        on_comment: Callable[[str], object] | None,
        hooks: Mapping[type, Callable[[Any], object] | None],
        random: Callable[[], float],
        policy: PolicyOptions,
    ) -> None:
        self.url = httpx2.URL(url)
        self._method = method.upper()
        self._content, body_headers = _encode_body(content, json)
        own_headers = header_list(headers)
        if any(name.lower() == "last-event-id" for name, _ in own_headers):
            raise ValueError("pass last_event_id= instead of a Last-Event-ID header")
        checked = Policy(**policy)
        if checked.reconnect is None:
            checked = replace(checked, reconnect="always" if self._method in IDEMPOTENT else "errors")
        all_headers = merged(_DEFAULT_HEADERS, body_headers, own_headers)
        self._machine = Reconnector(
            checked,
            headers=all_headers,
            renews_credentials=auth is not None,
            until=None if isinstance(until, str) else until,
            mark=until if isinstance(until, str) else None,
            comments=on_comment is not None,
            random=random,
        )
        self._tells_refusals = takes_refused(auth)
        if isinstance(last_event_id, str):
            self._machine.last_event_id = _checked_id(last_event_id)
        self._hooks = dict(hooks)
        if on_comment is not None:
            self._hooks[Comment] = lambda comment: on_comment(comment.text)
        self._change_headers = merged(own_headers, [("Content-Type", b"application/json")])
        self._topics = Topics(self.url)
        self._closing = False
        self._restarting = ""  # the reason, in words
        self._is_loaded = False
        self._secret: list[str] = []  # names of the headers that carry the credentials of this attempt
        self._same_origin = True  # no redirect of this attempt has left the origin that credentials are for

    def __repr__(self) -> str:
        url, events = without_secrets(self.url), self.statistics().events
        return f"<{type(self).__name__} {url} {self.state} last_event_id={self.last_event_id!r} events={events}>"

    @property
    def state(self) -> State:
        """The state: connecting, open or closed."""
        return State.CLOSED if self._closing else self._machine.state

    @property
    def last_event_id(self) -> str | None:
        """The id of the last event that the loop has handled. The next attempt resumes after it."""
        return self._machine.last_event_id

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics in the URL, after the changes so far. The next attempt asks for them."""
        return self._topics.patterns

    @property
    def end(self) -> End | None:
        """The notice ``stream:end`` with which the server ended the stream; ``None`` if there was none."""
        return self._machine.end

    def statistics(self) -> Statistics:
        """Return the counts since the source was made."""
        return self._machine.statistics()

    def _request(
        self,
        client: httpx2.AsyncClient | httpx2.Client,
        connect: Connect,
        credentials: HeaderList,
        read_timeout: float | None,
        extensions: Mapping[str, Any],
    ) -> httpx2.Request:
        self._secret = [name for name, _ in credentials]
        self._same_origin = True
        timeout = client.timeout
        return client.build_request(
            self._method,
            self._topics.target(),
            headers=[(name.encode(), value) for name, value in merged(connect.headers, credentials)],
            content=self._content,
            timeout=httpx2.Timeout(connect=timeout.connect, write=timeout.write, pool=timeout.pool, read=read_timeout),
            extensions=dict(extensions),
        )

    def _responded(self, response: httpx2.Response, body: bytes, now: float) -> None:
        headers = dict(response.headers)
        self._machine.responded(
            response.status_code,
            headers,
            now=now,
            wall=time.time(),
            url=without_secrets(response.url),
            target=redirect_target(response),
            detail=error_detail(body, headers.get("content-type", "")),
        )

    def restart(self) -> None:
        """Close the current connection and connect again at once, from any task or thread.

        The next attempt sends the id of the last event that was handled. Use it if your program knows better than the
        source: the network has changed, the machine was suspended, a token is new. If events of the stream have no
        ids, those that have arrived and are not yielded yet are lost. Nothing happens before the first attempt and
        after the end. A synchronous source leaves a connection of HTTP/2 with its next bytes.
        """
        self._restart("restart() was called")

    def _restart(self, reason: str) -> None:
        raise NotImplementedError

    def _change_request(
        self, client: httpx2.AsyncClient | httpx2.Client, change: Change, subscription: str, credentials: HeaderList
    ) -> httpx2.Request:
        headers = [(name.encode(), value) for name, value in merged(self._change_headers, credentials)]
        url = self._topics.target_of_change(subscription)
        return client.build_request("PATCH", url, headers=headers, content=change.body, timeout=TIMEOUT)

    def _plan_change(self, change: Change) -> tuple[tuple[str, ...], str | None]:
        """Return the topics after a change, and the id of the open stream if it can be changed."""
        if self.state is State.CLOSED:
            raise RuntimeError("the source is closed")
        return self._topics.after(change), self._machine.subscription

    def _changed(self, patterns: tuple[str, ...], subscription: str | None, answer: Answer | Exception) -> str | None:
        """Process the answer to a change, or the lack of a request for it. Return the cursor of the change."""
        cursor = None
        if subscription is not None:
            cursor = cursor_of(answer, self._topics.target_of_change(subscription))
        self._topics.set(patterns)
        # In this order: an attempt that begins from here on has the new topics, and an earlier one is ended here. The
        # stream that has changed may have been lost, and replaced by one with the topics from before.
        if (cursor is None or self._machine.subscription != subscription) and not self._machine.is_waiting:
            self._restart("the topics have changed")
            return None
        return cursor

    def _loaded(self, id: str | None) -> None:
        self._machine.last_event_id = None if id is None else _checked_id(id)
        self._is_loaded = True

    def _warn(self, text: str) -> None:
        logger.warning("%s: %s", without_secrets(self.url), text)

    def _log(self, notice: Notice) -> None:
        url = without_secrets(self.url)
        match notice:
            case Opened():
                logger.info("%s is open", url)
            case Gap():
                after = excerpt(notice.after or "an unknown id")
                logger.warning("%s has a gap (%s) after %s", url, excerpt(notice.reason), after)
            case TopicsChange(topics=topics):
                logger.info("%s has the topics %s", url, excerpt(", ".join(topics)))
            case Reconnecting(reason, delay, _, error):
                level = logging.INFO if error is None else logging.WARNING
                logger.log(level, "%s: %s; next attempt in %.1f s", url, reason, delay)
            case Closed(None, None):
                logger.info("%s is closed", url)
            case Closed(None, End() as end):
                logger.info("%s has ended: %s", url, excerpt(end.reason))
            case Closed(error):
                logger.error("%s is closed: %s", url, error)


def _checked_id(id: str) -> str:
    """Return an id that a source may resume from.

    Raises:
        ValueError: it has a line break or NUL in it, or is too long for an HTTP header.
    """
    ServerSentEvent(id=id)
    if is_too_long(id):
        raise ValueError(f"expected last_event_id to have at most {MAX_ID_SIZE} bytes, got {len(id.encode())}")
    return id


def _encode_body(content: bytes | str | None, json: Any) -> tuple[bytes | None, HeaderList]:
    """Return the body of each request, and the headers that describe it."""
    if json is None:
        return content.encode() if isinstance(content, str) else content, []
    if content is not None:
        raise ValueError("pass content or json, not both")
    return jsonlib.dumps(json, ensure_ascii=False, allow_nan=False).encode(), [("Content-Type", b"application/json")]
