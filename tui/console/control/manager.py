"""The manager (SRM) of a repository that needs one: taking the role and giving it up, never without asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tui.console.control.scanning import rescan
from tui.console.dialogs.confirm import Ask, Confirm
from tui.console.shell import Shell
from tui.text.printable import printable
from tui.view.command_lines import line
from tui.view.snapshot import RepositoryView

if TYPE_CHECKING:
    from engine.api import Engine


def manage(shell: Shell, view: RepositoryView) -> None:
    """Ask, then become the manager of a repository, or stop being it. Who manages it is asked now, also where it was
    not looked at."""
    site, name = shell.site, view.name
    if why := site.why_no_manager(view):
        shell.tell(f"SRM: {why}.", "warning")
        return

    def call() -> str:
        with site.engine() as engine:
            return engine.get_srm(name)

    shell.do("srm", call, lambda found: _ask(shell, view._replace(srm=printable(found))), "The manager is not known")


def _ask(shell: Shell, view: RepositoryView) -> None:
    if view.srm == view.host:
        lines = [f"{view.host} (this host) manages {view.name}.", "Without a manager nobody can change it."]
        shell.open(Ask(f"Give up the SRM of {view.name}", lines, "U", "Give it up"), _if_yes(shell, view, ""))
    elif not view.srm:
        lines = [f"Nobody known manages {view.name}.", f"{view.host} (this host) becomes its manager (SRM)."]
        shell.open(Ask(f"Manage {view.name}", lines, "M", "Take the SRM"), _if_yes(shell, view, ""))
    else:
        _ask_whether_dead(shell, view)


def _ask_whether_dead(shell: Shell, view: RepositoryView) -> None:
    lines = [
        f"{view.srm} manages {view.name}. While it lives, release the role there: diskwright srm release.",
        f"If {view.srm} is dead for certain (powered off or fenced), this host can take its place.",
        "If it still runs, both write at the same time, and images are destroyed. Fence it first.",
    ]
    shell.open(
        Confirm(f"Is {view.srm} dead?", lines, view.srm, "say that it is dead for certain"),
        _if_yes(shell, view, view.srm),
    )


def _if_yes(shell: Shell, view: RepositoryView, dead: str) -> Callable[[bool | None], None]:
    return lambda yes: _change(shell, view, dead) if yes else None


def _change(shell: Shell, view: RepositoryView, dead: str) -> None:
    site, name, release = shell.site, view.name, view.srm == view.host

    def change(engine: Engine) -> None:
        if release:
            engine.release_srm(name)
        else:
            engine.take_srm(name, dead)

    def call() -> None:
        with site.engine() as engine:
            change(engine)

    def done(value: Any) -> None:
        del value
        act = "release_srm" if release else "take_srm"
        shell.session_log.add(site.clock(), line(act, repo=name, dead=dead))
        shell.tell(f"Nobody manages {name} now." if release else f"{view.host} (this host) manages {name} now.")
        rescan(shell)

    shell.do("srm", call, done, "The manager is as it was")
