"""The rows of the table of images; a row is built when it is seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from tui.console.draw.formats import clock
from tui.console.draw.lines import Cell, Span, plain
from tui.console.draw.signs import Signs
from tui.console.widgets.table import Column
from tui.text.amounts import compact
from tui.view.images import ImageRow, ImageTable

COLUMNS = (
    Column("state", "STATUS", 6),
    Column("name", "IMAGE", 10, share=3),
    Column("id", "ID", 8),
    Column("kind", "KIND", 8),
    Column("size", "SIZE", 7, right=True),
    Column("used", "USED", 7, right=True),
    Column("dependants", "DEPS", 4, right=True, from_width=100),
    Column("strategy", "FOR", 11, from_width=120),
    Column("when", "LAST", 8, from_width=120),
    Column("host", "BY", 10, from_width=120),
    Column("reason", "REASON", 16, share=3),
)
NOBODY: Mapping[str, str] = MappingProxyType({})
MARK = "+ "
"""Before the name of a disk that was chosen."""
HEADS = tuple(column.title for column in COLUMNS)


class ImageRows:
    """The selected images of a table."""

    def __init__(
        self, images: ImageTable, selected: Sequence[int], signs: Signs, used: Mapping[str, str] = NOBODY,
        marked: Collection[str] = (),
    ) -> None:  # fmt: skip
        """``used``: by whom, of images that are prepared here. ``marked``: those that were chosen."""
        self._images = images
        self._used = used
        self._marked = marked
        self._selected = selected
        self._signs = signs

    def __len__(self) -> int:
        return len(self._selected)

    def number(self, index: int) -> int:
        """The place of a row's image among all images."""
        return self._selected[index]

    def row(self, index: int) -> ImageRow:
        return self._images[self._selected[index]]

    def key(self, index: int) -> str:
        return self.row(index).id

    def find(self, key: str) -> int:
        """Where an image is; looked for among the selected ones."""
        wanted = self._images.find(key)
        if wanted < 0:
            return -1
        try:
            return self._selected.index(wanted)
        except ValueError:
            return -1

    def cells(self, index: int) -> dict[str, Cell]:
        row = self.row(index)
        works = f"used by {self._used[row.id]}" if row.id in self._used else row.running
        reason = f"{works}; {row.reason}" if works else row.reason
        return {
            "state": self._signs.short(row.state.value),
            "name": Span(f"{MARK}{row.label}", "key") if row.id in self._marked else row.label,
            "id": row.id[:8],
            "kind": row.kind,
            "size": compact(row.size_bytes),
            "used": compact(row.used_bytes),
            "dependants": str(row.dependants),
            "strategy": row.strategy or "-",
            "when": clock(row.when),
            "host": row.host or "-",
            "reason": Span(reason or "-", "text" if reason else "quiet"),
        }

    def text(self, index: int) -> list[str]:
        cells = self.cells(index)
        return [plain(cells.get(column.name, "")) for column in COLUMNS]
