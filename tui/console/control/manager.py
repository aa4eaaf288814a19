"""The manager (SRM) of a repository that needs one: taking the role and giving it up, never without asking."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from tui.console.dialogs.confirm import Ask, Confirm
from tui.text.printable import printable
from tui.view.command_lines import line
from tui.view.snapshot import RepositoryView

if TYPE_CHECKING:
    from engine.api import Engine
    from tui.console.app import ConsoleApp


class ManagerActs:
    """Methods of the application."""

    @property
    def _managing(self) -> ConsoleApp:
        return cast("ConsoleApp", self)

    def why_no_manager(self, view: RepositoryView) -> str:
        """Why the role cannot change hands here now, "" when it can."""
        if locked := self._managing.why_locked():
            return locked
        return f"{view.name} needs no manager: every host may do everything there" if view.srm == "-" else ""

    def act_manager(self) -> None:
        """Ask, then become the manager of the repository that is looked at, or stop being it."""
        self.manage(self._managing.site.view)

    def manage(self, view: RepositoryView) -> None:
        """As ``act_manager`` for any repository. Who manages it is asked now, also where it was not looked at."""
        app, name = self._managing, view.name
        site = app.site
        if why := self.why_no_manager(view):
            app.tell(f"SRM: {why}.", "warning")
            return

        def call() -> str:
            with site.engine() as engine:
                return engine.get_srm(name)

        app.do("srm", call, lambda found: self._ask(view._replace(srm=printable(found))), "The manager is not known")

    def _ask(self, view: RepositoryView) -> None:
        app = self._managing
        if view.srm == view.host:
            told = [f"{view.host} (this host) manages {view.name}.", "Without a manager nobody can change it."]
            app.push_screen(Ask(f"Give up the SRM of {view.name}", told, "U", "Give it up"), self._if_yes(view, ""))
        elif not view.srm:
            told = [f"Nobody known manages {view.name}.", f"{view.host} (this host) becomes its manager (SRM)."]
            app.push_screen(Ask(f"Manage {view.name}", told, "M", "Take the SRM"), self._if_yes(view, ""))
        else:
            self._ask_whether_dead(view)

    def _ask_whether_dead(self, view: RepositoryView) -> None:
        told = [
            f"{view.srm} manages {view.name}. While it lives, release the role there: diskwright srm release.",
            f"If {view.srm} is dead for certain (powered off or fenced), this host can take its place.",
            "If it still runs, both write at the same time, and images are destroyed. Fence it first.",
        ]
        self._managing.push_screen(
            Confirm(f"Is {view.srm} dead?", told, view.srm, "say that it is dead for certain"),
            self._if_yes(view, view.srm),
        )

    def _if_yes(self, view: RepositoryView, dead: str) -> Callable[[bool | None], None]:
        return lambda yes: self._change(view, dead) if yes else None

    def _change(self, view: RepositoryView, dead: str) -> None:
        app, name, release = self._managing, view.name, view.srm == view.host
        site = app.site

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
            app.note(line(act, repo=name, dead=dead))
            app.tell(f"Nobody manages {name} now." if release else f"{view.host} (this host) manages {name} now.")
            app.rescan(told=False)

        app.do("srm", call, done, "The manager is as it was")
