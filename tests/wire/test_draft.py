"""``Draft``: checked when it is built, and never again."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from tickertape.errors import InvalidEventError, InvalidTopicError
from tickertape.wire import MAX_KEY_LENGTH, MAX_SEGMENTS, MAX_TOPIC_LENGTH, Draft


@pytest.mark.parametrize(
    ("data", "text", "size"),
    [("", "", 0), ("x", "x", 1), ("é€", "é€", 5), (None, "null", 4), (b"\xc3\xbc", "ü", 2), ({"a": 1}, '{"a":1}', 7)],
)
def test_data(data: Any, text: str, size: int) -> None:
    draft = Draft("a/b", data, event="e", key="k")
    assert (draft.topic, draft.data, draft.event, draft.key, draft.size) == ("a/b", text, "e", "k", size)


@pytest.mark.parametrize(
    ("fields", "kind", "sentence"),
    [
        ({"topic": ""}, InvalidTopicError, "expected a topic of 1 to 255 characters, got 0"),
        (
            {"topic": "x" * (MAX_TOPIC_LENGTH + 1)},
            InvalidTopicError,
            "expected a topic of 1 to 255 characters, got 256",
        ),
        ({"topic": "a//b"}, InvalidTopicError, "expected a topic without empty segments"),
        ({"topic": "a/*"}, InvalidTopicError, r"expected a topic without '\*'"),
        ({"topic": " a"}, InvalidTopicError, "printable characters without spaces around"),
        ({"topic": "a\x00"}, InvalidTopicError, "printable characters"),
        ({"topic": "a\x85b"}, InvalidTopicError, "printable characters"),
        ({"topic": "a\u00a0b"}, InvalidTopicError, "printable characters"),
        ({"topic": "a\u200bb"}, InvalidTopicError, "printable characters"),
        ({"topic": "a\u202eb"}, InvalidTopicError, "printable characters"),
        ({"topic": "a\u2028b"}, InvalidTopicError, "printable characters"),
        ({"topic": "a\U000e0041b"}, InvalidTopicError, "printable characters"),
        ({"topic": "a\ud800b"}, InvalidTopicError, "printable characters"),
        ({"topic": "/".join("a" * (MAX_SEGMENTS + 1))}, InvalidTopicError, "segments"),
        ({"topic": 5}, InvalidTopicError, "expected a topic as a str, got 5"),
        ({"data": object()}, InvalidEventError, "object cannot be written as JSON"),
        ({"data": float("nan")}, InvalidEventError, "float cannot be written as JSON"),
        ({"event": "a\nb"}, InvalidEventError, "expected event without"),
        ({"event": 7}, InvalidEventError, "expected event to be a str, got 7"),
        ({"event": "stream:gap"}, InvalidEventError, "event types that start with 'stream:' are reserved"),
        ({"key": ""}, InvalidEventError, "expected a key of 1 to 255 characters, got 0"),
        ({"key": "k" * (MAX_KEY_LENGTH + 1)}, InvalidEventError, "expected a key of 1 to 255 characters, got 256"),
        ({"key": 7}, InvalidEventError, "expected key to be a str, got 7"),
    ],
)
def test_invalid(fields: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        Draft(**{"topic": "t", **fields})


def test_lone_surrogates() -> None:
    """Every field of a draft has a UTF-8 form: a lone surrogate becomes U+FFFD, a split pair is joined."""
    draft = Draft("t", "a\ud800b\ud83d\ude00", event="\udfff", key="k\ud800")
    assert (draft.data, draft.event, draft.key) == ("a\ufffdb😀", "\ufffd", "k\ufffd")
    assert draft.size == len(draft.data.encode())


def test_value() -> None:
    draft = Draft("t", "x", event="e", key="k")
    assert draft == Draft("t", "x", event="e", key="k")
    assert draft != Draft("t", "x", event="e")
    assert hash(draft) == hash(Draft("t", "x", event="e", key="k"))
    assert repr(draft) == "Draft('t', 'x', event='e', key='k')"
    assert copy.copy(draft) == pickle.loads(pickle.dumps(draft)) == draft
    assert draft.replace(key="l", data={"a": 1}) == Draft("t", '{"a":1}', event="e", key="l")
    with pytest.raises(AttributeError, match="Draft is immutable: cannot set 'data'"):
        draft.data = "y"
    with pytest.raises(AttributeError, match="Draft is immutable: cannot delete 'data'"):
        del draft.data


def test_end() -> None:
    """It is the only draft with a reserved type, and stays one."""
    end = Draft.end("t", "done", key="k")
    assert (end.topic, end.event, end.key, end.data) == ("t", "stream:end", "k", '{"topic":"t","reason":"done"}')
    assert copy.copy(end) == pickle.loads(pickle.dumps(end)) == end
    assert end.replace(key="l") == Draft.end("t", "done", key="l")
    with pytest.raises(InvalidEventError, match="reserved"):
        end.replace(event="stream:gap")


@pytest.mark.parametrize("reason", ["", "x" * 201, None, 5])
def test_invalid_reason(reason: Any) -> None:
    with pytest.raises(InvalidEventError, match="reason"):
        Draft.end("t", reason)


@pytest.mark.parametrize("character", ["\ue000", "\u0378", "\U0010fffd"])
def test_topic_of_any_unicode(character: str) -> None:
    """Private and unassigned characters are allowed, whatever the version of Unicode."""
    assert Draft(f"a{character}b").topic == f"a{character}b"
