"""The assistant demo: its routes. Each answer is a run."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from ...errors import RunActiveError
from ...hub import Hub
from ...runs import RunEnd, RunEvent, RunInfo, Runs
from ...wire import ServerSentEvent
from ..requests import check_key, check_text, read_json
from ..site import Demo
from .generator import GeneratorError, generate

MAX_QUESTION: Final = 500
"""Characters in a question."""

DEFAULT_MAX_ACTIVE: Final = 100
"""Answers that are written at the same time: their words together are fewer than a log can store."""

MAX_SHOWN: Final = 20
"""Answers that the page shows: the newest of a conversation."""

_TTL: Final = 24 * 3600.0
"""Seconds for which an answer can be read: until the next day."""

QUESTION_EVENT: Final = "question"
"""The type of the first event of an answer."""

Generate = Callable[[str], AsyncGenerator[str]]


class Assistant:
    """Conversations, each the property of one browser. One answer of a conversation is written at a time.

    Arguments:
        hub: the hub whose log has the answers.
        generate: returns the words of the answer to a question.
        max_active: answers that are written at the same time, for all conversations.
    """

    def __init__(self, hub: Hub, generate: Generate, max_active: int) -> None:
        self._generate = generate
        self._max_active = max_active
        self._runs = Runs(hub, ttl=_TTL, on_error=_describe)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End the answers of a process that is gone: their readers need not ask for them again."""
        await self._runs.list_runs()
        yield

    async def ask(self, conversation: str, question: str, key: str) -> RunInfo:
        """Begin an answer, and return it. A question that is repeated with its key has one answer.

        Raises:
            RunActiveError: another answer of the conversation is not complete.
            TickertapeError: the log cannot be reached.
            HTTPException: 503: too many answers are being written.
        """
        if len(await self._runs.list_runs()) >= self._max_active:
            sentence = f"{self._max_active} answers are being written already: try again soon"
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, sentence, {"Retry-After": "10"})
        return (await self._runs.start(conversation, lambda: self._items(question), key=key)).info

    async def _items(self, question: str) -> AsyncIterator[Any]:
        yield ServerSentEvent({"text": question}, event=QUESTION_EVENT)
        async with aclosing(self._generate(question)) as words:
            async for word in words:
                yield word

    async def answers(self, conversation: str) -> list[dict[str, Any]]:
        """Return the newest answers of a conversation, the oldest first; one that is being written without its text."""
        known = [info for info in await self._runs.list_runs(active=False) if info.name == conversation]
        return [await self._describe(info) for info in known[-MAX_SHOWN:]]

    async def _describe(self, info: RunInfo) -> dict[str, Any]:
        if info.active:
            return {"run": info.run, "state": info.state, "topic": info.topic}
        question, words = "", []
        run = await self._runs.get(info.name, info.run)
        if run is not None:
            async for item in run.events():
                if isinstance(item, RunEvent) and item.text:
                    words.append(item.data)
                elif isinstance(item, RunEvent):
                    question = item.json()["text"]
                elif isinstance(item, RunEnd):
                    break
        text = "".join(words)
        return {"run": info.run, "state": info.state, "question": question, "text": text, "error": info.error}

    async def stop(self, conversation: str, run: str) -> RunInfo | None:
        """Stop an answer, and return it. ``None`` if there is no such answer."""
        return await self._runs.cancel(conversation, run=run)


class _Requests:
    def __init__(self, assistant: Assistant) -> None:
        self._assistant = assistant

    async def answers(self, request: Request) -> Response:
        found = await self._assistant.answers(_conversation(request))
        return JSONResponse({"answers": found, "max_question": MAX_QUESTION}, headers={"cache-control": "no-store"})

    async def ask(self, request: Request) -> Response:
        fields = await read_json(request)
        question = check_text(fields.get("question"), "question", MAX_QUESTION)
        key = check_key(fields.get("key"))
        try:
            info = await self._assistant.ask(_conversation(request), question, key)
        except RunActiveError:
            sentence = "another answer is being written: wait or stop it"
            raise HTTPException(HTTPStatus.CONFLICT, sentence) from None
        return JSONResponse({"run": info.run, "topic": info.topic}, HTTPStatus.CREATED)

    async def stop(self, request: Request) -> Response:
        run = request.path_params["run"]
        info = await self._assistant.stop(_conversation(request), run)
        if info is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no such answer: {run!r:.60}")
        return JSONResponse({"run": info.run}, HTTPStatus.ACCEPTED)


def assistant_demo(hub: Hub, *, generate: Generate = generate, max_active: int = DEFAULT_MAX_ACTIVE) -> Demo:
    """Return the assistant demo. Each answer has its own topic.

    Arguments:
        hub: the hub of the site.
        generate: returns the words of the answer to a question. The default is a Markov chain.
        max_active: answers that are written at the same time, for all users.
    """
    assistant = Assistant(hub, generate, max_active)
    requests = _Requests(assistant)
    routes = [
        Route("/answers", requests.answers, methods=["GET"]),
        Route("/answers", requests.ask, methods=["POST"]),
        Route("/answers/{run}/stop", requests.stop, methods=["POST"]),
    ]
    return Demo(
        name="Assistant",
        title="Assistant",
        summary=(
            "An answer that appears word by word, and that a reload does not interrupt. No language model writes it: "
            "the words are from a Markov chain over one page of text, so it reads like prose and means little."
        ),
        path="/assistant/",
        web=files(__package__) / "web",
        script="assistant.js",
        style="assistant.css",
        routes=[Mount("/assistant", routes=routes)],
        own_topics=_own_topics,
        running=assistant.running,
    )


def _conversation(request: Request) -> str:
    """Return the name of the runs of this browser. Its cookie has the name from the first request."""
    return f"assistant/{request.session.setdefault('assistant', secrets.token_hex(16))}"


def _own_topics(request: Request, user: str | None) -> list[str]:
    # The name in the cookie, so that a stream does not begin a conversation.
    return [f"run/{_conversation(request)}/*"] if "assistant" in request.session else []


def _describe(error: Exception) -> str | None:
    return str(error) if isinstance(error, GeneratorError) else None
