"""The files that a page of the documentation shows, for tests that run them.

A block with a caption is a file: ``{code-block} python`` with ``:caption: app.py``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["files_of", "write_files"]

DOCS: Final = Path(__file__).parents[2] / "docs"

_BLOCK: Final = re.compile(r"^```\{code-block\} \w+\n((?::\w+:[^\n]*\n)+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CAPTION: Final = re.compile(r"^:caption: (\S+)$", re.MULTILINE)


def files_of(page: str) -> dict[str, str]:
    """Return the files of a page, such as ``"frameworks/django"``, by their names.

    Blocks with the same caption are parts of one file, in their order.
    """
    files: dict[str, str] = {}
    for options, text in _BLOCK.findall((DOCS / f"{page}.md").read_text("utf-8")):
        if caption := _CAPTION.search(options):
            files[caption[1]] = files.get(caption[1], "") + text
    assert files, f"expected blocks with a caption in {page}"
    return files


def write_files(page: str, folder: Path) -> None:
    """Write the files of a page into a folder."""
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
