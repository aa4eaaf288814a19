"""What somebody works on: findings instead of fixes, removal, stop, and a storage that becomes full."""

from __future__ import annotations

import pytest

from engine.data.model import Status
from engine.errors import ImageBusy, NoSpace, Stopped
from sim.hosts.crash import Effects, crashing
from tests.crash.kit import SIZE, MiB, content, nothing_left_over, settle, write
from tests.engine.fixes.kit import snapshot_in_both
from tests.engine.kit import NO_FIX


def test_while_somebody_works_on_an_image_its_fixes_are_findings(engine, world):
    """A second runner is told who works."""
    disk = engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    (fix,) = engine.check_storage_repository("a")
    lease = engine.context.repository("a").leases.try_acquire(disk)
    other = world.engine("host-b")
    report = other.inspect_repository("a")
    assert report.fixes == ()
    assert [(finding.kind, finding.subject) for finding in report.findings] == [("busy", disk)]
    with pytest.raises(ImageBusy, match=disk):
        other.fix_storage_repository("a", fix)
    lease.release()
    assert len(other.check_storage_repository("a")) == 1


def test_a_removal_ends_the_operation_wherever_it_runs(engine, world, tmp_path):
    """The executor stops at its next step, touches nothing more, and the removed copy can be cleaned."""
    disk, _ = snapshot_in_both(engine)
    copy = engine.copy_image("b", disk, options=NO_FIX)
    (fix,) = engine.check_storage_repository("b")
    other = world.engine("host-b")

    class RemovedMeanwhile(Effects):
        def step(self, name):
            super().step(name)
            if name == "images.open_session.flush" and self.names.count(name) == 1:
                other.remove_image("b", copy)

    engine_a = type(engine)(crashing(engine.doors, RemovedMeanwhile()), engine.state.directory)
    with pytest.raises(Exception, match="cancelled or taken over"):
        engine_a.run_fix_here("b", fix)
    assert [image.removed for image in other.list_images("b") if image.id == copy] == [True]
    settle(other, "b")
    nothing_left_over(world, other, "b")


def test_a_stopped_copy_keeps_its_work_and_says_that_it_was_stopped(engine, world):
    """Stop writes last_error, and that nothing failed; the next host goes on at the cursor."""
    disk = engine.create_virtual_disk("a", 64 * MiB)
    write(engine, "a", disk, "write -P 5 0 60M")
    copy = engine.copy_image("b", disk, options=NO_FIX)
    (fix,) = engine.check_storage_repository("b")
    engine.context.stopping = lambda: True
    with pytest.raises(Stopped):
        engine.run_fix_here("b", fix)
    engine.context.stopping = lambda: False
    report = world.engine("host-b").get_image_status("b", copy)
    assert report.status == Status.BROKEN
    assert "stopped by the operator" in report.operation.last_error and report.operation.stopped
    assert report.reason.endswith("an operator stopped it")
    assert report.operation.host == "host-a"
    settle(engine, "b")
    ended = engine.get_image_status("b", copy).operation
    assert ended.last_error == "" and not ended.stopped


def test_a_full_disk_in_the_middle_of_a_copy_is_said_kept_and_resumed(engine, world, tmp_path):
    """ENOSPC from the target: last_error says so on disk, and with room the same copy goes on."""
    disk = engine.create_virtual_disk("a", 64 * MiB)
    write(engine, "a", disk, "write -P 5 0 60M")
    copy = engine.copy_image("b", disk, options=NO_FIX)
    (fix,) = engine.check_storage_repository("b")

    class Full(Effects):
        def step(self, name):
            super().step(name)
            if name == "images.open_session.write" and self.names.count(name) > 20:
                raise NoSpace("cannot write: No space left on device", "Make room")

    with pytest.raises(NoSpace):
        type(engine)(crashing(engine.doors, Full()), engine.state.directory).run_fix_here("b", fix)
    report = engine.get_image_status("b", copy)
    assert "No space left" in report.operation.last_error
    assert report.operation.percent > 0
    (again,) = engine.check_storage_repository("b")
    assert "goes on at" in again.why
    engine.context.stopping = lambda: True
    with pytest.raises(Stopped):
        engine.run_fix_here("b", again)
    engine.context.stopping = lambda: False
    after = engine.get_image_status("b", copy).operation
    assert (after.stage, after.percent) >= (report.operation.stage, report.operation.percent)
    settle(engine, "b")
    assert content(engine, "b", copy, tmp_path) == content(engine, "a", disk, tmp_path)
