"""Families as rows: the tree, and for each member a bar of what is its own and what it shares with those below it."""

from __future__ import annotations

from collections.abc import Sequence

from tui.console.draw.lines import Cell, Span, plain
from tui.console.draw.signs import Signs
from tui.console.widgets.table import Column, KeyedRows
from tui.text.amounts import compact
from tui.view.families import Family, Member

COLUMNS = (
    Column("name", "IMAGE", 14, share=3),
    Column("state", "STATUS", 6),
    Column("kind", "KIND", 8, from_width=100),
    Column("size", "SIZE", 7, right=True),
    Column("own", "OWN", 7, right=True),
    Column("below", "SHARED", 7, right=True),
    Column("bar", "", 22, share=1),
)
HEADS = ("image", "id", "status", "kind", "size", "own", "shared", "stands on")
_BAR = 22


class FamilyRows(KeyedRows):
    """The members of some families, one below the other."""

    def __init__(self, families: Sequence[Family], signs: Signs) -> None:
        self.members: tuple[Member, ...] = tuple(member for family in families for member in family)
        super().__init__(member.id for member in self.members)
        self._signs = signs
        self._most = {
            member.id: max(1, *(other.own_bytes + other.below_bytes for other in family))
            for family in families
            for member in family
        }

    def cells(self, index: int) -> dict[str, Cell]:
        member = self.members[index]
        return {
            "name": (Span(member.branch(self._signs.unicode), "quiet"), Span(member.label)),
            "state": self._signs.short(member.state.value),
            "kind": member.kind,
            "size": compact(member.size_bytes),
            "own": compact(member.own_bytes),
            "below": compact(member.below_bytes) if member.below_bytes else Span("-", "quiet"),
            "bar": self._bar(member),
        }

    def _bar(self, member: Member) -> Cell:
        """Shared first: what is one's own stands on it."""
        most = self._most[member.id]
        below = round(member.below_bytes * _BAR / most)
        own = round((member.below_bytes + member.own_bytes) * _BAR / most) - below
        return (Span(self._signs.room * below, "quiet"), Span(self._signs.bar * max(own, member.own_bytes > 0), "bar"))

    def text(self, index: int) -> list[str]:
        """The row for a file, bytes as numbers."""
        member = self.members[index]
        name = plain((Span(member.branch(self._signs.unicode)), Span(member.label)))
        sizes = (member.size_bytes, member.own_bytes, member.below_bytes)
        return [name, member.id, member.state.value, member.kind, *map(str, sizes), member.parent]
