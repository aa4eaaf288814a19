"""The pictures for the documentation: well-formed, complete, and with nothing in them that is fetched or obeyed."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tests.console.svg import Frame, film, picture

NAMESPACE = "{http://www.w3.org/2000/svg}"
PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
SCREEN = "\x1b[1m│ a  ✖ b\x1b[0m\n\x1b[7m<script>&\x1b[0m"


def test_each_word_stays_in_its_column() -> None:
    """Whatever the fonts: words after a gap have a place of their own; a name is text and not an element."""
    drawn = ElementTree.fromstring(picture(SCREEN, "title", (20, 2)))
    places = {"".join(text.itertext()): text.get("x") for text in drawn.iter(f"{NAMESPACE}text")}
    assert places == {"title": "100", "a": "18", "✖ b": "45", "<script>&": "0"}


def test_a_film_has_each_line_once_and_each_frame_for_its_time() -> None:
    """Its size is that of what changes."""
    frames = [Frame(SCREEN, "one", 3), Frame(SCREEN, "two", 1)]
    made = film(frames, (20, 2))
    ElementTree.fromstring(made)
    assert made.count("&lt;script&gt;") == 1
    assert made.count("<use ") == 4
    assert "75.000%{transform:translateY(" in made and "film 4s" in made


def test_the_pictures_of_the_documentation_fetch_nothing() -> None:
    """Each is small, and shows everywhere without asking another host."""
    found = sorted(PICTURES.glob("*.svg"))
    assert {path.stem for path in found} == {"film", "images", "plan", "replay", "triage", "why"}
    for path in found:
        text = path.read_text()
        ElementTree.fromstring(text)
        assert text.count("http") == 1 and "url(" not in text and "<script" not in text, path
        assert len(text) < 300_000
