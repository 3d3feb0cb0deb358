"""Event streams from the views of Django, and publishing when a transaction commits.

Django sends only its own responses. So our response runs in a task beside the view, and its body is the content of a
``StreamingHttpResponse``: middleware, sessions and cookies work as with any other response.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from typing import Any

from asgiref.sync import SyncToAsync, async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest, StreamingHttpResponse

from ..asgi import EventSourceResponse, ResponseBody, Scope, StreamResponse
from ..client import SyncPublisher
from ..errors import HubClosedError
from ..hub import Hub
from ..wire import Draft

__all__ = ["hub_response", "publish", "publish_on_commit", "stream_response"]


async def hub_response(
    hub: Hub, request: HttpRequest, topics: str | Iterable[str], **options: Any
) -> StreamingHttpResponse:
    """Return a response that streams the events of ``topics``, from an asynchronous view.

    Arguments:
        request: the request of the view; its ``Last-Event-ID`` is the cursor after which to start.
        hub, topics, options: as of :meth:`tickertape.Hub.response`. The hub opens itself on first use.

    Raises:
        ImproperlyConfigured: the site runs under WSGI, where each stream would occupy a thread.
        InvalidTopicError: a pattern breaks the syntax, or there are too many.
    """
    return await _respond(request, lambda scope: hub.response(scope, topics, **options))


async def stream_response(
    request: HttpRequest, items: Iterable[Any] | AsyncIterable[Any], **options: Any
) -> StreamingHttpResponse:
    """Return a response that streams items, such as those of a generator, from an asynchronous view.

    Arguments:
        request: the request of the view.
        items: events, or data for events. If they fail before the first one, that error is raised here.
        options: those of :class:`tickertape.EventSourceResponse`.

    Raises:
        ImproperlyConfigured: the site runs under WSGI, where each stream would occupy a thread.
    """
    return await _respond(request, lambda scope: EventSourceResponse(items, **options))


def publish(
    hub: Hub | SyncPublisher, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None
) -> str:
    """Publish from a synchronous view or function, wait until the event is stored, and return its id.

    Arguments:
        hub: the hub of this process, or under WSGI and in scripts a publisher to a hub elsewhere.
        topic, data, event, key: as of :meth:`tickertape.Hub.publish`.

    Raises:
        HubClosedError: no event loop of this process runs the hub.
        Other errors are those of :meth:`tickertape.Hub.publish` and :meth:`tickertape.client.SyncPublisher.publish`.
    """
    if isinstance(hub, SyncPublisher):
        return hub.publish(topic, data, event=event, key=key)
    loop = getattr(SyncToAsync.threadlocal, "main_event_loop", None)  # of the site, if Django called this thread
    if loop is not None and loop.is_running():
        return str(async_to_sync(hub.publish)(topic, data, event=event, key=key))
    try:
        return str(hub.publish_sync(topic, data, event=event, key=key))
    except HubClosedError as error:
        raise HubClosedError(f"{error} (under WSGI and in scripts, pass a SyncPublisher)") from None


def publish_on_commit(
    hub: Hub | SyncPublisher,
    topic: str,
    data: Any = "",
    *,
    event: str | None = None,
    key: str | None = None,
    using: str | None = None,
    robust: bool = False,
) -> None:
    """Publish when the current transaction commits; never if it rolls back. Without a transaction, publish at once.

    The event is checked, and its data encoded, at once: an error rolls the transaction back.

    Arguments:
        hub, topic, data, event, key: as of :func:`publish`.
        using: the database, by default the default one.
        robust: if publishing fails, log the error and continue. By default, the error is raised after the commit.

    Raises:
        InvalidTopicError, InvalidEventError, EventTooLargeError: the event cannot be published.
    """
    make = hub.draft if isinstance(hub, Hub) else Draft
    draft = make(topic, data, event=event, key=key)
    call = partial(publish, hub, draft.topic, draft.data, event=draft.event, key=draft.key)
    transaction.on_commit(call, using=using, robust=robust)


async def _respond(request: HttpRequest, make: Callable[[Scope], StreamResponse]) -> StreamingHttpResponse:
    scope: Scope | None = getattr(request, "scope", None)
    if scope is None:
        raise ImproperlyConfigured(
            "event streams need ASGI: run the site under uvicorn, hypercorn, daphne or granian, "
            "or run `tickertape serve` beside it"
        )
    # GZipMiddleware compresses each chunk separately, and browsers read only the first.
    request.META["HTTP_ACCEPT_ENCODING"] = "identity"
    body = ResponseBody(make(scope), scope)
    start = await body.start()
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    return StreamingHttpResponse(body, status=start["status"], headers=headers)
