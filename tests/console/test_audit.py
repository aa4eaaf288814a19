"""The page of an audit: findings with their reasons, for files that are in no repository."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from textual.widgets import Input

from engine.audit.model import Audited, AuditReport, Finding
from engine.data.adoption import Plan, Planned
from engine.data.model import Status, VolumeFormat
from engine.errors import NotFound, Stopped
from tests.console.kit import FixedSite, console, golden, press, running, sample_view, screen_text
from tui import audits
from tui.work.noted import NotedEngine

BOTH = ((80, 24), (160, 50))
POOL = "/var/lib/libvirt/images"


def image(name: str, status: Status, rule: str = "", reason: str = "nothing was found", parent: str = "") -> Audited:
    path = f"{POOL}/{name}"
    return Audited(path, (path,), "qcow2", 10 << 30, 2 << 30, parent, 1, status, rule, reason, ())


def finding(found: Audited, size: int, *command: str, **evidence: str) -> Finding:
    return Finding(found.rule, found.status, found.path, found.reason, tuple(evidence.items()), size, command)


WEB = image("web.qcow2", Status.BROKEN, "A-PARENT", "its parent base.img is not there", "base.img")
OLD = image("old-\x1b[2Jtest.qcow2", Status.OPTIMIZED, "A-UNSEEN", "no reference to it was seen")
DB = image("db.qcow2", Status.DEGRADED, "A-OVERSIZE", "it takes 2.0 GiB for 1.0 GiB of data")
FINE = image("mail.qcow2", Status.OPTIMIZED)
REPORT = AuditReport(
    ((POOL, "libvirt"),),
    (WEB, DB, OLD, FINE),
    (
        finding(WEB, 0, header="backing file base.img, raw"),
        finding(DB, 1 << 30, "qemu-img", "convert", "-O", "qcow2", DB.path, "NEW"),
        finding(OLD, 2 << 30, definitions="3 were read"),
    ),
    {"medium": 2},
    ("nobody has said that everything that refers to them was given (--vms PATH --complete)",),
)


@pytest.mark.parametrize("size", BOTH, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_an_audit_is_looked_through(size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The worst first, each with its reason, its rule and what to type there; names from disk are harmless."""
    asked: list[audits.Request] = []
    monkeypatch.setattr(audits, "require", lambda request, host: asked.append(request))
    monkeypatch.setattr(audits, "run", lambda request, host, progress: REPORT)
    async with running(console(FixedSite(tmp_path / "state", [sample_view()])), size) as pilot:
        await press(pilot, "I")
        golden(f"audit-places-{size[0]}x{size[1]}", screen_text(pilot.app))
        await press(pilot, *POOL, "enter", "a")
        golden(f"audit-{size[0]}x{size[1]}", screen_text(pilot.app))
        await press(pilot, "down")
        assert "qemu-img" in screen_text(pilot.app)
        log = [entry.command for entry in pilot.app.session_log.entries]
        await press(pilot, "escape")
        assert "Fixes" in screen_text(pilot.app)
    assert asked == [audits.Request((POOL,))]
    assert log == [f"diskwright audit {POOL}"]


def test_what_is_to_be_heeded_stands_before_the_command():
    """A command that writes to the header of an image must find no machine on it; where there is none, the advice
    stands alone."""
    leaks = image("web.qcow2", Status.DEGRADED, "A-LEAKS", "3 clusters are leaked")
    report = AuditReport(
        ((POOL, "libvirt"),), (leaks, WEB), (finding(leaks, 0, "qemu-img", "check"), finding(WEB, 0)), {}, ()
    )
    advice, command = (
        next(line.text for line in audits.explain(row).lines if line.label == "Action")
        for row in audits.rows(report, False)
    )
    assert command.startswith("Stop the machine that uses it") and command.endswith(". Type there: qemu-img check")
    assert advice.startswith("Look for it under another name") and "Type there" not in advice


async def test_real_files_are_looked_at_and_errors_stay_in_the_dialog(tmp_path: Path):
    """Without any repository too; a directory that is not there is told where it was typed."""
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "cut.qcow2").write_bytes(b"QFI\xfb" + bytes(20))
    async with running(console(FixedSite(tmp_path / "state")), (100, 30)) as pilot:
        await press(pilot, "I", *"/nowhere", "enter")
        assert "there is no directory" in screen_text(pilot.app).lower()
        await press(pilot, *["backspace"] * len("/nowhere"), *str(pool), "enter")
        text = screen_text(pilot.app)
        assert "cut.qcow2" in text and "BRK" in text and "1 image in" in text


def test_an_audit_that_nobody_waits_for_ends(tmp_path: Path):
    """What progress raises goes through all layers, and everything that was opened is closed."""

    def left(what: str, done: int, of: int) -> None:
        raise Stopped("left")

    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "a.img").write_bytes(bytes(4096))
    with pytest.raises(Stopped):
        audits.run(audits.Request((str(tmp_path),)), "host-a", left)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_leaving_the_page_ends_its_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """esc, while it looks: it would keep the storage busy, and the next audit waiting."""
    began, ended = threading.Event(), threading.Event()

    def run(request: audits.Request, host: str, progress: audits.Progress) -> AuditReport:
        try:
            while not ended.wait(0.001):
                began.set()
                progress("files read", 1, 2)
        except Stopped:
            ended.set()
            raise
        return REPORT

    monkeypatch.setattr(audits, "require", lambda request, host: None)
    monkeypatch.setattr(audits, "run", run)
    app = console(FixedSite(tmp_path / "state", [sample_view()]))
    async with running(app) as pilot:
        await press(pilot, "I", *POOL)
        await pilot.press("enter")
        while not began.is_set():
            await pilot.pause()
        try:
            await pilot.press("escape")
            await pilot.pause()
            assert await asyncio.to_thread(ended.wait, 30)
        finally:
            ended.set()


class Adopting:
    """An engine that notes what it is asked to take over."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Plan]] = []

    def plan_adoption(self, repo: str, paths: list[str], format: str) -> Plan:
        if repo != "pool-nfs":
            raise NotFound(f"no repository {repo} is connected")
        base, web = f"{paths[0]}/base.qcow2", f"{paths[0]}/web.qcow2"
        return Plan(
            (
                Planned(web, VolumeFormat(format), 10 << 30, base, True, ()),
                Planned(base, VolumeFormat(format), 8 << 30, "", False, ()),
            ),
            ((f"{paths[0]}/db.raw", "it is in use by qemu-system-x86 (pid 7)"),),
        )

    def adopt_images(self, repo: str, plan: Plan) -> dict[str, str]:
        self.made.append((repo, plan))
        return {one.path: "0" * 32 for one in plan.images}


class AdoptingSite(FixedSite):
    """Repositories whose engine is that one, once it is there."""

    asked: Adopting | None = None

    @contextmanager
    def engine(self) -> Iterator[NotedEngine]:
        if self.asked is None:
            with super().engine() as engine:
                yield engine
        else:
            yield self.asked  # type: ignore[misc]


async def test_what_was_audited_is_taken_over_when_that_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The plan is shown before, with what stays and why; an error stays in the dialog; enter alone takes nothing."""
    monkeypatch.setattr(audits, "require", lambda request, host: None)
    monkeypatch.setattr(audits, "run", lambda request, host, progress: REPORT)
    site = AdoptingSite(tmp_path / "state", [sample_view()])
    site.asked = engine = Adopting()
    async with running(console(site), (80, 24)) as pilot:
        await press(pilot, "I", *POOL, "enter", "A", "x", "enter")
        assert "is connected" in screen_text(pilot.app)
        await press(pilot, "backspace", "enter")
        golden("audit-adopt-80x24", screen_text(pilot.app))
        await press(pilot, "enter")
        assert engine.made == []
        await press(pilot, "A", "enter", "T")
        assert [(repo, len(plan.images)) for repo, plan in engine.made] == [("pool-nfs", 2)]
        log = [entry.command for entry in pilot.app.session_log.entries]
    assert log[-1] == f"diskwright adopt pool-nfs {POOL} --format qcow2"


async def test_a_volume_group_that_was_audited_is_adopted_by_its_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """adopt knows no vg:NAME; and volumes have their short names in the table, as files below a directory have."""
    lost = Finding("A-PARENT", Status.BROKEN, "/dev/guests/web", "its parent is not there", (), 0, ())
    monkeypatch.setattr(audits, "require", lambda request, host: None)
    monkeypatch.setattr(audits, "run", lambda *_: AuditReport((("/dev/guests", "lvm"),), (), (lost,), {}, ()))
    async with running(console(FixedSite(tmp_path / "state", [sample_view()])), (100, 30)) as pilot:
        await press(pilot, "I", *"vg:guests", "enter")
        assert "A-PARENT   web " in screen_text(pilot.app)
        await press(pilot, "A")
        files = next(field for field in pilot.app.screen.query(Input) if field.id == "field-1")
        assert files.value == "/dev/guests"
