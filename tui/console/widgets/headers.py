"""The lines above the body: which repository, how it is, how old that knowledge is, and the tabs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len as width

from engine.errors import Moved
from tui.console.draw.formats import clock, share
from tui.console.draw.lines import Line, Span, plain
from tui.console.draw.signs import Signs
from tui.console.widgets.bar import Button
from tui.text.amounts import compact
from tui.text.statuses import SHOWN, State, code_of, role_of
from tui.text.words import OLD_AFTER_S
from tui.view.snapshot import RepositoryView

WIDE = 120
_NAME_COLUMNS = 24
TABS = (("triage", "1 Triage"), ("images", "2 Images"), ("runs", "3 Runs"), ("timeline", "4 Timeline"))


def counts_of(view: RepositoryView) -> dict[str, int]:
    """Return the counts of a view by status."""
    return {state.value: view.counts.of(state) for state in SHOWN}


def header(
    view: RepositoryView, signs: Signs, columns: int, now: float, hidden: str, mode: Sequence[Span] = ()
) -> tuple[list[Button], Line]:
    """Return name, counts, free space; when there is room also when it was scanned. ``hidden``: what is not
    shown ("2 snoozed"), "" for nothing. ``mode``: why nothing can be changed, () when it can."""
    first = [Button((Span(" "), *mode, Span(" ")))] if mode else []
    if not view.name:
        return [*first, Button((Span(" diskwright", "title"),))], (Span("no repository ", "quiet"),)
    forms = ((f" ({view.format})", True), ("", True), ("", False))
    made = [[*first, *_parts(view, signs, columns, now, hidden, mode, kind, space)] for kind, space in forms]
    fitting = [parts for parts in made if sum(width(plain(part.text)) for part in parts) <= columns]
    return (fitting or made)[-1 if not fitting else 0], where(view) if columns >= WIDE else ()


def _parts(
    view: RepositoryView, signs: Signs, columns: int, now: float, hidden: str, mode: Sequence[Span], kind: str,
    space: bool,
) -> list[Button]:  # fmt: skip
    parts = [Button((Span(f" {view.name}", "title"), Span(f"{kind}  ", "quiet")), "repositories")]
    if not view.known:
        text = Span(view.problem, "broken") if view.problem else Span("not scanned yet", "unknown")
        return [*parts, Button((text,))]
    wide = columns >= WIDE
    parts.append(Button((*signs.counts(counts_of(view), "  " if wide else " "), Span("  "))))
    if space:
        parts.append(Button(_space(view, columns)))
    if hidden:
        parts.append(Button((Span(f"  {hidden}", "warning"),)))
    if wide and not mode:
        parts.append(Button((Span("   "), *scanned(view, now, long=True))))
    return parts


def in_brief(view: RepositoryView, signs: Signs) -> Line:
    """Return the worst that is known of a repository, in two words."""
    if view.problem:
        return (Span("lost", "broken"),)
    if not view.known:
        return (Span("not scanned yet", "quiet"),)
    for state in (State.BROKEN, State.UNKNOWN, State.DEGRADED):
        if number := view.counts.of(state):
            return (Span(f"{signs.sign(state)} {code_of(state)}={number}", role_of(state)),)
    return (Span("low space", "warning"),) if view.low_space else (Span("nothing broken", "quiet"),)


def others(views: Sequence[RepositoryView], signs: Signs, columns: int) -> list[Button]:
    """Return a line with the repositories that are not looked at, the worst first; nothing when there is none."""
    if not views:
        return []
    ordered = sorted(views, key=lambda view: view.severity, reverse=True)
    parts = [Button((Span(" Others:", "quiet"),), "repositories")]
    end = Button((Span("   0", "key"), Span(" lists all")), "repositories")
    room = columns - 1 - sum(width(plain(part.text)) for part in (*parts, end))
    for number, view in enumerate(ordered):
        text = (Span(f"  {view.name[:_NAME_COLUMNS]} "), *in_brief(view, signs), Span(" "))
        more = Span(f"  and {len(ordered) - number} more", "quiet")
        kept = 0 if number == len(ordered) - 1 else width(more.text)
        if width(plain(text)) + kept > room:
            return [*parts, Button((more,), "repositories"), end]
        room -= width(plain(text))
        parts.append(Button(text, "repositories"))
    return [*parts, end]


def problem(view: RepositoryView, next_try_s: float) -> list[Button]:
    """Return why the last look failed, how old the data are, and what to press; nothing when it did not fail."""
    if not view.problem:
        return []
    old = f" What you see was read at {clock(view.scanned_at)}." if view.known else ""
    return [
        Button((Span(f" {view.problem}.", "broken"), Span(old))),
        Button((Span(" A", "key"), Span(" takes what is there")), "accept_moved")
        if view.problem_code == Moved.code
        else Button((Span(" R", "key"), Span(f" tries again (by itself in {max(0, round(next_try_s))} s)")), "rescan"),
    ]


def _space(view: RepositoryView, columns: int) -> Line:
    whole = f" of {compact(view.total_bytes)}" if columns >= 90 else ""
    text = f"free {compact(view.free_bytes)}{whole} {share(view.free_bytes, view.total_bytes)}"
    if view.low_space:
        return (Span(f"{text} LOW", "warning"),)
    return (Span(text),)


def scanned(view: RepositoryView, now: float, long: bool) -> Line:
    """Return when a repository was scanned; a view older than a minute says so."""
    if view.problem:
        return (Span(f"LOST, data of {clock(view.scanned_at)}", "broken"),)
    when = clock(view.scanned_at)
    old = view.read_only == "" and view.age_s(now) > OLD_AFTER_S
    if long:
        images = view.counts.total
        text = f"scanned {when}, {images} image{'' if images == 1 else 's'}, {view.took_s:.1f} s"
    else:
        text = f"scanned {when}"
    return (Span(text, "quiet"), Span("  OLD", "warning")) if old else (Span(text, "quiet"),)


def where(view: RepositoryView) -> Line:
    """Return this host and the manager of the repository."""
    if view.srm in ("", "-"):
        return (Span(f"{view.host} ", "quiet"),)
    return (
        Span(f"{view.host} ", "quiet"),
        Span(f" SRM: {srm_of(view)} ", "text" if view.srm == view.host else "warning"),
    )


def srm_of(view: RepositoryView) -> str:
    """Return who manages a repository that needs a manager: a host, or what stands for nobody."""
    if view.srm == "?":
        return "nobody"
    return "this host" if view.srm == view.host else view.srm


def tabs(view: RepositoryView, active: str, live_runs: int, columns: int, now: float) -> tuple[list[Button], Line]:
    """Return the four tabs, and where there is no room in the header: host, manager, and when it was scanned."""
    buttons = [Button((Span(" "),))]
    for key, title in TABS:
        text = f"{title}({live_runs})" if key == "runs" and live_runs else title
        shown = Span(f"[{text}]", "title") if key == active else Span(f" {text} ")
        buttons.append(Button((shown, Span(" ")), f"tab_{key}"))
    if columns >= WIDE or not view.name:
        return buttons, ()
    return buttons, _fitting(view, columns - sum(width(plain(button.text)) for button in buttons) - 2, now)


def _fitting(view: RepositoryView, columns: int, now: float) -> Line:
    """Host, manager and time of the scan; where there is no room for all, the host is known best."""
    if not view.known:
        return where(view)
    when = (*scanned(view, now, long=False), Span(" "))
    host, *manager = where(view)
    forms: tuple[Line, ...] = ((host, *manager, *when), (*manager, *when), when)
    return next((form for form in forms if width(plain(form)) <= columns), when)
