"""Events of Datastar: the same as those of its own library, and safe against the ends of lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datastar_py import ServerSentEventGenerator as Theirs
from datastar_py.consts import ElementPatchMode, ElementPatchNamespace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from support.pages import files_of
from tickertape import Decoder, EventSourceResponse, Hub, ServerSentEvent
from tickertape.integrations.datastar import execute_script, patch_elements, patch_signals, remove
from tickertape.testing import EventStreamClient


class Markup:
    """Markup of a template library."""

    def __html__(self) -> str:
        return "<b>x</b>"


SAME: list[tuple[str, Callable[[], ServerSentEvent], Callable[[], str]]] = [
    ("elements", lambda: patch_elements("<p id=a>x</p>"), lambda: Theirs.patch_elements("<p id=a>x</p>")),
    ("several lines", lambda: patch_elements("<p>\nx\n</p>\n"), lambda: Theirs.patch_elements("<p>\nx\n</p>\n")),
    ("__html__", lambda: patch_elements(Markup()), lambda: Theirs.patch_elements(Markup())),
    (
        "all options",
        lambda: patch_elements(
            "<g/>",
            selector="#a > b",
            mode="inner",
            namespace="svg",
            use_view_transition=True,
            id="1",
            retry=500,
        ),
        lambda: Theirs.patch_elements(
            "<g/>",
            selector="#a > b",
            mode=ElementPatchMode.INNER,
            namespace=ElementPatchNamespace.SVG,
            use_view_transition=True,
            event_id="1",
            retry_duration=500,
        ),
    ),
    ("remove", lambda: remove("#a"), lambda: Theirs.remove_elements("#a")),
    ("signals", lambda: patch_signals({"a": 1, "b": None}), lambda: Theirs.patch_signals({"a": 1, "b": None})),
    (
        "signals as text",
        lambda: patch_signals('{\n"a": 1}', only_if_missing=True),
        lambda: Theirs.patch_signals('{\n"a": 1}', only_if_missing=True),
    ),
    ("script", lambda: execute_script("a()"), lambda: Theirs.execute_script("a()")),
    (
        "script that stays",
        lambda: execute_script("a()\nb()", auto_remove=False, attributes={"type": "module"}),
        lambda: Theirs.execute_script("a()\nb()", auto_remove=False, attributes={"type": "module"}),
    ),
]


def fields_of(stream: bytes) -> list[tuple[str | None, str, str | None, int | None]]:
    return [(event.event, event.data or "", event.id, event.retry) for event in Decoder().feed(stream)]


@pytest.mark.parametrize(("ours", "theirs"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_same_as_their_library(ours: Callable[[], ServerSentEvent], theirs: Callable[[], str]) -> None:
    found = fields_of(ours().encode())
    assert len(found) == 1
    assert found == fields_of(theirs().encode())


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_ends_of_lines(end: str) -> None:
    """Text with the end of a line is only ever text: it adds neither a field nor an argument."""
    text = f"a{end}data: x{end}event: y{end}{end}selector body"
    [(kind, data, _, _)] = fields_of(patch_elements(text).encode())
    assert kind == "datastar-patch-elements"
    assert data.split("\n") == [f"elements {line}" for line in ("a", "data: x", "event: y", "", "selector body")]
    with pytest.raises(ValueError, match="on one line"):
        patch_elements("x", selector=f"a{end}mode remove")
    with pytest.raises(ValueError, match="on one line"):
        remove(f"a{end}elements x")


def test_other_separators_are_text() -> None:
    """Their library cuts at these, and changes the text."""
    text = "a\u2028b\x0cc\x85d"
    [(_, data, _, _)] = fields_of(patch_elements(text).encode())
    assert data == f"elements {text}"


INVALID: list[tuple[str, Callable[[], Any], str]] = [
    ("mode", lambda: patch_elements("x", mode="other"), "expected mode to be one of outer, .*, got 'other'"),  # type: ignore[arg-type]
    ("namespace", lambda: patch_elements("x", namespace="x"), "expected namespace to be one of html"),  # type: ignore[arg-type]
    ("attribute", lambda: execute_script("x", attributes={'a"b': ""}), "expected the name of an attribute"),
    ("id", lambda: patch_elements("x", id="a\nb"), "id"),
]


@pytest.mark.parametrize(("build", "message"), [row[1:] for row in INVALID], ids=[row[0] for row in INVALID])
def test_invalid(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_elements_are_text() -> None:
    with pytest.raises(TypeError, match="got int"):
        patch_elements(1)


def test_script_does_not_end_early() -> None:
    [(_, data, _, _)] = fields_of(execute_script('a("</script><!--")', attributes={"title": '"<'}).encode())
    assert data.endswith('title="&quot;&lt;">a("\\x3C/script>\\x3C!--")</script>')


async def test_response_and_hub() -> None:
    """One rendering goes to readers of a response and of a hub alike."""
    event = patch_elements("<p>\nx</p>", mode="append", selector="body")
    hub = Hub()

    async def events(request: Request) -> ASGIApp:
        return hub.response(request, "a")

    async with EventStreamClient(EventSourceResponse([event])) as client, client.open("/") as stream:
        from_response = await stream.next_event()
    app = Starlette(routes=[Route("/", events)], lifespan=hub.lifespan)
    async with EventStreamClient(app) as client, client.open("/") as stream:
        await hub.publish("a", event.data, event=event.event)
        from_hub = await stream.next_event()
    assert (from_hub.event, from_hub.data) == (from_response.event, from_response.data)
    assert from_hub.data == "mode append\nselector body\nelements <p>\nelements x</p>"


async def test_example() -> None:
    """The application on the page about browsers."""
    names: dict[str, Any] = {}
    exec(files_of("how-to/browser")["datastar_app.py"], names)
    async with EventStreamClient(names["app"]) as client, client.open("/updates") as stream:
        async with client.open("/count/7", method="POST") as answer:
            assert answer.status == 200
        event = await stream.next_event()
        assert (event.event, event.data) == ("datastar-patch-elements", 'elements <output id="count">7</output>')
        async with client.open("/once") as once:
            assert (await once.next_event()).data == 'signals {"loading":false}'
