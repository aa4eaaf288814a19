"""Preparing images, and what is done about the machines that have them open. The verbs are the engine's, called beside
the console; none of them touches a machine that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.data import monitors
from engine.errors import BadRequest
from engine.host.state import Prepared
from tui.cli.arguments import parse_rate
from tui.console.control.scanning import rescan
from tui.console.dialogs.confirm import Ask
from tui.console.dialogs.fields import Form, FormField
from tui.console.dialogs.notice import Notice
from tui.console.draw.lines import Cell, Span
from tui.console.shell import Shell
from tui.text.printable import printable
from tui.view.command_lines import line
from tui.view.images import ImageRow
from tui.view.machines import MachineRow, MachineState, asked, of_use

Deed = Callable[[Shell, MachineRow, Callable[[], None]], None]
"""What is done about a machine; the last argument is called when it is done."""

ACTS = frozenset(("ask_machine", "attach", "take_over_machine", "limit", "teardown"))
_MONITOR = "qmp:/run/web.qmp, or libvirt:qemu:///system/DOMAIN"


def why_not(shell: Shell, act: str, row: MachineRow | None) -> str:
    """Return why one of these acts is not possible now, "" when it is; the engine knows more."""
    if row is None:
        return "no image is prepared here"
    if not row.repository:
        return "its repository is not connected here, c connects it"
    if act == "ask_machine" and shell.site.replay is not None:
        return "a trace has no machine that could be asked"
    return _WHY_NOT[act](row) if act in _WHY_NOT else ""


def _why_not_take_over(row: MachineRow) -> str:
    if row.held:
        return f"its holder lives, process {row.holder}"
    return "nobody has it open, x tears it down" if row.state is MachineState.LEFT else ""


_WHY_NOT: dict[str, Callable[[MachineRow], str]] = {
    "ask_machine": lambda row: "" if row.monitor else "nobody has told how to speak to it, m does",
    "attach": lambda row: "" if row.writable else "it is prepared for reading, and a monitor is for what writes",
    "take_over_machine": _why_not_take_over,
    "limit": lambda row: "" if row.work else "nothing works on it",
}


def prepare(shell: Shell, row: ImageRow) -> None:
    """Ask for monitor and way, then prepare an image of the repository that is looked at, and tell its path."""
    site, repo = shell.site, shell.site.current
    disk = row.kind == "disk"
    asked_for = (FormField("monitor", f"none, or {_MONITOR}"),) if disk else ()
    fields = (*asked_for, FormField("read-only", "yes: for reading alone", "" if disk else "yes"))

    def attempt(values: Mapping[str, str]) -> Prepared:
        read_only = values["read-only"].lower() in ("y", "yes")
        if monitor := values.get("monitor", ""):
            monitors.parse(monitor)
        with site.engine() as engine:
            return engine.prepare_image(repo, row.id, not read_only, monitor=monitor)

    def done(entry: Prepared) -> None:
        command = line("prepare", repo=repo, image=row.id, monitor=entry.monitor, read_only=_yes(not entry.writable))
        shell.session_log.add(site.clock(), command)
        path, format = printable(entry.given), printable(entry.format)
        shell.open(Notice(f"{row.label} is prepared", [
            Span(path, "bold"), f"Format {format}. It is the path for a machine, until a teardown or a boot.",
            "5 lists the machines of this host; x there tears it down.",
        ]))  # fmt: skip
        rescan(shell)

    text = "A process of its own keeps its lease until it is torn down, whoever dies."
    shell.open(Form(f"Prepare {row.label}", [text], fields, "Prepare", attempt, done))


def _yes(whether: bool) -> str:
    return "yes" if whether else ""


def attach(shell: Shell, row: MachineRow, then: Callable[[], None]) -> None:
    """Ask how to speak to the machine of a prepared disk, and note that if it is the one that has it open."""
    site = shell.site

    def attempt(values: Mapping[str, str]) -> Prepared:
        if not values["monitor"]:
            raise BadRequest("no monitor was given", f"Write {_MONITOR}")
        with site.engine() as engine:
            return engine.attach_monitor(row.repository, row.image, values["monitor"])

    def done(entry: Prepared) -> None:
        shell.session_log.add(site.clock(), line("attach", repo=row.repository, image=row.image, monitor=entry.monitor))
        shell.tell(f"{printable(entry.monitor)} has {row.label} open: it is worked on while it runs from now on.")
        then()

    text = "The machine is asked at once whether it has this disk open. Nobody else may use that monitor, if it is QMP."
    fields = (FormField("monitor", _MONITOR, row.monitor),)
    shell.open(Form(f"Monitor of {row.label}", [text], fields, "Attach", attempt, done))


def take_over(shell: Shell, row: MachineRow, then: Callable[[], None]) -> None:
    """Show who uses it and that its holder is dead, ask, then put a new holder beside the machine."""
    site = shell.site

    def call() -> Prepared:
        with site.engine() as engine:
            return engine.prepare_image(row.repository, row.image, row.writable, take_over=True)

    def done(entry: Prepared) -> None:
        read_only = _yes(not row.writable)
        command = line("prepare", repo=row.repository, image=row.image, take_over="yes", read_only=read_only)
        shell.session_log.add(site.clock(), command)
        shell.tell(f"{row.label} has a new holder, process {entry.process.pid}; the machine was not touched.")
        then()

    def answered(yes: bool | None) -> None:
        if yes:
            shell.do("take over machine", call, done, f"{row.label} was not taken over")

    lines: list[Cell] = [text for _, text in of_use(row)]
    shell.open(Ask(f"Take {row.label} over", lines, "a", "Take over"), answered)


def teardown(shell: Shell, row: MachineRow, then: Callable[[], None]) -> None:
    """Ask, then undo a prepare."""
    site = shell.site
    path = "" if row.writable else row.key

    def call() -> None:
        with site.engine() as engine:
            engine.teardown_image(row.repository, row.image, path)

    def done(value: None) -> None:
        del value
        shell.session_log.add(site.clock(), line("teardown", repo=row.repository, image=row.image, path=path))
        shell.tell(f"{row.label} is torn down; its path is gone.")
        then()
        rescan(shell)

    def answered(yes: bool | None) -> None:
        if yes:
            shell.do("teardown", call, done, f"{row.label} stays prepared")

    lines = [f"{row.path} is gone then; it can be prepared again.", "While a process has it open it is refused."]
    shell.open(Ask(f"Tear {row.label} down", lines, "x", "Tear down"), answered)


def limit(shell: Shell, row: MachineRow, then: Callable[[], None]) -> None:
    """Ask how much what works on a prepared image may move in a second."""
    ask_rate(shell, row.repository, row.worked_on, row.label, then)


def ask_rate(shell: Shell, repo: str, image: str, label: str, then: Callable[[], None]) -> None:
    """Ask how much the work on an image may move in a second, and have it do so."""
    site = shell.site

    def attempt(values: Mapping[str, str]) -> tuple[str, int]:
        rate = parse_rate(values["rate"])
        with site.engine() as engine:
            engine.limit_task(repo, image, rate)
        return values["rate"], rate

    def done(found: tuple[str, int]) -> None:
        typed, rate = found
        shell.session_log.add(site.clock(), line("rate", repo=repo, image=image, rate=typed))
        text = f"moves {printable(typed)} in a second at most" if rate else "moves as fast as it goes"
        shell.tell(f"What works on {label} {text}; it looks about once a second.")
        then()

    fields = (FormField("rate", "so much in a second at most, as 50M; off for no limit"),)
    text = "It holds for what runs now. A running machine that merges is told too."
    shell.open(Form(f"Rate of what works on {label}", [text], fields, "Set it", attempt, done))


def ask(shell: Shell, row: MachineRow, then: Callable[[], None]) -> None:
    """Ask the machine what it has open and does, and show it."""
    del then

    def call() -> list[str]:
        with shell.site.engine() as engine:
            return asked(engine, row)

    def done(lines: list[str]) -> None:
        shell.open(Notice(f"{row.label}: what {row.monitor} says", lines, columns=78))

    shell.do(
        "ask machine", call, done, "The machine does not tell", f"Asking {row.monitor}; up to 2 min if it is silent."
    )
