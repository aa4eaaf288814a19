"""Controllers work with any shell: here one without an application, a screen or an event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Queue
from typing import Any, cast

import pytest
from textual.message import Message
from textual.screen import Screen

from engine.errors import StorageError
from tests.console.kit import FixedSite, sample_view
from tui.console.acts import Act
from tui.console.control.decisions import decide
from tui.console.control.navigation import go_home
from tui.console.control.scanning import rescan
from tui.console.draw.palette import DARK, Palette
from tui.console.draw.signs import Signs
from tui.console.jobs import JobDone, Jobs
from tui.console.messages import Messages
from tui.console.shell import Shell, Where
from tui.console.site import Site
from tui.console.terminal.keyboard import Keyboard
from tui.view.command_lines import SessionLog
from tui.view.snapshot import RepositoryView
from tui.work.config import Config
from tui.work.scanner import Cancelled


class BareShell:
    """Remembers what it is asked for; ``finish`` waits for a call and gives its result to whoever asked."""

    def __init__(self, site: FixedSite) -> None:
        self.site: Site = site
        self.config, self.session_log = Config(), SessionLog()
        self.signs, self.messages = Signs(), Messages()
        self.palette: Palette = DARK
        self.done: Queue[JobDone] = Queue()
        self.jobs = Jobs(lambda message: self.done.put(cast(JobDone, message)))
        self.keyboard = Keyboard(lambda: None, self.jobs, self.messages, site.clock)
        self.told: list[str] = []
        self.failures: list[BaseException] = []
        self.shown: list[Where] = []

    def finish(self) -> None:
        message = self.done.get(timeout=60)
        message.finish(message.value, message.error)

    def tell(self, text: str, severity: str = "information") -> None:
        self.told.append(text)

    def failed(self, what: str, error: BaseException) -> None:
        self.failures.append(error)

    def do(self, name: str, call: Callable[[], Any], done: Callable[[Any], None], what: str, message: str = "") -> None:
        done(call())

    def open(self, dialog: Screen[Any], answered: Callable[[Any], None] | None = None) -> None:
        raise AssertionError("nothing is asked here")

    def show(self, where: Where) -> None:
        self.shown.append(where)

    def page_acts(self) -> Mapping[str, Sequence[Act]]:
        return {}

    def refresh_pages(self) -> None:
        pass

    def post_message(self, message: Message) -> bool:
        return True


@pytest.fixture
def site(tmp_path: Path) -> FixedSite:
    site = FixedSite(tmp_path / "state", [sample_view()])
    site.reload()
    return site


@pytest.mark.parametrize("error", [Cancelled(), StorageError("the storage is away")], ids=["given-up", "failed"])
def test_a_scan_that_was_given_up_is_no_failure(
    error: Exception, site: FixedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gave it up knows; any other error is told, and nothing is kept of either."""

    def scan(name: str, deep: bool = False) -> RepositoryView:
        raise error

    monkeypatch.setattr(site, "scan", scan)
    shell = BareShell(site)
    rescan(shell)
    shell.finish()
    assert shell.failures == ([] if isinstance(error, Cancelled) else [error])
    assert not site.views


def test_only_who_asked_for_a_scan_is_told_that_one_is_under_way(site: FixedSite) -> None:
    """The tick of the clock asks silently."""
    shell = BareShell(site)
    for asked in (False, False, True):
        rescan(shell, asked)
    assert shell.told == ["A scan is under way."]
    shell.finish()
    assert list(site.views) == ["pool-nfs"]


def test_a_decision_is_on_disk_when_it_is_shown(site: FixedSite) -> None:
    """What another console of this host reads then has it."""
    shell = BareShell(site)
    fixes = site.actual_view.fixes or sample_view().fixes
    decide(shell, lambda store: store.queue(fixes[:1]))
    shell.finish()
    store = site.decision_store
    assert store is not None and [item.key for item in store.now().queue] == [fixes[0].key]


def test_home_is_triage_or_the_ways_to_begin(site: FixedSite, tmp_path: Path) -> None:
    """Where nothing is connected there is nothing to fix."""
    empty = FixedSite(tmp_path / "other")
    empty.reload()
    for where, expected in ((site, "triage"), (empty, "first_run")):
        shell = BareShell(where)
        go_home(shell)
        assert shell.shown == [Where(expected)]


def test_the_bare_shell_is_a_shell(site: FixedSite) -> None:
    """It has what the protocol has and nothing of an application, so none of it is used behind its back."""
    public = {name for name in (*vars(Shell), *Shell.__annotations__) if not name.startswith("_")}
    assert public <= {*dir(BareShell), *vars(BareShell(site))}
    assert len(public) <= 16, "a shell that can do everything is an application again"
