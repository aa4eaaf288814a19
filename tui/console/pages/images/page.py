"""All images of the repository, with a filter, and why the one under the cursor is as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from tui.console.acts import Act
from tui.console.control import images as verbs
from tui.console.control import machines
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.filtered import FilteredPage
from tui.console.pages.images.rows import COLUMNS, HEADS, ImageRows
from tui.console.pages.page import CopyItem
from tui.console.pages.why import lines
from tui.console.shell import Shell, Where
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Pane
from tui.console.widgets.table import Table
from tui.view.command_lines import line as command_line
from tui.view.images import ImageOrder, ImageRow
from tui.view.query import Query

_EXPORT_ROWS = 200_000
_VERBS = frozenset(
    ("snapshot", "mark", "copy_image", "rename", "remove_image", "restore_image", "export_image", "prepare_image")
)
_FAULTS = "!status:optimized"


class ImagesPage(FilteredPage):
    """The table of images and the reason."""

    tab = "images"
    COLUMNS = COLUMNS
    ORDERS = ImageOrder
    WHAT = "Images"

    def __init__(self) -> None:
        super().__init__()
        self.rows: ImageRows | None = None
        self._wanted = ""
        """The image that is to be seen, until a look that is newer than ``_since`` has come."""
        self._since = 0.0
        self._went = False
        """The cursor was put on it."""
        self.marked: tuple[str, ...] = ()
        """Disks that were chosen to be frozen at one moment, by id."""

    def row(self) -> ImageRow | None:
        table = self.table_widget
        return self.rows.row(table.cursor) if self.rows is not None and 0 <= table.cursor < len(self.rows) else None

    def arrive(self, where: Where) -> None:
        """Put the cursor on an image."""
        super().arrive(where)
        self._wanted, self._since, self._went = where.image, self.shell.site.actual_view.scanned_at, False

    # -- drawing

    def fill(self) -> None:
        images, query = self.shell.site.view.images, self.query_now()
        selected = images.select(query, ImageOrder(self.order), self.reversed)
        used = {machine.image: machine.in_brief for machine in self.shell.site.view.machines if machine.users}
        self.marked = tuple(row.id for row in self.marked_rows())
        self.rows = ImageRows(images, selected, self.shell.signs, used, self.marked)
        self.table_widget.show(self.rows, self._nothing())
        if self._wanted:
            self._reveal(self._wanted)
        self.fill_title(len(selected), len(images), query)
        self._fill_why()
        self.fill_repositories()

    def number(self, total: int) -> str:
        removed = self.shell.site.view.counts.removed
        marked = f", {len(self.marked)} marked" if self.marked else ""
        return f"{total - removed} and {removed} removed{marked}" if removed else f"{total}{marked}"

    def marked_rows(self) -> list[ImageRow]:
        """The disks that were chosen and are still there."""
        rows = (self.shell.site.view.image(image) for image in self.marked)
        return [row for row in rows if row is not None and not verbs.why_not(self.shell, "mark", row)]

    def _reveal(self, image: str) -> None:
        """Put the cursor on an image once; a filter that hides it, also under its new name, is cleared."""
        site, table = self.shell.site, self.table_widget
        if site.actual_view.scanned_at > self._since:
            self._wanted = ""
        if site.view.image(image) is None or (self._went and table.rows.find(image) >= 0):
            return
        self._went = True
        if not table.go_key(image):
            self.set_filter("")
            table.go_key(image)

    def matching(self, query: Query) -> Callable[[int], bool]:
        rows = self.rows
        assert rows is not None
        found = set(self.shell.site.view.images.select(query, ImageOrder(self.order), self.reversed))
        return lambda index: rows.number(index) in found

    def _nothing(self) -> list[Line]:
        view = self.shell.site.view
        if not view.known:
            text = f"{view.problem}." if view.problem else "Looking at the repository."
            return [(), line(Span(text)), line(view.next_step)]
        if len(view.images):
            text = f"No image matches {self.filter_line.value}. {len(view.images)} hidden.  esc clears it."
            return [(), line(text), *self.hints()]
        return [(), line(f"{view.name} has no image."), line(Span(f"  diskwright create-disk {view.name} 10G", "key"))]

    def _fill_why(self) -> None:
        pane = self.query_one("#why", Pane)
        set_title(pane, "Why")
        row = self.row()
        if row is None:
            pane.show([])
            return
        site = self.shell.site
        told = lines.of_image(site.view, row.id, self.shell.signs, site.now, pane.columns())
        pane.show([*told, *lines.of_group(site.chronicle, row.id), *self.beyond(row.id, row.rule)])

    def status(self) -> Button:
        """What can be done for the image under the cursor."""
        row = self.row()
        fixes = self.shell.site.view.fixes_of(row.id) if row is not None else ()
        if row is None or not fixes:
            return Button(())
        more = f" and {len(fixes) - 1} more" if len(fixes) > 1 else ""
        return Button((Span(f" {fixes[0].what}{more}: enter goes there in Triage", "quiet"),), "fixes")

    # -- moving

    def table_moved(self, table: Table) -> None:
        """The reason is that of the image under the cursor."""
        self._fill_why()
        self.fill_status()

    def on_table_opened(self, message: Table.Opened) -> None:
        """Enter shows its fixes."""
        message.stop()
        act = self.keys.named("fixes")
        if act is not None:
            self.press(act)

    def why_not(self, act: Act) -> str:
        row = self.row()
        if act.name == "snapshot" and self.marked:
            return ""
        if act.name in _VERBS:
            return verbs.why_not(self.shell, act.name, row)
        if act.name == "create_image" and not self.shell.site.current:
            return "no repository is connected"
        if act.name in ("why", "fixes", "history", "family") and row is None:
            return "nothing is under the cursor"
        if act.name == "family" and self.shell.site.replay is not None:
            return "a trace keeps no families"
        if act.name == "fixes" and row is not None and not self.shell.site.view.fixes_of(row.id):
            return f"check offers no fix for {row.label}, w tells why"
        return super().why_not(act)

    def act_faults(self) -> None:
        self.set_filter("" if self.filter_line.value == _FAULTS else _FAULTS)

    def act_why(self) -> None:
        row = self.row()
        assert row is not None
        self.shell.show(Where("why", image=row.id))

    def act_fixes(self) -> None:
        row = self.row()
        assert row is not None
        self.shell.show(Where("triage", fix=self.shell.site.view.fixes_of(row.id)[0].key))

    def act_family(self) -> None:
        row = self.row()
        assert row is not None
        self.shell.show(Where("family", image=row.id))

    def act_history(self) -> None:
        row = self.row()
        assert row is not None
        self.shell.show(Where("timeline", image=row.id))

    def _do(self, verb: Callable[[Shell, ImageRow], None]) -> None:
        row = self.row()
        assert row is not None
        verb(self.shell, row)

    def act_mark(self) -> None:
        row = self.row()
        assert row is not None
        others = tuple(image for image in self.marked if image != row.id)
        self.marked = others if len(others) < len(self.marked) else (*others, row.id)
        self.table_widget.go(self.table_widget.cursor + 1)
        self.fill_all()

    def act_snapshot(self) -> None:
        if rows := self.marked_rows():
            verbs.snapshot_group(self.shell, rows, self._unmark)
        else:
            self._do(verbs.snapshot)

    def _unmark(self) -> None:
        self.marked = ()
        self.fill_soon()

    def act_create(self) -> None:
        verbs.create(self.shell)

    # -- taking out

    def copies(self) -> list[CopyItem]:
        row = self.row()
        if row is None or self.rows is None:
            return []
        text = "  ".join(self.rows.text(self.table_widget.cursor))
        name = self.shell.site.view.name
        return [
            ("i", "id of the image", row.id),
            ("c", "command", command_line("why", repo=name, image=row.id)),
            ("w", "reason", row.reason),
            ("r", "row", text),
        ]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        rows = self.rows
        if rows is None:
            return HEADS, []
        return HEADS, [rows.text(index) for index in range(min(len(rows), _EXPORT_ROWS))]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("why", "w", "Why", "Tell why it is so, on a full page with its facts.", act_why, "explain reason facts"),
        Act("fixes", "enter", "Fixes", "Show the fixes of this image in Triage.", act_fixes, "mend open"),
        Act("filter", "slash", "Filter", "Show only what matches: status: type: host: name: !not.",
            FilteredPage.act_filter, "search find"),
        Act("family", "F", "Family", "Show what it stands on, what stands on it, and bytes.",
            act_family, "tree parent chain space"),
        Act("create_image", "a", "New disk", "Create a virtual disk.", act_create, "add create", changes=True),
        Act("snapshot", "s", "Snapshot", "Freeze the disk, or all that are marked at one moment.", act_snapshot,
            "create freeze group several", changes=True),
        Act("mark", "space", "Mark", "Mark the disk for a snapshot of several, or unmark it.", act_mark,
            "select choose group several", changes=True),
        Act("copy_image", "d", "Copy", "Copy the image, here or to another repository.",
            lambda page: page._do(verbs.copy), "duplicate clone replicate", changes=True),
        Act("rename", "m", "Rename", "Give the image another name.", lambda page: page._do(verbs.rename), "name move",
            changes=True),
        Act("remove_image", "X", "Remove", "Remove it; until a clean fix it can be restored. Asks.",
            lambda page: page._do(verbs.remove), "delete", changes=True),
        Act("restore_image", "u", "Restore", "Undo the removal of the image.", lambda page: page._do(verbs.restore),
            "undelete", changes=True),
        Act("prepare_image", "p", "Prepare", "Make it a path for a machine, until it is torn down.",
            lambda page: page._do(machines.prepare), "monitor attach path run boot qemu libvirt", changes=True),
        Act("export_image", "E", "Export data", "Write the image to a file.", lambda page: page._do(verbs.export),
            "download raw qcow2"),
        Act("faults", "f", "Faults", "Show only what is not optimized, or all again.", act_faults,
            "broken degraded problems"),
        Act("sort", "o", "Sort", "Sort by the next: state, name, size, used, time, id.", FilteredPage.act_sort,
            "order"),
        Act("reverse", "O", "Reverse", "Turn the order round.", FilteredPage.act_reverse, "sort"),
        Act("history", "h", "History", "Show in the timeline what happened to this image.", act_history,
            "provenance lane"),
        *FilteredPage.FIND_ACTS,
    )  # fmt: skip
