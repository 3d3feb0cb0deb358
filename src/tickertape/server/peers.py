"""Questions between the workers of one server: any worker answers a request for all of them.

Each worker has a socket in a directory that the workers share. To each connection there, it answers one question, which
is a line of JSON, with its own part of the answer, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from ..errors import HubClosedError

logger = logging.getLogger("tickertape.server")

ANSWER_WITHIN: Final = 2.0
"""Seconds that the other workers may take: Prometheus gives up after ten."""

_MAX_QUESTION: Final = 256 * 1024
"""Bytes of a question: the patterns of a grant, which come from a token, are the longest part."""


class WorkerShare:
    """State shared by the workers of one server: a name, a directory of sockets, and the numbers of restarts.

    Made by the parent process, and passed to each worker when it is started.

    Arguments:
        workers: the number of workers.
    """

    def __init__(self, workers: int) -> None:
        self.node = new_node()
        self.directory = Path(tempfile.mkdtemp(prefix="tickertape-"))
        self.restarts: Any = get_context("spawn").RawArray("Q", workers)

    def count_restart(self, worker: int) -> None:
        """Count that a worker, numbered from 0, is started again."""
        self.restarts[worker] += 1

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)


class Peers:
    """All workers of this server, and this process as one of them.

    Arguments:
        share: shared with the other workers; ``None`` if there are none.
    """

    def __init__(self, share: WorkerShare | None = None) -> None:
        self.share = share
        self.node: str = new_node() if share is None else share.node
        self._handlers: dict[str, Callable[..., Any]] = {}

    def answer(self, name: str, handler: Callable[..., Any]) -> None:
        """Answer a question with the result of ``handler``, a value for JSON; the question has its arguments."""
        self._handlers[name] = handler

    async def ask(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Return the answers of all workers by their process ids. One that ends or is too slow is left out."""
        own = str(os.getpid())
        answers = {own: self._handlers[name](**arguments)}
        if self.share is not None:
            others = [path for path in self.share.directory.iterdir() if path.name != own]
            question = json.dumps({"name": name, "arguments": arguments}).encode() + b"\n"
            found = await asyncio.gather(*(_ask(path, question) for path in others))
            answers |= {path.name: answer for path, answer in zip(others, found, strict=True) if answer is not None}
        return answers

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer the questions of the other workers."""
        if self.share is None or not hasattr(socket, "AF_UNIX"):
            yield
            return
        path = self.share.directory / str(os.getpid())
        server = await asyncio.start_unix_server(self._serve, path, limit=_MAX_QUESTION)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # If the other worker has left, or this one is stopping, there is no answer.
        with contextlib.suppress(OSError, HubClosedError):
            if line := await reader.readline():
                question = json.loads(line)
                writer.write(json.dumps(self._handlers[question["name"]](**question["arguments"])).encode())
                await writer.drain()
        writer.close()


def new_node() -> str:
    """Return a name for a server. It is no process id: that is the same in many containers."""
    return secrets.token_hex(4)


async def _ask(path: Path, question: bytes) -> Any:
    """Return the answer of another worker; ``None`` if it has ended or does not answer in time."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(question)
                answer = await reader.read()
                return json.loads(answer) if answer else None
            finally:
                writer.close()
    except (ConnectionError, FileNotFoundError):
        return None  # it was killed, or has ended
    except (OSError, TimeoutError, ValueError) as error:
        reason = str(error) or "it did not answer in time"
        logger.warning("no answer from the worker with pid %s: %s", path.name, reason)
        return None
