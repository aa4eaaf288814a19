"""Colours: every pair of text and ground that is drawn can be read, in every palette."""

from __future__ import annotations

import pytest

from tui.console.draw.palette import MONO, PALETTES, Palette, contrast

FIXED = [palette for palette in PALETTES.values() if not palette.native]


@pytest.mark.parametrize("palette", FIXED, ids=lambda palette: palette.name)
def test_every_role_has_a_contrast_of_at_least_4_5_on_every_ground(palette: Palette) -> None:
    """WCAG 2.1, 1.4.3, for text on the page, on the row under the cursor and on a range."""
    grounds = (palette.background, palette.cursor, palette.mark)
    colours = {paint.colour or palette.text for paint in palette.roles.values()}
    poor = [
        (colour, ground, round(contrast(colour, ground), 2))
        for colour in colours
        for ground in grounds
        if contrast(colour, ground) < 4.5
    ]
    assert not poor


@pytest.mark.parametrize("palette", FIXED, ids=lambda palette: palette.name)
def test_frames_can_be_seen(palette: Palette) -> None:
    """WCAG 2.1, 1.4.11: 3 to 1 for what is no text."""
    assert contrast(palette.border, palette.background) >= 3
    assert contrast(palette.border_focus, palette.background) >= 3


@pytest.mark.parametrize("palette", FIXED, ids=lambda palette: palette.name)
def test_no_meaning_hangs_on_red_against_green(palette: Palette) -> None:
    """No colour of a status is one of which green is the strongest part."""
    for status in ("broken", "degraded", "optimized", "removed"):
        colour = palette.roles[status].colour
        red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
        assert not (green > red + 24 and green > blue + 24)


def test_without_colours_broken_stands_out_most() -> None:
    """Reverse and bold for what is broken; nothing else is reversed; all differ or have words of their own."""
    assert MONO.roles["broken"].reverse and MONO.roles["broken"].bold
    assert not any(MONO.roles[status].reverse for status in ("degraded", "optimized", "removed", "unknown"))
    looks = {MONO.roles[status] for status in ("broken", "degraded", "optimized", "removed", "unknown")}
    assert len(looks) == 5


def test_contrast_is_that_of_wcag() -> None:
    """Black on white is 21, and the documented colours of the dark palette are as documented."""
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#FF7F50", "#101418") == pytest.approx(7.4, abs=0.1)
