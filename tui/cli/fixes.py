"""Fixes as they are shown: a table of them, and the parts that plans and the demo tell too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from engine.data.model import Fix, ImageReport
from tui.cli.render import Output
from tui.text.amounts import compact, duration
from tui.text.printable import cut, printable

if TYPE_CHECKING:
    from tui.view.fixes import FixRow

_WIDE_COLUMNS = 110
"""From this width on the table of fixes has room for whole status words."""
_NAME_COLUMNS = 18

Names = Mapping[str, str]
"""Names of images by their ids, of those that have one."""


def names_of(images: Iterable[ImageReport]) -> dict[str, str]:
    """The names of images, hidden data included."""
    return {image.id: image.name for image in images if image.name}


def names_in(rows: Iterable[FixRow]) -> dict[str, str]:
    """The names of the images that rows are about; a row whose image has none is called by its id."""
    return {row.target: row.name for row in rows if row.name != row.target[:8]}


def called(names: Names, image: str) -> str:
    """An image for a sentence: "web-db (0b6e1274)", its id where it has no name, "the repository" for none."""
    if not image:
        return "the repository"
    return f"{printable(names[image])} ({image[:8]})" if names.get(image) else image


def space(fix: Fix) -> str:
    """What a fix does to free space: "frees 1.2G", "needs ~300M", "later 1.0G"."""
    cost = fix.cost
    about = "" if cost.exact else "~"
    parts = []
    if cost.peak_extra_bytes:
        parts.append(f"needs {about}{compact(cost.peak_extra_bytes)}")
    if cost.reclaimed_bytes:
        parts.append(f"frees {about}{compact(cost.reclaimed_bytes)}")
    if cost.reclaimed_later_bytes:
        parts.append(f"later {about}{compact(cost.reclaimed_later_bytes)}")
    return ", ".join(parts) or "-"


def change(out: Output, fix: Fix, short: bool) -> str:
    """Status before → after."""
    if not fix.status_before and not fix.status_after:
        return "-"
    before, after = (out.status(state, short) for state in (fix.status_before, fix.status_after))
    return f"{before} {out.arrow} {after}"


def table(out: Output, fixes: Sequence[Fix], names: Names) -> None:
    """The fixes in the order to run them in."""
    short = out.bounded and out.columns < _WIDE_COLUMNS
    ids = out.short([fix.id for fix in fixes])
    tags = out.short([fix.target for fix in fixes if fix.target])
    rows = [
        (
            ids[fix.id],
            str(fix.type),
            printable(fix.rule),
            _name(out, names, fix.target),
            tags.get(fix.target, "-"),
            change(out, fix, short),
            space(fix).partition(",")[0] if short else space(fix),
            f"~{duration(fix.cost.eta_s)}" if fix.cost.eta_s is not None else "-",
            _undo(fix) if short else f"{fix.risk}{_more(fix)}",
        )
        for fix in fixes
    ]
    last = "UNDO" if short else "RISK"
    heads = ("ID", "TYPE", "RULE", "NAME", "IMAGE", f"NOW{out.arrow}AFTER", "SPACE", "TIME", last)
    out.table(heads, rows, [fix.status_before for fix in fixes], 5, give_up=(7, 2, 4, 5))
    if short and any("degraded" in (fix.status_before, fix.status_after) for fix in fixes):
        out.line("DEG is degraded: usable, and could be represented better.")


def _name(out: Output, names: Names, image: str) -> str:
    name = printable(names.get(image, "")) or image[:8] or "(repository)"
    return cut(name, _NAME_COLUMNS, out.ellipsis) if out.bounded else name


def _undo(fix: Fix) -> str:
    return f"{'never' if fix.irreversible else 'yes'}{_more(fix)}"


def _more(fix: Fix) -> str:
    return ("; SRM" if fix.needs_srm else "") + ("; waits" if fix.waits_for else "")
