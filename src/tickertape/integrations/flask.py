"""Publish from the views of Flask to a hub beside it, and sign the addresses of streams that nginx checks."""

from __future__ import annotations

import atexit
import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from flask import Flask

from ..client import SyncPublisher

__all__ = ["Tickertape", "signed_url"]


class Tickertape:
    """Publish to the hub of ``tickertape serve``, from any view and thread.

    Each process has one publisher, made on first use, also after a fork, and closed at exit.

    Arguments:
        app: the application; or call :meth:`init_app` later.
        url: of the hub; by default ``TICKERTAPE_URL`` of the application's configuration.
        options: those of :class:`tickertape.client.SyncPublisher`, such as ``timeout`` and ``max_attempts``.

    Raises:
        ValueError: there is no URL.
    """

    def __init__(self, app: Flask | None = None, url: str | None = None, **options: Any) -> None:
        self._url = url
        self._options = options
        self._publisher: SyncPublisher | None = None
        self._process = 0
        self._lock = threading.Lock()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Take the URL from the configuration of an application, and become its extension ``tickertape``."""
        self._url = self._url or app.config.get("TICKERTAPE_URL")
        if not self._url:
            raise ValueError("the URL of the hub is missing: pass url= or set TICKERTAPE_URL")
        app.extensions["tickertape"] = self

    @property
    def publisher(self) -> SyncPublisher:
        """The publisher of this process."""
        with self._lock:
            if self._publisher is None or self._process != os.getpid():
                if self._url is None:
                    raise RuntimeError("call init_app() first")
                self._publisher = SyncPublisher(self._url, **self._options)
                self._process = os.getpid()
                atexit.register(self._publisher.close)
            return self._publisher

    def publish(self, topic: str, data: Any = "", *, event: str | None = None, key: str | None = None) -> str:
        """Publish an event and return its id; see :meth:`tickertape.client.SyncPublisher.publish`."""
        return self.publisher.publish(topic, data, event=event, key=key)

    def subscribers(self) -> int:
        """Return the number of open streams of the hub process that answers.

        Raises:
            OSError: the hub cannot be reached.
        """
        with urlopen(f"{str(self.publisher.url).removesuffix('/events')}/subscribers", timeout=10) as answer:
            return int(json.load(answer)["subscribers"])


def signed_url(
    path: str, secret: str, *, seconds: float = 60, query: Mapping[str, str] | None = None, now: float | None = None
) -> str:
    """Return an address that expires, for ``secure_link_md5 "$secure_link_expires $uri SECRET"`` in nginx.

    Arguments:
        path: of the location in nginx, such as ``/signed``.
        secret: the secret in that directive.
        seconds: how long the address opens a stream. An open stream continues after that.
        query: more parameters; they are not signed.
        now: the time, in seconds since 1970; by default the clock's.
    """
    expires = int((time.time() if now is None else now) + seconds)
    digest = hashlib.md5(f"{expires} {path} {secret}".encode(), usedforsecurity=False).digest()
    signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return f"{path}?{urlencode({'signature': signature, 'expires': expires, **(query or {})})}"
