"""A machine goes on when its holder is dead, and no verb, no fix and no death of either does any harm to it."""

from __future__ import annotations

import contextlib

import pytest

from engine.doors.files import Unlocked
from engine.doors.users import User
from engine.errors import ImageBusy
from engine.formats.files.volumes import Volumes
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.triage import rules
from sim.disk.nodes import FileNode
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.catalog import ALL
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures.images import BLOCK, a_disk, a_raw_disk, a_removed_one_further_down, data, disk
from sim.explore.cases.fixtures.others import clean_up_to_the_end
from sim.explore.search.explorer import Explorer, Violation
from sim.explore.search.faulty import failures
from sim.explore.together.machines import BY_HAND, Harmed, came_late, outlived
from sim.hosts.machine import SimMachine
from sim.hosts.world import REPOSITORIES

QUICK = ("snapshot-raw", "remove-all", "merge-down", "merge-up", "optimize-format", "optimize-beside-a-merge")


def harm(name: str, every: int) -> list[Harmed]:
    everything = list(outlived(ALL[name], every))
    assert everything, "no machine was started"
    return [one for one in everything if one is not None]


@pytest.mark.parametrize("name", [*QUICK, "lvm:remove"])
def test_what_a_machine_uses_is_kept_and_what_is_sealed_stays(name: str):
    """Found so: a clean called an image deleted whose file it could then not delete."""
    assert not harm(name, 20)


@pytest.mark.parametrize(("name", "words"), [
    ("snapshot-raw", "shows something else than before"),
    ("remove", "a file that the machine has open was deleted"),
    ("optimize-format", "the disk does not show what the machine has flushed"),
])  # fmt: skip
def test_a_machine_that_locks_nothing_is_seen_by_the_kernel(name: str, words: str, monkeypatch: pytest.MonkeyPatch):
    """Some lock nothing that they open, and so does a loop device. Without the question to the kernel it is harmed, or
    harms."""
    assert not [one for one in outlived(ALL[name], 20, locking=False) if one is not None]
    monkeypatch.setattr(Volumes, "users", lambda volumes, volume: volumes._files.users(volumes.layer(volume).path))
    assert any(words in problem for one in outlived(ALL[name], 1000, locking=False) if one for problem in one.problems)


@pytest.mark.parametrize("locking", [True, False])
def test_what_is_only_read_and_not_locked_holds_no_merge_up_and_is_seen_as_it_was(locking: bool):
    """A layer further down below a machine without a holder is merged and deleted if the machine locks nothing. Its
    guest sees the same afterwards. Found so: random runs that begin with many removed layers called that harm."""
    driver = prepared(Case("merge-below", a_removed_one_further_down, lambda driver: None))
    engine = driver.world.host("three")
    entry = engine.prepare_image("a", disk(driver))
    machine = SimMachine(driver.world.process_of(engine).host, entry.path, entry.format, locking=locking)
    engine.doors.processes.kill(entry.process)
    machine.write(16 * BLOCK, data(9))
    before, names = machine.read(), volumes(driver)
    with pytest.raises(ImageBusy) if locking else contextlib.nullcontext():
        driver.fix("a", rules.M_CHAIN)
    assert (volumes(driver) < names) is not locking
    assert machine.read() == before and not machine.deleted_files()


def volumes(driver: Driver) -> set[str]:
    """The files of volumes that have a name."""
    return {path for path, _, node in driver.world.storage.walk() if "/volumes/" in path and isinstance(node, FileNode)}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ALL.keys() - BY_HAND))
def test_no_verb_and_no_fix_harms_a_machine_wherever_it_dies(name: str):
    """The same for all of them, with a death at more effects. A case without a disk that can be used has no runs."""
    assert not [one for one in outlived(ALL[name], 3) if one is not None]


def test_a_disk_whose_newest_record_is_gone_is_not_handed_out_with_the_data_of_its_snapshot():
    """Found so: the record before the newest names what was sealed since (B-OLDER), and the disk could be prepared for
    writing all the same; its machine wrote into the snapshot."""
    assert not list(outlived(ALL["mend-older"], 1000)), "a machine was started"


@pytest.mark.parametrize(("purpose", "name", "words"), [
    (Purpose.SEAL, "snapshot-raw", "shows something else than before"),
    (Purpose.SEAL, "snapshot", "cannot be read"),
    (Purpose.DELETE, "remove", "a file that the machine has open was deleted"),
    (Purpose.REPLACE, "optimize-format", "the disk does not show what the machine has flushed"),
])  # fmt: skip
def test_a_gate_that_does_not_ask_is_found(purpose: Purpose, name: str, words: str, monkeypatch: pytest.MonkeyPatch):
    """Each purpose for which nobody may write: without the question to the data some machine or snapshot is harmed."""
    bears = gate.RULES[purpose]._replace(readers=True, writers=True)
    monkeypatch.setitem(gate.RULES, purpose, bears)
    assert any(words in problem for one in harm(name, 1000) for problem in one.problems)


def record_away(driver: Driver) -> None:
    """Take the record of a disk away, put its volume away as is offered then, and put the record back."""
    files, tag = driver.engine().doors.files, disk(driver)
    folder = f"{REPOSITORIES}/a/tags/{tag[:2]}"
    names = [f"{folder}/{entry.name}" for entry in files.list_directory(folder) if entry.name.startswith(f"{tag}.")]
    kept = {name: files.read_file(name, 1 << 20) for name in names}
    for name in names:
        files.unlink(name)
    try:
        clean_up_to_the_end(driver)
    finally:
        for name, content in kept.items():
            with files.create(name) as handle:
                handle.write_at(0, content)
        driver.world.storage.settle()


BESIDE = {
    Purpose.PUT_AWAY: Case("record-away", a_disk, record_away, strangers=True),
    Purpose.HAND_OUT: Case("write-beside", a_raw_disk, lambda s: s.write("a", disk(s), 16 * BLOCK, data(9))),
}
"""What happens beside a machine that has lost its holder."""


@pytest.mark.parametrize("purpose", BESIDE)
def test_what_a_machine_uses_is_neither_put_away_nor_handed_out(purpose: Purpose, monkeypatch: pytest.MonkeyPatch):
    """Without the question to the data it would be lost, or written to by two."""
    assert list(outlived(BESIDE[purpose], 1000))[:1] == [None]
    bears = gate.RULES[purpose]._replace(readers=True, writers=True)
    monkeypatch.setitem(gate.RULES, purpose, bears)
    assert next(outlived(BESIDE[purpose], 1000))


@pytest.mark.parametrize("name", ["merge-up", "optimize-format", "lvm:optimize-leaks"])
def test_a_machine_that_comes_when_a_fix_has_started_is_not_harmed(name: str, monkeypatch: pytest.MonkeyPatch):
    """It is started anew by the path that it had, after the fix was verified and before its process does anything. Nor
    is it where the gate does not ask before data is rewritten: qemu's own locks refuse that, or another question."""
    runs = list(came_late(ALL[name]))
    assert runs and not any(runs)
    bears = gate.RULES[Purpose.REWRITE]._replace(readers=True, writers=True)
    monkeypatch.setitem(gate.RULES, Purpose.REWRITE, bears)
    assert not any(came_late(ALL[name]))


def test_a_gate_that_does_not_ask_again_when_a_fix_has_started_is_found(monkeypatch: pytest.MonkeyPatch):
    """The fix was verified when nobody had the disk open."""
    bears = gate.RULES[Purpose.REPLACE]._replace(readers=True, writers=True)
    monkeypatch.setitem(gate.RULES, Purpose.REPLACE, bears)
    assert any(came_late(ALL["optimize-format"]))


def test_data_that_tells_of_no_user_is_found(monkeypatch: pytest.MonkeyPatch):
    """Without the answer of the locks a removed disk is deleted under its machine."""
    from sim.disk.files import SimFiles

    def nobody(files: SimFiles, path: str, unlocked: Unlocked) -> list[User]:
        return []

    monkeypatch.setattr(SimFiles, "users", nobody)
    assert any("was deleted" in problem for one in harm("remove", 1000) for problem in one.problems)


def explored(name: str) -> tuple[Violation, ...]:
    return Explorer(ALL[name], "posix", seconds=40, recover=False, max_violations=1).run().violations


def test_what_a_stranger_wrote_is_kept_whole_once_it_is_accepted():
    """Killed anywhere, its acceptance leaves it to be accepted again, or has made durable what was shown."""
    assert not explored("accept-written")


@pytest.mark.parametrize("name", ["adopt-grown", "adopt-grown-raw", "lvm:adopt-grown"])
def test_a_disk_that_another_tool_made_longer_has_one_of_two_sizes(name: str):
    """Killed anywhere, its adoption leaves the old size, or the new one with all that lies behind the old end."""
    assert not explored(name)


def test_a_snapshot_that_makes_nothing_durable_is_found(monkeypatch: pytest.MonkeyPatch):
    """What a machine wrote without a flush is in the snapshot after a power cut too, or that is found."""
    monkeypatch.setattr(gate, "settle", lambda doors, layer: None)
    assert any("reads wrong" in problem for one in explored("snapshot-unflushed-raw") for problem in one.problems)


def test_a_flush_that_failed_is_not_taken_for_one_that_succeeded_later():
    """Found so: tearing a disk down kept silent about a failed flush of what its machine had written; the snapshot then
    flushed again, with success and without the data, and was acknowledged."""
    assert not list(failures(ALL["snapshot-unflushed-raw"]))
