"""The page of machines: what is prepared on this host in one list, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.doors.processes import ProcessIdentity
from engine.errors import Refused, StorageError
from engine.host.state import Prepared
from tests.console.kit import (
    NOW,
    FixedSite,
    console,
    golden,
    ident,
    press,
    run_step,
    running,
    sample_run,
    sample_view,
    screen_text,
    told,
)
from tui.console.control import machines as control
from tui.text.words import RunState
from tui.view.machines import MachineRow, MachineState, UserRow

BOTH = ((80, 24), (160, 50))
QEMU = "/usr/bin/qemu-system-x86_64 -name guest=web-01 -m 2048"


def machine(number: int, name: str, state: MachineState, **more: Any) -> MachineRow:
    path = f"/run/diskwright/disks/pool-nfs/{name}/disk"
    users = (UserRow(4000 + number, QEMU, True),) if state in (MachineState.RUNS, MachineState.UNHELD) else ()
    held = state not in (MachineState.UNHELD, MachineState.LEFT)
    fields = {"repository": "pool-nfs", "monitor": f"qmp:/run/{name}.qmp", "users": users, **more}
    return MachineRow(
        key=path, image=ident(number), name=name, writable=True, format="qcow2", path=path,
        since=NOW - 7200.0 * number**2, holder=5000 + number, held=held, state=state, **fields,
    )  # fmt: skip


BELOW = ((ident(5), "base-f38"), (ident(6), "web-monday"))
ROWS = (
    machine(1, "web-db", MachineState.RUNS, below=BELOW, work="merge 41 %, 50.0M/s at most, process 6001",
            worked_on=ident(5)),
    machine(2, "mail-spool", MachineState.UNHELD, below=BELOW[:1]),
    machine(3, "erp-data", MachineState.READY, monitor=""),
    machine(11, "web-01", MachineState.RUNS, monitor=""),
    machine(7, "bad\x1b[2J", MachineState.LEFT, repository="pool-2"),
)  # fmt: skip
WAITING = ROWS[0]._replace(waits=("optimize web-db (O-FLAT)", "clean base-f38 (C-HIDDEN)"))


class HostEngine:
    """What the page calls of an engine."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def _called(self, *what: Any) -> None:
        self.calls.append(what)
        if self.error is not None:
            raise self.error

    def prepare_image(
        self, repo: str, image: str, writable: bool = True, take_over: bool = False, monitor: str = ""
    ) -> Prepared:
        self._called("prepare", repo, image, writable, take_over, monitor)
        return Prepared("5" * 32, image, ProcessIdentity("boot", 77, 1), "/run/x/disk", "qcow2", writable, monitor)

    def attach_monitor(self, repo: str, image: str, monitor: str) -> Prepared:
        self._called("attach", repo, image, monitor)
        return Prepared("5" * 32, image, ProcessIdentity("boot", 77, 1), "/run/x/disk", "qcow2", True, monitor)

    def teardown_image(self, repo: str, image: str, path: str = "") -> None:
        self._called("teardown", repo, image, path)

    def get_user_data(self, repo: str, image: str) -> dict[str, str]:
        return {"name": "web-db"}

    def create_snapshot(self, repo: str, image: str, user_data: Any, options: dict[str, bool]) -> str:
        self._called("snapshot", repo, image, options)
        raise Refused("its agent does not answer", "Look")

    def limit_task(self, repo: str, image: str, rate: int) -> None:
        self._called("rate", repo, image, rate)


class MachineSite(FixedSite):
    """A host with these machines."""

    def __init__(self, state: Path, rows: Sequence[MachineRow] = ROWS, **more: Any) -> None:
        view = sample_view(machines=(WAITING,))
        super().__init__(state, [view, sample_view("pool-2")], **more)
        self.found, self.looks = tuple(rows), 0
        self.host_engine = HostEngine()
        self.asking = False
        self.silent = ""

    def machines(self) -> tuple[MachineRow, ...]:
        self.looks += 1
        return tuple(
            row._replace(name="", state=MachineState.UNKNOWN, users=(), below=(), work="", worked_on="")
            for row in self.found
        )

    def machines_of(self, repo: str, rows: Sequence[MachineRow]) -> tuple[MachineRow, ...]:
        if repo == self.silent:
            raise StorageError("it does not answer", "")
        return tuple(row for row in self.found if row.repository == repo)

    @contextmanager
    def engine(self) -> Any:
        with super().engine() as engine:
            yield self.host_engine if getattr(self, "asking", False) else engine


@pytest.mark.parametrize("size", BOTH, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_all_machines_of_the_host_are_in_one_list(size: tuple[int, int], tmp_path: Path) -> None:
    """What needs somebody first, of every repository; of the one under the cursor everything that is known."""
    async with running(console(MachineSite(tmp_path / "state")), size) as pilot:
        await press(pilot, "5", "down", "down", "down")
        text = screen_text(pilot.app)
    assert "\x1b" not in text
    golden(f"machines-{size[0]}x{size[1]}", text)


async def test_the_list_opens_once_and_goes_to_the_image(tmp_path: Path) -> None:
    """5 shows the one that is open, also from a page above it; enter shows the image, in its repository."""
    site = MachineSite(tmp_path / "state")
    async with running(console(site)) as pilot:
        deep = len(pilot.app.screen_stack)
        await press(pilot, "5", "5", "I", "escape", "5", "I", "escape", "I")
        assert len(pilot.app.screen_stack) <= deep + 3
        await press(pilot, "escape", "5", "enter")
        assert told(pilot.app) == "" and site.current == "pool-nfs"
        assert pilot.app.page_shown.tab == "images"


async def test_a_repository_that_does_not_answer_hides_no_machine(tmp_path: Path) -> None:
    """Its machines are there as they were noted, those of the others as they are."""
    site = MachineSite(tmp_path / "state")
    site.silent = "pool-nfs"
    async with running(console(site), (160, 50)) as pilot:
        await press(pilot, "5")
        text = screen_text(pilot.app)
        assert "pool-nfs: it does not answer" in text and "left over" in text and text.count("unknown") >= 4


async def test_acts_ask_before_and_tell_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take over, attach, rate, tear down, ask: each by its key, with the command that does the same in the runbook."""
    site = MachineSite(tmp_path / "state")
    monkeypatch.setattr(control, "asked", lambda engine, row: [f"{row.monitor} says nothing"])
    async with running(console(site)) as pilot:
        await press(pilot, "5")
        site.asking = True
        await press(pilot, "a")
        assert "is dead" in screen_text(pilot.app)
        await press(pilot, "a")
        assert "mail-spool has a new holder, process 77" in told(pilot.app)
        await press(pilot, "a", "escape", "x", "x")
        assert "mail-spool is torn down" in told(pilot.app)
        await press(pilot, "end", "b")
        assert "nothing works on it" in told(pilot.app)
        await press(pilot, "m", *"qmp:/run/db", "enter")
        assert "qmp:/run/db has erp-data open" in told(pilot.app)
        await go_to(pilot, "web-db")
        await press(pilot, "b", *"20M", "enter")
        assert "What works on web-db moves 20M in a second at most" in told(pilot.app)
        await press(pilot, "w")
        assert "qmp:/run/web-db.qmp says nothing" in screen_text(pilot.app)
        await press(pilot, "escape", "a")
        assert "its holder lives, process 5001" in told(pilot.app)
    called = [call[0] for call in site.host_engine.calls]
    assert called == ["prepare", "teardown", "attach", "rate"]
    assert site.host_engine.calls[0] == ("prepare", "pool-nfs", ident(2), True, True, "")
    assert site.host_engine.calls[3] == ("rate", "pool-nfs", ident(5), 20 << 20)
    commands = [entry.command for entry in pilot.app.session_log.entries]
    assert commands[0] == f"diskwright prepare pool-nfs {ident(2)} --take-over"
    assert commands[1] == f"diskwright teardown pool-nfs {ident(2)}"
    assert commands[3] == f"diskwright rate pool-nfs {ident(5)} 20M"


async def go_to(pilot: Any, name: str) -> None:
    """Put the cursor on the machine of that name."""
    await press(pilot, "home")
    for _ in ROWS:
        if pilot.app.page_shown.row().name == name:
            return
        await press(pilot, "down")
    raise AssertionError(f"no {name}")


async def test_an_image_is_prepared_by_a_form(tmp_path: Path) -> None:
    """With a monitor or without; a monitor that is none stays in the form; one that is prepared is told so."""
    site = MachineSite(tmp_path / "state")
    async with running(console(site)) as pilot:
        await press(pilot, "2", "slash", *"web-01", "enter")
        site.asking = True
        await press(pilot, "p", "q", "enter")
        assert "is no monitor" in screen_text(pilot.app)
        site.host_engine.error = Refused("it is in use", "Wait")
        await press(pilot, "backspace", *"qmp:/m", "enter")
        assert "It is in use. Wait" in screen_text(pilot.app)
        site.host_engine.error = None
        await press(pilot, "enter")
        assert "/run/x/disk" in screen_text(pilot.app)
        await press(pilot, "escape", "slash", *["backspace"] * 6, *"web-db", "enter", "p")
        assert "web-db is prepared already, 5 shows where" in told(pilot.app)
    assert site.host_engine.calls[-1] == ("prepare", "pool-nfs", ident(11), True, False, "qmp:/m")


@pytest.mark.parametrize("agent", ["", ",agent=/run/web-db.agent"])
async def test_a_guest_is_frozen_where_its_agent_is_known(agent: str, tmp_path: Path) -> None:
    """The form of a snapshot asks for it there alone; what comes of it is told in the form."""
    site = MachineSite(tmp_path / "state")
    told_of = site.found[3]._replace(monitor=f"qmp:/run/vm{agent}")
    site.fixed["pool-nfs"] = sample_view(machines=(told_of,))
    async with running(console(site)) as pilot:
        await press(pilot, "2", "slash", *"web-01", "enter")
        site.asking = True
        await press(pilot, "s")
        assert ("guest agent" in screen_text(pilot.app)) == bool(agent)
        await press(pilot, *(["tab", *"yes"] if agent else []), "enter")
        assert "Its agent does not answer" in screen_text(pilot.app)
    assert site.host_engine.calls == [("snapshot", "pool-nfs", ident(11), {"quiesce": bool(agent)})]


async def test_a_live_merge_is_told_in_runs_and_its_rate_changed(tmp_path: Path) -> None:
    """Whose machine does it, that the guest waits for nothing, and that it does not converge."""
    step = run_step(
        1, "merge", 5, RunState.RUNNING, stage=1, stages=1, stage_name="merge", percent=41, saved_at=NOW - 1,
        bytes_done=4 << 30, bytes_total=10 << 30, images=(ident(1), ident(5)),
        pace="It has not come on for 8m: as it goes it does not converge.",
    )  # fmt: skip
    run = sample_run()._replace(steps=(step._replace(rule="M-CHAIN"),))
    site = MachineSite(tmp_path / "state", runs=[run])
    async with running(console(site)) as pilot:
        await press(pilot, "3")
        text = " ".join(screen_text(pilot.app).replace("│", " ").split())
        assert "does not converge" in text
        assert "The machine of web-db (4001 qemu-system-x86_64, qmp:/run/web-db.qmp) does it: its guest goes on" in text
        site.asking = True
        await press(pilot, "b", *"off", "enter")
        assert "moves as fast as it goes" in told(pilot.app)
    assert site.host_engine.calls == [("rate", "pool-nfs", ident(1), 0)]
