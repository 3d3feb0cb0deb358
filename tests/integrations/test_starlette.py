"""Starlette: the application of its page, under real servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.framework import Site, check_site

PAGE = "frameworks/starlette"

SITES = [Site(PAGE, "uvicorn app:app", "--port 8000")]


@pytest.mark.parametrize("site", SITES, ids=str)
async def test_site(site: Site, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    await check_site(site, tmp_path, record_property)
