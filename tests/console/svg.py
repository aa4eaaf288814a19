"""Pictures of terminal screens as SVG: text that can be selected, fonts of whoever looks, nothing to fetch.

A screen is what ``tmux capture-pane -e`` prints: lines with SGR sequences. A film is a strip of screens that one CSS
animation moves step by step; a line that is on several screens is in the file once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from rich.ansi import AnsiDecoder
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style

BACKGROUND, FOREGROUND = "#101418", "#e6edf3"
_WIDTH, _HEIGHT, _FONT = 9.0, 19.0, 15
_MARGIN, _BAR = 10.0, 30.0
_CONSOLE = Console(width=400, color_system="truecolor", force_terminal=True)
_VERTICAL = "│"


class Frame(NamedTuple):
    """One screen of a film."""

    screen: str
    caption: str
    seconds: float


class Span(NamedTuple):
    """Cells of one look in a line."""

    column: int
    text: str
    style: Style


def picture(screen: str, title: str, size: tuple[int, int]) -> str:
    """One screen."""
    lines = "".join(f'<g transform="translate(0 {row * _HEIGHT:g})">{line}</g>' for row, line in _drawn(screen))
    return _framed(f"{_caption(title, size)}{_window(lines)}", "", size)


def film(frames: Sequence[Frame], size: tuple[int, int]) -> str:
    """Screens one after the other, for ever; whoever asked for reduced motion sees the first."""
    names: dict[str, str] = {}
    strip = []
    height = _outer(size)[1]
    for number, frame in enumerate(frames):
        uses = []
        for row, line in _drawn(frame.screen):
            name = names.setdefault(line, f"l{len(names)}")
            uses.append(f'<use href="#{name}" y="{row * _HEIGHT:g}"/>')
        inside = _caption(frame.caption, size) + _window("".join(uses))
        strip.append(f'<g transform="translate(0 {number * height:g})">{inside}</g>')
    defined = "".join(f'<g id="{name}">{line}</g>' for line, name in names.items())
    return _framed(f'<defs>{defined}</defs><g id="film">{"".join(strip)}</g>', _animation(frames, height), size)


def _animation(frames: Sequence[Frame], height: float) -> str:
    whole = sum(frame.seconds for frame in frames)
    at, steps = 0.0, []
    for number, frame in enumerate(frames):
        steps.append(f"{at / whole:.3%}{{transform:translateY({-number * height:g}px)}}")
        at += frame.seconds
    steps.append(f"100%{{transform:translateY({-(len(frames) - 1) * height:g}px)}}")
    return (
        f"@keyframes film{{{''.join(steps)}}}#film{{animation:film {whole:g}s steps(1,end) infinite}}"
        "@media(prefers-reduced-motion:reduce){#film{animation:none}}"
    )


def _outer(size: tuple[int, int]) -> tuple[float, float]:
    return size[0] * _WIDTH + 2 * _MARGIN, size[1] * _HEIGHT + _MARGIN + _BAR


def _framed(inside: str, style: str, size: tuple[int, int]) -> str:
    width, height = _outer(size)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}">\n<style>text{{font:{_FONT}px ui-monospace,"SFMono-Regular",Menlo,Consolas,'
        f'"DejaVu Sans Mono",monospace;white-space:pre;fill:{FOREGROUND}}}.b{{font-weight:bold}}'
        f".i{{font-style:italic}}.d{{opacity:.6}}{style}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>\n{inside}\n</svg>\n'
    )


def _caption(text: str, size: tuple[int, int]) -> str:
    width = _outer(size)[0]
    return (
        f'<rect width="{width:g}" height="{_BAR - 6:g}" rx="8" fill="#26303a"/>'
        f'<text x="{width / 2:g}" y="17" text-anchor="middle" class="b">{escape(text)}</text>\n'
    )


def _window(inside: str) -> str:
    return f'<g transform="translate({_MARGIN:g} {_BAR:g})">{inside}</g>\n'


def _drawn(screen: str) -> Iterable[tuple[int, str]]:
    """The lines that are not empty, with their rows."""
    for row, text in enumerate(AnsiDecoder().decode(screen)):
        column, spans = 0, list[Span]()
        for segment in text.render(_CONSOLE):
            if segment.text != "\n":
                spans += _split(Span(column, segment.text, segment.style or Style()))
                column += cell_len(segment.text)
        line = "".join(map(_span, spans))
        if line:
            yield row, line


def _split(span: Span) -> Iterable[Span]:
    """Vertical lines apart, as they are drawn; and words apart after a gap, so that each stays in its column whatever
    the width of a sign in the font that is found."""
    column, word, start = span.column, "", span.column
    for character in span.text:
        if character == _VERTICAL or (word.endswith("  ") and character != " " and span.style.bgcolor is None):
            yield Span(start, word, span.style)
            word, start = "", column
        word += character
        column += cell_len(character)
        if character == _VERTICAL:
            yield Span(start, word, span.style)
            word, start = "", column
    yield Span(start, word, span.style)


def _span(span: Span) -> str:
    style = span.style
    front, back = _colours(style)
    x, cells = span.column * _WIDTH, cell_len(span.text)
    drawn = f'<rect x="{x:g}" width="{cells * _WIDTH:g}" height="{_HEIGHT:g}" fill="{back}"/>' if back else ""
    text = span.text.rstrip()
    if not text:
        return drawn
    paint = f' style="fill:{front}"' if front != FOREGROUND else ""
    if text == _VERTICAL:
        return f'{drawn}<rect x="{x + _WIDTH / 2 - 0.5:g}" width="1" height="{_HEIGHT:g}" fill="{front}"/>'
    lead = len(text) - len(text.lstrip())
    words = text.lstrip()
    names = " ".join(name for name, on in (("b", style.bold), ("i", style.italic), ("d", style.dim)) if on)
    classes = f' class="{names}"' if names else ""
    place = f'x="{x + lead * _WIDTH:g}" y="14" textLength="{cell_len(words) * _WIDTH:g}"'
    return f"{drawn}<text {place}{classes}{paint}>{escape(words)}</text>"


def _colours(style: Style) -> tuple[str, str]:
    """Of the text and of what is behind it, "" for the window's own."""
    front = style.color.get_truecolor().hex if style.color and not style.color.is_default else FOREGROUND
    back = style.bgcolor.get_truecolor().hex if style.bgcolor and not style.bgcolor.is_default else ""
    if style.reverse:
        front, back = back or BACKGROUND, front
    return front, "" if back.lower() == BACKGROUND else back
