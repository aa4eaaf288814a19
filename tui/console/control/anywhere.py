"""What can be done from every page: change the page, look again, connect, copy, export, help, quit.

``GLOBAL`` is the table of it; each act is given the page whose key was pressed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from engine.errors import Moved
from tui.console.acts import Act, KeyMap, shown_key
from tui.console.control import manager
from tui.console.control.navigation import go_home, look_at, open_trace, turn_lens
from tui.console.control.scanning import rescan
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw import palette
from tui.console.draw.lines import Cell, Span
from tui.console.shell import Copy, EndConsole, EndTour, NextTourStep, Recolour, Save, Shell, Where
from tui.console.widgets.headers import TABS
from tui.text.printable import printable
from tui.view.command_lines import line

_ACT_COLUMNS = 110
"""Every act with its sentence."""
EXPORT_FORMS = (("j", "json"), ("c", "csv"), ("t", "txt"), ("s", "svg"))


class ShownPage(Protocol):
    """What these acts need of the page that they are done on."""

    tab: str

    @property
    def TABS(self) -> bool:
        """Whether it is one of the tabs, or has them."""

    @property
    def shell(self) -> Shell:
        """The application."""

    @property
    def keys(self) -> KeyMap:
        """Which key does what there."""

    def reason(self, act: Act) -> str:
        """Why an act is not possible there now, "" when it is."""

    def press(self, act: Act) -> None:
        """Do an act, or tell why it is not possible now."""

    def copies(self) -> Sequence[tuple[str, str, str]]:
        """What can be copied: key, name, text."""

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        """What is exported: heads and rows."""

    def picture(self) -> str:
        """The screen as SVG."""

    def act_back(self) -> None:
        """Close what is open."""


# -- repositories


def choose_repository(page: ShownPage) -> None:
    """Choose another repository."""
    from tui.console.dialogs.repositories import Repositories

    shell = page.shell
    if shell.site.names():
        shell.open(Repositories(shell, lambda view: manager.manage(shell, view)), _looking_at(shell))
    else:
        shell.tell("No repository is connected, c connects one.", "warning")


def _looking_at(shell: Shell) -> Callable[[str | None], None]:
    return lambda name: look_at(shell, name) if name else None


def connect(page: ShownPage) -> None:
    """Connect a repository to this host, and look at it."""
    from tui.console.dialogs.connect import Connect

    page.shell.open(Connect(), _looking_at(page.shell))


def disconnect(page: ShownPage) -> None:
    """Ask, then forget the repository on this host."""
    from tui.console.dialogs.confirm import Ask

    shell, site, name = page.shell, page.shell.site, page.shell.site.current

    def call() -> None:
        with site.engine() as engine:
            engine.disconnect_storage_repository(name)

    def done(value: None) -> None:
        del value
        shell.session_log.add(site.clock(), line("disconnect", repo=name))
        site.reload()
        go_home(shell)

    def answered(yes: bool | None) -> None:
        if yes:
            shell.do("disconnect", call, done, "The repository was not disconnected")

    text = [f"{name} is forgotten on this host. Nothing in it is changed; it can be connected again."]
    shell.open(Ask(f"Disconnect {name}", text, "D", "Disconnect"), answered)


def accept_moved(page: ShownPage) -> None:
    """Say what differs, ask, then take what stands there from now on."""
    from tui.console.dialogs.confirm import Ask

    shell, site, name = page.shell, page.shell.site, page.shell.site.current

    def call() -> str:
        with site.engine() as engine:
            known = engine.list_repositories()[name]
            engine.connect_storage_repository(name, known.format, dict(known.parameters), accept_moved=True)
            words = shlex.join(f"{key}={value}" for key, value in known.parameters.items())
            return line("accept_moved", repo=name, format=known.format, parameters=words)

    def done(command: str) -> None:
        shell.session_log.add(site.clock(), command)
        shell.tell(f"What stands there is {name} from now on.")
        site.reload()
        rescan(shell)

    def answered(yes: bool | None) -> None:
        if yes:
            shell.do("accept moved", call, done, "The repository is refused as before")

    text = [f"{site.view.problem}.", "Take it only if it is the one to use from now on, on every host."]
    shell.open(Ask(f"Take what is there as {name}", text, "A", "Take it"), answered)


def stop_scan(page: ShownPage) -> None:
    """Give up the scan that is under way."""
    cancel = page.shell.site.cancel
    if cancel is not None:
        cancel.cancel()


# -- learning


def begin_demo(page: ShownPage) -> None:
    """Create the demo repository and connect it."""
    from tui.console.control.demo import begin

    begin(page.shell)


def choose_tour(page: ShownPage) -> None:
    """Take a guided tour."""
    from tui.console.control.tour import choose

    choose(page.shell)


def choose_trace(page: ShownPage) -> None:
    """Ask for a trace and replay it."""
    from tui.console.dialogs.trace import OpenTrace

    shell = page.shell
    shell.open(OpenTrace(), lambda path: open_trace(shell, path) if path else None)


# -- looks


def turn_lens_on(page: ShownPage) -> None:
    """Show every page as it will be after the plan, or as it is; the plan itself is left for the images."""
    if page.tab == "plan":
        page.shell.show(Where("images"))
    turn_lens(page.shell)


def next_theme(page: ShownPage) -> None:
    """Change to the next palette; it is kept for the next start."""
    shell = page.shell
    if shell.palette is palette.MONO:
        shell.tell("NO_COLOR is set: there is one look without colours.")
        return
    shell.post_message(Recolour(palette.next_name(shell.palette.title.split()[0])))


def list_messages(page: ShownPage) -> None:
    """Show the last messages, the newest first."""
    from tui.console.dialogs.notice import Notice

    kept = page.shell.messages.listed()
    page.shell.open(Notice("Messages of this session", kept or ["Nothing was told yet."], columns=78))


# -- keys by words


def list_keys(page: ShownPage) -> None:
    """Tell all keys of this screen."""
    _choose_act(page, f"Keys of this screen ({page.tab})", {"": [act for act in page.keys.acts if act.key]})


def list_acts(page: ShownPage) -> None:
    """Find an act by words, those of the other tabs too."""
    shell, here = page.shell, page.keys.acts
    found: dict[str, Sequence[Act]] = {"": here}
    names = {act.name for act in here}
    if page.TABS and shell.site.current:
        tabs = {tab for tab, _ in TABS}
        for tab, acts in shell.page_acts().items():
            if tab in tabs and tab != page.tab:
                others = KeyMap(acts, shell.config.keys).acts
                found[tab] = [act for act in others if act.name not in names]
    _choose_act(page, "What do you want to do?", found, possible_first=True)


def _choose_act(page: ShownPage, title: str, acts: Mapping[str, Sequence[Act]], possible_first: bool = False) -> None:
    """``acts`` by tab, "" for this page."""
    known = {
        f"{tab} {act.name}": (tab, act) for tab, some in acts.items() for act in some if not act.name.endswith("_again")
    }

    def choices() -> list[Choice]:
        found = [_choice(key, page, act, tab) for key, (tab, act) in known.items()]
        return sorted(found, key=lambda choice: bool(choice.off)) if possible_first else found

    def chosen(key: str | None) -> None:
        if not key:
            return
        tab, act = known[key]
        if tab:
            page.shell.show(Where(tab, act=act.name))
        else:
            page.press(act)

    page.shell.open(Choose(title, choices, left=7, columns=_ACT_COLUMNS), chosen)


def _choice(key: str, page: ShownPage, act: Act, tab: str) -> Choice:
    where = f" ({tab})" if tab else ""
    text: Cell = (Span(f"{act.label}{where}: ", "bold"), Span(act.sentence))
    off = "" if tab else page.reason(act)
    return Choice(key, Span(shown_key(act.key), "key"), text, f"{act.words} {act.name}", off)


# -- taking things out


def copy(page: ShownPage) -> None:
    """Copy something of what is under the cursor."""
    shell, items = page.shell, page.copies()
    if not items:
        shell.tell("There is nothing under the cursor to copy.")
        return
    choices = [Choice(key, Span(key, "key"), f"{name}: {printable(text)}") for key, name, text in items]

    def chosen(key: str | None) -> None:
        for item, name, text in items:
            if item == key:
                shell.post_message(Copy(text, name))

    shell.open(Choose("Copy", lambda: choices, left=3, search=False, hot=True), chosen)


def export(page: ShownPage) -> None:
    """Write what is shown to a file."""
    choices = [Choice(key, Span(key, "key"), form) for key, form in EXPORT_FORMS]
    forms = dict(EXPORT_FORMS)

    def chosen(key: str | None) -> None:
        if key:
            page.shell.post_message(Save(page.tab, forms[key], _text(page, forms[key])))

    page.shell.open(Choose("Write what is shown as", lambda: choices, left=3, search=False, hot=True), chosen)


def _text(page: ShownPage, form: str) -> str:
    from tui.view.export import table

    return page.picture() if form == "svg" else table(*page.table(), form)


def export_session(page: ShownPage) -> None:
    """Write the commands of this session as a script."""
    shell = page.shell
    shell.post_message(Save("session", "sh", shell.session_log.script(shell.site.host)))


# -- the table


def why_not_anywhere(shell: Shell, act: Act) -> str:
    """Return why an act of this table is not possible now, "" when it is."""
    site = shell.site
    if act.name in ("tour_next", "tour_end") and shell.messages.caption is None:
        return "no tour is played, t begins one"
    if act.name == "stop_scan" and not shell.jobs.busy(f"scan {site.current}"):
        return "no scan is under way"
    if act.name == "accept_moved" and site.view.problem_code != Moved.code:
        return "the repository is the one that was connected"
    if act.name == "disconnect" and not site.current:
        return "no repository is connected, c connects one"
    if act.name == "runbook" and not shell.session_log.entries:
        return "nothing was done in this session that a command would repeat"
    return ""


def _to(tab: str) -> Callable[[Any], None]:
    return lambda page: page.shell.show(Where(tab))


def _rescan(page: ShownPage) -> None:
    rescan(page.shell, asked=True)


def _rescan_deeply(page: ShownPage) -> None:
    rescan(page.shell, asked=True, deep=True)


def _manage(page: ShownPage) -> None:
    manager.manage(page.shell, page.shell.site.view)


def _audit(page: ShownPage) -> None:
    page.shell.show(Where("audit", act="choose_places"))


def _machines(page: ShownPage) -> None:
    page.shell.show(Where("machines"))


def _next_tour_step(page: ShownPage) -> None:
    page.shell.post_message(NextTourStep())


def _end_tour(page: ShownPage) -> None:
    page.shell.post_message(EndTour())


def _leave(page: ShownPage) -> None:
    page.shell.post_message(EndConsole())


def _back(page: ShownPage) -> None:
    page.act_back()


GLOBAL: tuple[Act, ...] = (
    Act("tab_triage", "1", "Triage", "Show what can be fixed, the most urgent first.", _to("triage"), "home fixes",
        footer=False),
    Act("tab_images", "2", "Images", "Show all images of the repository.", _to("images"), "disks snapshots list",
        footer=False),
    Act("tab_runs", "3", "Runs", "Show what runs here and on other hosts.", _to("runs"), "progress log tasks",
        footer=False),
    Act("tab_timeline", "4", "Timeline", "Show what happened, step by step.", _to("timeline"), "journal history",
        footer=False),
    Act("machines", "5", "Machines", "Show what is prepared on this host, and which machines run.", _machines,
        "running qemu libvirt holder monitor prepared live vm", footer=False),
    Act("repositories", "0", "Repos", "Choose another repository.", choose_repository, "switch storage pool",
        footer=False),
    Act("rescan", "R", "Rescan", "Look at the repository again.", _rescan, "refresh reload check scan", footer=False),
    Act("rescan_again", "f5", "Rescan", "Look at the repository again.", _rescan, "refresh", footer=False),
    Act("connect", "c", "Connect", "Connect a repository to this host.", connect, "add storage nfs lvm localfs",
        footer=False),
    Act("audit", "I", "Audit", "Look at image files that are in no repository. Changes nothing.", _audit,
        "adopt libvirt proxmox ovirt orphans pool directory inherited", footer=False),
    Act("copy", "y", "Copy", "Copy an id, a command, the reason or the row.", copy, "clipboard yank", footer=False),
    Act("export", "e", "Export", "Write what is shown to a file.", export, "save json csv txt svg report",
        footer=False),
    Act("lens", "L", "Lens", "Show every page as it will be after the plan, or as it is.", turn_lens_on,
        "preview future after", footer=False),
    Act("messages", "M", "Messages", "Show the last messages with their times.", list_messages,
        "notes warnings errors told", footer=False),
    Act("theme", "T", "Theme", "Change the colours: dark, light, high contrast, terminal.", next_theme, "color",
        footer=False),
    Act("tours", "t", "Tours", "Take a guided tour, in a repository of its own.", choose_tour, "learn training demo",
        footer=False),
    Act("open_trace", "", "Open trace", "Open a simulation trace and replay it.", choose_trace, "replay simulation",
        footer=False),
    Act("demo", "", "Demo", "Create the demo repository and connect it.", begin_demo, "training practice",
        footer=False),
    Act("disconnect", "D", "Disconnect", "Forget the repository on this host; it stays as it is.", disconnect,
        "remove storage", changes=True, footer=False),
    Act("accept_moved", "A", "Take moved", "Take a repository that is not the one that was connected. Asks first.",
        accept_moved, "replaced restored clone", changes=True, footer=False),
    Act("manager", "", "SRM", "Become the manager (SRM) of the repository, or give the role up. Asks first.", _manage,
        "take release fence", changes=True),
    Act("deep_rescan", "", "Deep rescan", "Look at the repository and read its data too: slow.", _rescan_deeply,
        "check digest verify"),
    Act("stop_scan", "", "Stop scan", "Give up the scan that is under way.", stop_scan, "cancel"),
    Act("runbook", "", "Runbook", "Write what was done in this session as a script.", export_session,
        "export history commands"),
    Act("help", "question_mark", "Help", "Tell all keys of this screen.", list_keys, "keys"),
    Act("commands", "colon", "Cmd", "Find an act by words.", list_acts, "palette search command"),
    Act("commands_again", "ctrl+p", "Cmd", "Find an act by words.", list_acts, footer=False),
    Act("quit", "q", "Quit", "End the console. What runs goes on.", _leave, "exit close"),
    Act("tour_next", "ctrl+n", "Next", "Go on to the next step of the tour.", _next_tour_step, footer=False),
    Act("tour_end", "ctrl+t", "End tour", "End the tour; everything stays as it is.", _end_tour, footer=False),
    Act("back", "escape", "Back", "Close what is open, clear the filter or the range.", _back, footer=False),
)  # fmt: skip
