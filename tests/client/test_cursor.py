"""The place in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickertape.client import FileCursor

both = pytest.mark.parametrize("fsync", [True, False])


@both
@pytest.mark.parametrize("id", ["e-1", "", "日本-Ω", " a ", "\x0c\x0b", "x" * 100_000])
def test_what_is_saved_is_loaded(tmp_path: Path, id: str, fsync: bool) -> None:
    path = tmp_path / "orders.cursor"
    FileCursor(path, fsync=fsync).save("before")
    FileCursor(path, fsync=fsync).save(id)
    assert FileCursor(path).load() == id
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_no_place(tmp_path: Path) -> None:
    assert FileCursor(tmp_path / "orders.cursor").load() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"e-1", b"e-1\n", b"e-1\r\n"])
def test_a_line_end_of_an_editor_is_not_part_of_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "orders.cursor"
    path.write_bytes(content)
    assert FileCursor(path).load() == "e-1"


def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cursor = FileCursor("orders.cursor")
    cursor.save("e-1")
    assert cursor.load() == "e-1"
    assert repr(cursor) == "FileCursor('orders.cursor')"


def test_a_directory_that_is_not_there_is_missed_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a directory for the cursor"):
        FileCursor(tmp_path / "nowhere" / "orders.cursor").load()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "orders.cursor"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        FileCursor(path).load()


def test_a_save_that_fails_leaves_the_old_place_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "orders.cursor"
    cursor = FileCursor(path)
    cursor.save("e-1")
    with pytest.raises(UnicodeEncodeError):
        cursor.save("\ud800")
    assert cursor.load() == "e-1"
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_never_writes_into_the_old_file(tmp_path: Path) -> None:
    """Whoever reads meanwhile, or after a crash, has the old place whole."""
    path = tmp_path / "orders.cursor"
    cursor = FileCursor(path)
    cursor.save("e-1")
    with path.open() as old:
        cursor.save("e-2")
        assert old.read() == "e-1"
