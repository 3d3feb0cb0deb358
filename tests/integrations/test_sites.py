"""The applications of the pages about frameworks, under real servers, with the commands of the pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from support.framework import Site, check_items, check_page_tests, check_site

ADDRESS: Final = "--port 8000"

SITES: Final = [
    Site("frameworks/fastapi", "uvicorn app:app", ADDRESS),
    Site("frameworks/fastapi", "hypercorn app:app", "--bind 127.0.0.1:8000"),
    Site("frameworks/fastapi", "granian --interface asgi app:app", ADDRESS),
    Site("frameworks/litestar", "uvicorn app:app", ADDRESS),
    Site("frameworks/starlette", "uvicorn app:app", ADDRESS),
    Site("frameworks/aiohttp", "python app.py"),
    Site("frameworks/quart", "hypercorn app:app", "--bind 127.0.0.1:8000"),
    Site("frameworks/quart", "uvicorn app:app", ADDRESS),
    Site("frameworks/sanic", "sanic app:app --single-process", ADDRESS),
    Site("frameworks/falcon", "uvicorn app:app", ADDRESS),
    Site("frameworks/blacksheep", "uvicorn app:app", ADDRESS),
]

ITEMS: Final = {
    "fastapi": "uvicorn countdown:app --port 8000",
    "starlette": "uvicorn countdown:app --port 8000",
    "litestar": "uvicorn countdown:app --port 8000",
    "aiohttp": "python countdown.py",
    "quart": "hypercorn countdown:app --bind 127.0.0.1:8000",
    "sanic": "sanic countdown:app --single-process --port 8000",
    "falcon": "uvicorn countdown:app --port 8000",
    "blacksheep": "uvicorn countdown:app --port 8000",
}


@pytest.mark.parametrize("site", SITES, ids=str)
async def test_site(site: Site, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    await check_site(site, tmp_path, record_property)


@pytest.mark.parametrize("name", ITEMS)
async def test_own_items(name: str, tmp_path: Path) -> None:
    await check_items(f"frameworks/{name}", ITEMS[name], tmp_path)


@pytest.mark.parametrize("name", ["fastapi", "starlette", "litestar"])
def test_tests_of_a_page(name: str, tmp_path: Path) -> None:
    check_page_tests(f"frameworks/{name}", tmp_path)
