"""Events of Datastar: patches of elements and signals, for responses and for a hub.

Each function returns a :class:`~tickertape.ServerSentEvent`. Yield it to an
:class:`~tickertape.EventSourceResponse`, or publish it: ``hub.publish(topic, event.data, event=event.event)``.

The format is that of Datastar 1: https://data-star.dev/reference/sse_events.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from ..wire import ServerSentEvent

__all__ = ["Mode", "Namespace", "execute_script", "patch_elements", "patch_signals", "remove"]

Mode: TypeAlias = Literal["outer", "inner", "replace", "prepend", "append", "before", "after", "remove"]
"""The way in which elements change the page: ``outer`` morphs the element with the same id."""

Namespace: TypeAlias = Literal["html", "svg", "mathml"]

PATCH_ELEMENTS: Final = "datastar-patch-elements"
PATCH_SIGNALS: Final = "datastar-patch-signals"

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
"""The ends of lines in an event stream. ``str.splitlines`` knows further ones, which are text here."""

_END_OF_SCRIPT: Final = re.compile(r"<(?=/script|!--)", re.IGNORECASE)


def patch_elements(
    elements: Any,
    *,
    selector: str | None = None,
    mode: Mode = "outer",
    namespace: Namespace = "html",
    use_view_transition: bool = False,
    id: str | None = None,
    retry: int | None = None,
) -> ServerSentEvent:
    """Return an event that patches elements of the page.

    Arguments:
        elements: markup: a string, or an object with ``__html__``. It is not escaped.
        selector: a CSS selector of the target; by default the elements with the same ids.
        mode: the way in which the elements change the target.
        namespace: of the elements.
        use_view_transition: animate the change.
        id: the id of the event.
        retry: the reconnection time in milliseconds.

    Raises:
        ValueError: ``selector`` contains the end of a line, or ``mode`` or ``namespace`` is unknown.
    """
    markup = elements.__html__() if hasattr(elements, "__html__") else elements
    if not isinstance(markup, str):
        raise TypeError(f"expected elements to be a str or an object with __html__, got {type(elements).__name__}")
    lines = _options(selector, mode, namespace, use_view_transition)
    if markup:
        lines += _lines("elements", markup)
    return ServerSentEvent("\n".join(lines), event=PATCH_ELEMENTS, id=id, retry=retry)


def remove(selector: str, *, id: str | None = None, retry: int | None = None) -> ServerSentEvent:
    """Return an event that removes the elements that match a CSS selector."""
    return patch_elements("", selector=selector, mode="remove", id=id, retry=retry)


def patch_signals(
    signals: Mapping[str, Any] | str, *, only_if_missing: bool = False, id: str | None = None, retry: int | None = None
) -> ServerSentEvent:
    """Return an event that changes signals.

    Arguments:
        signals: the new values by name, or JSON. ``None`` removes a signal.
        only_if_missing: leave signals that exist unchanged.
        id: the id of the event.
        retry: the reconnection time in milliseconds.
    """
    text = signals if isinstance(signals, str) else json.dumps(signals, separators=(",", ":"))
    lines = ["onlyIfMissing true"] if only_if_missing else []
    return ServerSentEvent("\n".join(lines + _lines("signals", text)), event=PATCH_SIGNALS, id=id, retry=retry)


def execute_script(
    script: str,
    *,
    auto_remove: bool = True,
    attributes: Mapping[str, str] | None = None,
    id: str | None = None,
    retry: int | None = None,
) -> ServerSentEvent:
    """Return an event that runs a script in the page.

    Arguments:
        script: JavaScript. A ``</script>`` in it, for example in a string, does not end the element early.
        auto_remove: remove the element of the script after it ran.
        attributes: of the element; the values are escaped.
        id: the id of the event.
        retry: the reconnection time in milliseconds.

    Raises:
        ValueError: the name of an attribute is invalid.
    """
    for name in attributes or {}:
        if not re.fullmatch(r"[^\s\"'<>/=\x00-\x1f\x7f]+", name):
            raise ValueError(f"expected the name of an attribute, got {name!r}")
    fields = {**({"data-effect": "el.remove()"} if auto_remove else {}), **(attributes or {})}
    shown = "".join(f' {name}="{html.escape(value)}"' for name, value in fields.items())
    element = f"<script{shown}>{_END_OF_SCRIPT.sub(_escaped, script)}</script>"
    return patch_elements(element, selector="body", mode="append", id=id, retry=retry)


def _escaped(found: re.Match[str]) -> str:
    return "\\x3C"


def _lines(name: str, text: str) -> list[str]:
    lines = _LINE_END.split(text)
    if not lines[-1]:
        lines.pop()  # the text ended with the end of a line
    return [f"{name} {line}" for line in lines]


def _options(selector: str | None, mode: str, namespace: str, use_view_transition: bool) -> list[str]:
    modes: tuple[str, ...] = Mode.__args__  # type: ignore[attr-defined]
    namespaces: tuple[str, ...] = Namespace.__args__  # type: ignore[attr-defined]
    if mode not in modes:
        raise ValueError(f"expected mode to be one of {', '.join(modes)}, got {mode!r}")
    if namespace not in namespaces:
        raise ValueError(f"expected namespace to be one of {', '.join(namespaces)}, got {namespace!r}")
    if selector is not None and _LINE_END.search(selector):
        raise ValueError(f"expected a selector on one line, got {selector!r}")
    return [
        *([f"mode {mode}"] if mode != "outer" else []),
        *([f"selector {selector}"] if selector else []),
        *(["useViewTransition true"] if use_view_transition else []),
        *([f"namespace {namespace}"] if namespace != "html" else []),
    ]
