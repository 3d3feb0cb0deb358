"""Colour contrast of the pages, in the light and in the dark scheme."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = (files("tickertape.server") / "web" / "shared" / "style.css").read_text("utf-8")

PAIRS = [
    ("text", "ground"),
    ("text", "card"),
    ("text", "tint"),
    ("text", "flash"),
    ("muted", "ground"),
    ("muted", "card"),
    ("muted", "flash"),
    ("accent", "tint"),
    ("on-accent", "accent"),
    ("good", "card"),
    ("off", "card"),
    ("warn", "card"),
    ("warn", "flash"),
    ("warn", "warn-tint"),
    ("text", "warn-tint"),
]
"""Text colours and the background below them."""


DASHBOARD = (files("tickertape.demo.dashboard") / "web" / "dashboard.css").read_text("utf-8")


def colours(scheme: str, css: str = CSS) -> dict[str, str]:
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): #([0-9a-f]{6});", block)) for block in blocks)
    return light | dark if scheme == "dark" else light


def luminance(colour: str) -> float:
    """Relative luminance: WCAG 2.2."""
    channels = (int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4))
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_text_contrast(text: str, ground: str, scheme: str) -> None:
    palette = colours(scheme)
    darker, lighter = sorted(luminance(palette[name]) for name in (text, ground))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_chart_line_contrast(scheme: str) -> None:
    card = luminance(colours(scheme)["card"])
    lines = {name: colour for name, colour in colours(scheme, DASHBOARD).items() if name.startswith("series-")}
    assert len(set(lines.values())) == 6
    for colour in lines.values():
        darker, lighter = sorted((luminance(colour), card))
        assert (lighter + 0.05) / (darker + 0.05) >= 3  # WCAG 2.2, 1.4.11


def test_dark_redefines_every_colour() -> None:
    light, dark = colours("light"), colours("dark")
    assert {name for name in light if light[name] == dark[name]} == set()
