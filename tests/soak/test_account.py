"""The ledger of the soak finds each fault: a wrong delivery is put into an honest account."""

from __future__ import annotations

import json

import pytest

from soak.account import Account, Book, Item

HONEST = [("a", "x-2"), ("b", "x-3"), ("c", "x-5"), ("d", "x-6"), ("the end", "y-3")]
"""The events of a client of ``t/*``, in two logs; ``x-4`` is of another topic."""


def event(data: str, id: str) -> Item:
    return Item("message", id, data)


def gap(reason: str, after: str, resumed: str) -> Item:
    return Item("stream:gap", resumed, json.dumps({"reason": reason, "after": after, "resumed": resumed}))


RESET = gap("reset", "x-6", "y-1")
A, B, C, D, END = (event(*each) for each in HONEST)


def faults(items: list[Item]) -> list[str]:
    """Return the faults of a client with these items."""
    book = Book()
    for data, cursor in [*HONEST[:4], ("other", "x-4"), ("lost", "y-1"), HONEST[4]]:
        book.topics[data] = "other" if data == "other" else "t/1"
        book.enter(data, cursor)
    book.topics["unanswered"] = "t/2"  # tried, and perhaps stored
    account = Account("client", ("t/*",), "x-1", items=items)
    account.balance(book, complete=True)
    return book.faults


@pytest.mark.parametrize(
    "items",
    [
        [A, B, C, D, RESET, END],
        [A, gap("expired", "x-2", "x-5"), D, RESET, END],
        [A, B, C, D, event("unanswered", "x-7"), RESET, END],
        [A, B, C, D, event("unanswered", "x-7"), RESET, event("unanswered", "y-2"), END],
        [A, B, C, RESET, END],
    ],
    ids=["all", "gap", "without an answer", "tried again in another log", "reset"],
)
def test_honest(items: list[Item]) -> None:
    assert faults(items) == []


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        ([A, C, D, RESET, END], "1 lost before x-5"),
        ([A, B, C, D, RESET], "1 lost at the end"),
        ([A, B, C, D], "it is at x-6, and the log at y-3"),
        ([A, B, B, C, D, RESET, END], "b at x-3 is repeated"),
        ([A, C, B, D, RESET, END], "b at x-3 is repeated"),
        ([A, B, C, D, event("d", "x-7"), RESET, END], "d at x-7 is stored twice"),
        ([A, B, event("other", "x-4"), C, D, RESET, END], "other at x-4 has the topic other"),
        ([A, B, C, D, gap("expired", "x-6", "x-3"), C, D, RESET, END], "the gap at x-3 goes back"),
        ([A, B, event("d", "x-5"), RESET, END], "d at x-5 is not the event with this id"),
        ([A, B, C, D, END], "another epoch without a gap"),
        ([A, B, event("unknown", "x-4"), C, D, RESET, END], "unknown at x-4 is not the event with this id"),
        ([A, B, C, D, event("unknown", "x-7"), RESET, END], "unknown at x-7 is not the event with this id"),
    ],
)
def test_fault(items: list[Item], fault: str) -> None:
    assert any(fault in each for each in faults(items)), faults(items)


def test_two_events_at_an_id() -> None:
    book = Book()
    book.enter("a", "x-1")
    book.enter("a", "x-1")
    assert book.faults == []
    book.enter("b", "x-1")
    assert book.faults == ["x-1 acknowledged for a and b"]
