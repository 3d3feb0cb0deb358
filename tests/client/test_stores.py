"""The last event id in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickertape.client import FileCursor

both = pytest.mark.parametrize("fsync", [True, False])


@both
@pytest.mark.parametrize("id", ["e-1", "", "日本-Ω", " a ", "\x0c\x0b", "x" * 100_000])
def test_save_and_load(tmp_path: Path, id: str, fsync: bool) -> None:
    path = tmp_path / "orders.cursor"
    FileCursor(path, fsync=fsync).save("before")
    FileCursor(path, fsync=fsync).save(id)
    assert FileCursor(path).load() == id
    assert list(tmp_path.iterdir()) == [path]


def test_no_file(tmp_path: Path) -> None:
    assert FileCursor(tmp_path / "orders.cursor").load() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"e-1", b"e-1\n", b"e-1\r\n"])
def test_line_break_at_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "orders.cursor"
    path.write_bytes(content)
    assert FileCursor(path).load() == "e-1"


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cursor = FileCursor("orders.cursor")
    cursor.save("e-1")
    assert cursor.load() == "e-1"
    assert repr(cursor) == "FileCursor('orders.cursor')"


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such directory for the cursor file"):
        FileCursor(tmp_path / "nowhere" / "orders.cursor").load()


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "orders.cursor"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        FileCursor(path).load()


def test_failed_save(tmp_path: Path) -> None:
    path = tmp_path / "orders.cursor"
    cursor = FileCursor(path)
    cursor.save("e-1")
    with pytest.raises(UnicodeEncodeError):
        cursor.save("\ud800")
    assert cursor.load() == "e-1"
    assert list(tmp_path.iterdir()) == [path]


def test_save_replaces_file(tmp_path: Path) -> None:
    """A program that reads during a save, or after a crash, gets the whole old id."""
    path = tmp_path / "orders.cursor"
    cursor = FileCursor(path)
    cursor.save("e-1")
    with path.open() as old:
        cursor.save("e-2")
        assert old.read() == "e-1"


@pytest.mark.parametrize("content", ["a\nb", "a\rb", "a\n\n", "\ne-1", "a\0b"])
def test_invalid_content(tmp_path: Path, content: str) -> None:
    path = tmp_path / "orders.cursor"
    path.write_bytes(content.encode())
    with pytest.raises(ValueError, match=r"orders\.cursor holds no event id"):
        FileCursor(path).load()
    with pytest.raises(ValueError, match=r"holds no event id"):
        FileCursor(path).save(content)
    assert path.read_bytes() == content.encode()


@both
def test_symbolic_link(tmp_path: Path, fsync: bool) -> None:
    """A link, for example into a mounted volume, stays a link. Its target may be missing at first."""
    volume = tmp_path / "volume"
    volume.mkdir()
    link = tmp_path / "orders.cursor"
    link.symlink_to(volume / "cursor")
    cursor = FileCursor(link, fsync=fsync)
    assert cursor.load() is None
    for saved in ("e-1", "e-2"):
        cursor.save(saved)
        assert link.is_symlink()
        assert (volume / "cursor").read_text() == cursor.load() == saved
    assert list(volume.iterdir()) == [volume / "cursor"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666])
def test_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "orders.cursor"
    path.write_text("e-1")
    path.chmod(mode)
    FileCursor(path).save("e-2")
    assert path.stat().st_mode & 0o7777 == mode
