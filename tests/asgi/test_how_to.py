"""The application that the page about the response shows."""

from __future__ import annotations

from typing import Any

import pytest

from support.pages import files_of
from tickertape import close_streams
from tickertape.testing import EventStreamClient


@pytest.fixture(scope="module")
def app() -> Any:
    names: dict[str, Any] = {"__name__": "app"}
    exec(compile(files_of("how-to/frameworks")["app.py"], "app.py", "exec"), names)
    return names["app"]


@pytest.mark.parametrize(("last", "number"), [(None, 1), ("41", 42), ("x", 1)])
async def test_count(app: Any, last: str | None, number: int) -> None:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with EventStreamClient(app, headers=headers).open("/count") as stream:
        event = await stream.next_event()
    assert (event.json(), event.id) == ({"number": number}, str(number))


@pytest.mark.parametrize(("user", "status"), [("ada", 200), ("bob", 403)])
async def test_orders(app: Any, user: str, status: int) -> None:
    async with EventStreamClient(app).open(f"/orders/{user}") as stream:
        assert stream.status == status
        assert (b"order" in await stream.read()) == (status == 200)


async def test_answer(app: Any) -> None:
    async with EventStreamClient(app).open("/answer?prompt=x") as stream:
        assert (await stream.next_event()).json() == {"text": "To be"}
        assert (await stream.next_event()).json()["error"]["type"] == "server_error"
        await stream.read()
        assert stream.complete


async def test_work(app: Any) -> None:
    async with EventStreamClient(app).open("/work") as stream:
        await stream.next_event()
        close_streams()
        event = await stream.next_event()
        assert (event.event, event.data) == ("restart", "back in a moment")
        await stream.read()
        assert stream.complete
