"""What can be done from every page: change the page, look again, connect, copy, export, help, quit."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from tui.console.acts import Act, shown_key
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw import palette
from tui.console.draw.headers import TABS
from tui.console.draw.lines import Cell, Span
from tui.console.pages.page import Page
from tui.directories import user_directory
from tui.text.printable import printable
from tui.view.command_lines import line

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp

EXPORT_FORMS = (("j", "json"), ("c", "csv"), ("t", "txt"), ("s", "svg"))


class GlobalActs:
    """Methods ``act_<name>`` of the application, for the acts that every page has."""

    @property
    def _console(self) -> ConsoleApp:
        return cast("ConsoleApp", self)

    # -- pages

    def act_tab_triage(self) -> None:
        """Show what can be fixed."""
        self._console.show_page("triage")

    def act_tab_images(self) -> None:
        """Show all images."""
        self._console.show_page("images")

    def act_tab_runs(self) -> None:
        """Show what runs."""
        self._console.show_page("runs")

    def act_tab_timeline(self) -> None:
        """Show what happened."""
        self._console.show_page("timeline")

    def act_rescan(self) -> None:
        """Look at the repository again."""
        self._console.rescan()

    def act_rescan_again(self) -> None:
        """As ``rescan``."""
        self._console.rescan()

    def act_back(self) -> None:
        """Nothing is open."""

    # -- repositories

    def act_repositories(self) -> None:
        """Choose another repository."""
        from tui.console.dialogs.repositories import Repositories

        console = self._console
        if console.site.names():
            console.push_screen(Repositories(console), self._look_at)
        else:
            console.tell("No repository is connected, c connects one.", "warning")

    def _look_at(self, name: str | None) -> None:
        if name:
            self._console.look_at(name)

    def act_connect(self) -> None:
        """Connect a repository to this host."""
        from tui.console.dialogs.connect import Connect

        self._console.push_screen(Connect(), self._look_at)

    def act_disconnect(self) -> None:
        """Ask, then forget the repository on this host."""
        from tui.console.dialogs.confirm import Ask

        console = self._console
        name = console.site.current
        if not name:
            console.tell("No repository is connected.")
            return
        site = console.site

        def call() -> None:
            with site.engine() as engine:
                engine.disconnect_storage_repository(name)

        def done(value: None) -> None:
            del value
            console.note(line("disconnect", repo=name))
            site.reload()
            console.go_home()

        def answered(yes: bool | None) -> None:
            if yes:
                console.do("disconnect", call, done, "The repository was not disconnected")

        told = [f"{name} is forgotten on this host. Nothing in it is changed; it can be connected again."]
        console.push_screen(Ask(f"Disconnect {name}", told, "D", "Disconnect"), answered)

    def act_deep_rescan(self) -> None:
        """Look again and read the data too."""
        self._console.rescan(deep=True)

    def act_stop_scan(self) -> None:
        """Give up the scan that is under way."""
        cancel = self._console.site.cancel
        if cancel is not None:
            cancel.cancel()

    def act_runbook(self) -> None:
        """Write the commands of this session."""
        console = self._console
        if not console.session_log.entries:
            console.tell("Nothing was done in this session that a command would repeat.")
            return
        self._save("session", "sh", console.session_log.script(console.site.host))

    def act_demo(self) -> None:
        """Create the demo repository and connect it."""
        from tui.console.control.demo import begin

        begin(self._console)

    def act_tours(self) -> None:
        """Take a guided tour."""
        from tui.console.control.tour import choose

        choose(self._console)

    def act_open_trace(self) -> None:
        """Open a trace and replay it."""
        from tui.console.dialogs.trace import OpenTrace

        def chosen(path: str | None) -> None:
            if path:
                self._console.open_trace(path)

        self._console.push_screen(OpenTrace(), chosen)

    # -- looks

    def act_theme(self) -> None:
        """The next palette; it is kept for the next start."""
        console = self._console
        if console.mono:
            console.tell("NO_COLOR is set: there is one look without colours.")
            return
        word = console.palette.title.split()[0]
        console.use_palette(palette.next_name(word))

    def act_messages(self) -> None:
        """The last messages, the newest first."""
        from tui.console.dialogs.message import Message

        console = self._console
        told = console.messages.listed()
        console.push_screen(Message("Messages of this session", told or ["Nothing was told yet."], columns=78))

    def act_help(self) -> None:
        """Tell all keys of this screen."""
        page = self._console.page_shown
        self._list(f"Keys of this screen ({page.tab})", [(page, act) for act in page.keys.acts if act.key])

    def act_commands(self) -> None:
        """Find an act by words, those of the other tabs too."""
        console = self._console
        here = console.page_shown
        found = [(here, act) for act in here.keys.acts]
        names = {act.name for _, act in found}
        for tab, _ in TABS if here.TABS and console.site.current else ():
            page = console.page(tab)
            found += [(page, act) for act in page.ACTS if act.name not in names and page is not here]
        self._list("What do you want to do?", found)

    def act_commands_again(self) -> None:
        """As ``commands``."""
        self.act_commands()

    def _list(self, title: str, acts: Sequence[tuple[Page, Act]]) -> None:
        console = self._console
        here = console.page_shown
        known = {f"{page.tab} {act.name}": (page, act) for page, act in acts if not act.name.endswith("_again")}

        def choices() -> list[Choice]:
            return [_choice(key, page, act, page is here) for key, (page, act) in known.items()]

        def chosen(key: str | None) -> None:
            if not key:
                return
            page, act = known[key]
            if page is here:
                page.press(act)
            else:
                console.show_page(page.tab)
                page.call_after_refresh(page.press, act)

        console.push_screen(Choose(title, choices, left=7), chosen)

    # -- taking things out

    def act_copy(self) -> None:
        """Copy something of what is under the cursor."""
        console = self._console
        items = console.page_shown.copies()
        if not items:
            console.tell("There is nothing under the cursor to copy.")
            return
        choices = [Choice(key, Span(key, "key"), f"{name}: {printable(text)}") for key, name, text in items]

        def chosen(key: str | None) -> None:
            for item, name, text in items:
                if item == key:
                    console.copy_to_clipboard(text)
                    console.tell(f"Copied {name}: {text}")

        console.push_screen(Choose("Copy", lambda: choices, left=3, search=False, hot=True), chosen)

    def act_export(self) -> None:
        """Write what is shown to a file."""
        choices = [Choice(key, Span(key, "key"), form) for key, form in EXPORT_FORMS]
        forms = dict(EXPORT_FORMS)

        def chosen(key: str | None) -> None:
            if key:
                self._write(forms[key])

        self._console.push_screen(
            Choose("Write what is shown as", lambda: choices, left=3, search=False, hot=True), chosen
        )

    def _write(self, form: str) -> None:
        console = self._console
        page = console.page_shown
        name = page.tab
        if form == "svg":
            text = console.export_screenshot()
        else:
            from tui.view.export import table

            heads, rows = page.table()
            text = table(heads, rows, form)
        self._save(name, form, text)

    def write_report(self, text: str) -> None:
        """Write the details of an error to a file."""
        self._save("error", "txt", text)

    def _save(self, name: str, form: str, text: str) -> None:
        from tui.view.export import file_name, write

        console = self._console
        if console.in_browser:
            console.deliver_text(io.StringIO(text), save_filename=file_name(name, form), mime_type="text/plain")
            console.tell(f"Downloaded: {file_name(name, form)}")
            return
        folder = user_directory("XDG_DATA_HOME", ".local/share") + "/exports"
        console.do(
            "export", lambda: write(folder, name, form, text),
            lambda path: console.tell(f"Written: {_at_home(path)}"), "The file could not be written",
        )  # fmt: skip

    # -- the end

    def act_quit(self) -> None:
        """End the console at once; what runs goes on, and that is said."""
        self._console.leave()


def _at_home(path: str) -> str:
    """As a shell takes it, and short enough for a line."""
    home = os.path.expanduser("~")
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path


def _choice(key: str, page: Page, act: Act, here: bool) -> Choice:
    where = "" if here else f" ({page.tab})"
    told: Cell = (Span(f"{act.label}{where}: ", "bold"), Span(act.sentence))
    off = page.reason(act) if here else ""
    return Choice(key, Span(shown_key(act.key), "key"), told, f"{act.words} {act.name}", off)
