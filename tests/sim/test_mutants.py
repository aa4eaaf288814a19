"""Mutants of the engine, made while the test runs: the simulator must report each, or it is not to be believed.

Every statement that makes something durable is deleted in turn; they are found in the source, so a new one is covered
without being named here. A mutant whose line was never run is a failure too.
"""

from __future__ import annotations

import ast
import errno
import os
from typing import Any

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import NoSpace
from engine.fixes import fill
from engine.tags import changes
from sim.explore.cases.catalog import ALL, BEFORE_USES, CASES, ENTERING, ON_LVM
from sim.explore.search import calls
from sim.explore.search.explorer import Explorer
from sim.explore.search.faulty import failures
from sim.explore.together import live
from sim.explore.together.races import PASSINGS, RACES, run_passed, run_race
from sim.hosts.world import LVM
from tests.sim.mutants_kit import Site, deleted, hidden_syncs, hit, patched, sites, statement

pytestmark = pytest.mark.slow

KILLERS = {
    "tags.attempt.Attempt.join:self.repository.tags.settle": "create-unmade",
    "tags.changes.change:repository.tags.settle": "user-data",
    "copying.pump._barrier:job.target.flush": "create-on-base-elsewhere-performance",
    "fixes.dependants.settle:repository.tags.settle": "strategy",
    "fixes.dependants.settle:repository.tags.settle_all": "old:remove-below",
    "tags.lengths.grow:gate.settle": "adopt-grown-unflushed",
    "fixes.repair.accept_written:gate.settle": "accept-written",
    "tags.sessions.close:gate.settle": "machine-unflushed",
    "formats.groups.Grouped.settle:self._tags.settle": "user-data",
    "formats.lvm.setup._mark_as_ours:group.sync": "small lvm",
    "fixes.clean.unnamed:repository.tags.settle_all": "clean-unnamed-just-now",
    "fixes.fill._reflink:write.sync": "mend-copy-reflink",
    "gate.gate.settle:handle.sync": "remove-below",
    "fixes.merge._up:gate.settle": "merge-up",
    "fixes.rebuild._read_what_can_be_read:write.flush": "faults mend-salvage",
    "formats.files.litter.LitterBox.remove:self._tree.files.sync_directory": "clean-lost",
    "formats.files.setup._commit:tree.files.sync_directory": "small",
    "formats.files.setup._commit:tree.files.sync_directory#2": "small",
    "formats.files.setup._make_root:tree.files.sync_directory": "small",
    "formats.files.setup.create_tree:tree.files.sync_directory": "small",
    "formats.files.tags.Tags._sealed:self._tree.files.sync_directory": "user-data",
    "formats.files.uses.Uses.enter:self._tree.files.sync_directory": "create-on-base",
    "formats.files.uses.Uses.enter_missing:self._tree.files.sync_directory": "passed enter-uses-twice",
    "formats.files.entering._enter_all:tags.settle_all": "passed enter-uses-and-merge",
    "formats.files.parts.Parts.say:self._files.sync_directory": "old:enter-uses",
    "formats.files.parts.Parts._write_alone:self._files.sync_directory": "old:enter-uses-of-snapshots",
    "formats.files.tags.Tags.settle:self._tree.files.sync_directory": "user-data",
    "formats.files.tags.Tags.settle_all:self._tree.files.sync_directory": "old:remove-below",
    "formats.files.tree.Tree.ensure_shard:self.files.sync_directory": "create-performance",
    "formats.files.tree.Tree.write_temporary:handle.sync": "user-data",
    "formats.files.volumes.Volumes._sync_if_there:self._files.sync_directory": "clean-evidence",
    "formats.files.volumes.Volumes.make:handle.sync": "create-performance",
    "formats.files.volumes.Volumes.make:self._files.sync_directory": "create-performance",
    "formats.files.litter.LitterBox._remove_second_name:self._tree.files.sync_directory": "mend-lost",
    "formats.files.volumes.Volumes._move:self._files.sync_directory": "clean-unnamed",
    "formats.files.volumes.Adoption.take:self._files.sync_directory": "adopt-files",
    "formats.files.volumes.Adoption.let_go:self._files.sync_directory": "adopt-files",
    "formats.files.volumes.Adoption.give_back:self._files.sync_directory": "clean-adopted",
    "formats.files.parts.Parts.make:self._files.sync_directory": "small",
    "formats.files.progress.ProgressLogs.start:handle.sync": "small",
    "formats.files.progress.ProgressLogs.start:self._files.sync_directory": "small",
    "formats.files.digests.DigestLists.write:self._files.sync_directory": "small",
    "formats.files.progress.ProgressLogs.write:handle.sync": "small",
    "formats.lvm.group.Group.sync:self.doors.volume_groups.sync": "small lvm",
    "formats.lvm.manager.ExclusiveManager.release:self._group.sync": "small lvm",
    "formats.lvm.manager.ExclusiveManager.take:self._group.sync": "small lvm",
    "formats.lvm.litter.LitterBox.remove:self._group.sync": "lvm:clean-lost",
    "formats.lvm.metadata.area.Meta.extend:self.group.sync": "small lvm",
    "formats.lvm.metadata.area.Meta.extend:self.sync": "small lvm",
    "formats.lvm.metadata.area.Meta.keep:self.sync": "lvm:user-data",
    "formats.lvm.metadata.area.Meta.sync:self._ours": "small lvm",
    "formats.lvm.volumes.places.Places.sync:device.sync": "lvm:create-space",
    "formats.lvm.metadata.progress.ProgressLogs.write:self._meta.sync": "small lvm",
    "formats.lvm.metadata.records.Records.settle:self.settle_all": "lvm:create-space",
    "formats.lvm.metadata.records.Records.settle_all:self._meta.sync": "lvm:create-space",
    "formats.lvm.setup._make_meta:device.sync": "small lvm",
    "formats.lvm.setup._make_meta:group.sync": "small lvm",
    "formats.lvm.volumes.volumes.Volumes._make_room_for:self._group.sync": "small lvm",
    "formats.lvm.volumes.volumes.Volumes.make:device.sync": "lvm:create-performance",
    "formats.lvm.volumes.extents.Extents.make_room:self._group.sync": "small lvm",
    "formats.lvm.volumes.extents.Extents.make_room:self._group.sync#2": "small lvm",
    "formats.lvm.volumes.adoption.Adoption.let_go:self._group.sync": "lvm:mend-adopted-volume",
    "formats.lvm.volumes.volumes.Volumes._rename:self._group.sync": "small lvm",
    "formats.lvm.volumes.volumes.Volumes.remove:self._group.sync": "small lvm",
    "formats.files.setup.give:tree.files.sync_directory": "small",
    "host.state.HostState._put_aside:self._doors.files.sync_directory": "small",
    "host.state.HostState._write:handle.sync": "small",
    "host.state.HostState._write:self._doors.files.sync_directory": "small",
    "verbs.copy._already_here:repository.tags.settle": "copy-committed",
    "verbs.copy._base:repository.tags.settle": "old:snapshot-as-base-of-a-copy",
    "verbs.copy._commit:repository.tags.settle": "passed copies",
    "verbs.create._on_base:found.repository.tags.settle": "old:snapshot",
    "verbs.export.export:context.doors.files.sync_directory": "export",
    "verbs.export.export:handle.sync": "export",
    "verbs.live.resize._make_longer:gate.settle": "live resize",
}
"""What finds it soonest: a case whose crashes are explored, ``faults`` or ``passed`` and a case or race, ``live`` and a
verb beside a running machine, ``small``.
Only a site of LVM may be missing here: it is looked for in the cases of LVM."""

REDUNDANT = {
    "survey.kept.settled:repository.tags.settle": "no case has the copy of a disk that runs ended by a process that "
    "dies before it is durable; tests/engine/fixes/test_kept.py does, and misses it",
    "formats.groups.Grouped.settle:self._tags.settle#2": "the case that builds on one of a group whose seal is seen "
    "and not durable takes long; tests/engine/test_snapshot_groups.py does it, too, and misses it",
    "formats.groups.Grouped._make_own:self._tags.settle": "the same file has a test for that, which misses it",
    "formats.groups.Grouped._leave:self._tags.settle": "no case changes such a one; the same test does, and misses it",
    "formats.groups.Grouped._leave:self._tags.settle#2": "as the one before",
    "fixes.sparsify.in_place:session.flush": "what is lost are holes: the zeros in their place read the same, and the "
    "next deep check finds them",
    "fixes.sparsify.in_place:session.flush#2": "as the one before",
    "fixes.mend_record.mend_record:repository.tags.settle_all": "no case mends a record beside one that was seen and "
    "is not durable",
    "fixes.repair.put_back:repository.tags.settle": "a volume whose record falls back is put away again, with its data",
    "host.merging._make_durable:gate.settle": "the qcow2 of the model writes its tables only when it flushes, "
    "and syncs then; a real one writes them when its caches are full, too",
    "host.mirroring._publish:gate.settle": "a machine flushes the target before a mirror is pending, in the model too; "
    "one that was started with cache=unsafe does not",
    "formats.files.entering._end_writers:tree.files.sync_directory": "in the model no server loses its power while a "
    "host of it goes on",
    "formats.files.tags.Tags.forget_use:self.settle": "a record that needs the tag no more is followed by another one, "
    "which is synced, as long as the one before needs it; a tombstone comes after a record that needs nothing",
    "formats.files.litter.LitterBox._remove_old_generation:self._tree.files.sync_directory": "the generation before is "
    "kept: two hosts in a row would have to die between link and sync",
    "fixes.adopt._require_sound:gate.settle": "no case adopts a file that was just written",
    "formats.lvm.volumes.adoption.Adoption.give_back:self._group.sync": "a volume that has the repository's name again "
    "is given back by whoever would delete it",
    "formats.files.volumes.Adoption._give:handle.sync": "no case has a repository whose volumes are somebody's",
    "formats.files.volumes.Adoption._hand_over:handle.sync": "the same",
    "formats.files.setup._give_all:handle.sync": "the same",
    "formats.files.volumes.Adoption._require_moved:self._files.sync_directory": "no case swaps a file for another one",
    "formats.files.setup.create_tree:handle.sync": "the file is empty; the model takes a synced name for a "
    "whole inode, which file systems without a journal do not promise",
    "formats.files.parts.Parts.make:handle.sync": "the same",
    "formats.files.ballast.Ballast._fill:handle.sync": "the ballast is nobody's data; one that a loss of power has "
    "made shorter is made longer again",
    "formats.files.ballast.Ballast.release:handle.sync": "in the model room is free at once, on a journaling file "
    "system when the truncation is durable; without it a removal finds no room yet, and nothing is lost",
    "verbs.spool._write:handle.sync": "no case imports from a stream; tests/engine/test_spool.py cuts the power",
    "verbs.spool._write:files.sync_directory": "the same",
    "verbs.import_image._flush:handle.sync": "files to import are durable in all cases; the same test",
    "formats.lvm.litter.LitterBox.remove:self._records.settle_all": "a progress log that comes back is listed again",
    "formats.lvm.metadata.area.Meta.keep:self.sync#2": "after a flush that failed, which no case of these has",
    "formats.lvm.metadata.progress.ProgressLogs.start:self._meta.sync": "an attempt without a log begins at 0",
    "formats.lvm.metadata.records.Records._blank_others:self._meta.sync": "damaged copies that come back are "
    "given up again",
    "formats.lvm.setup._group:groups.sync": "the repository is committed later, and synced",
    "formats.lvm.setup._group:groups.sync#2": "the same",
    "formats.lvm.setup._make_leases:group.sync": "the same",
    "formats.lvm.shared.guard.SharedGuard._more_leases:self._group.sync": "the chunk that needs them follows "
    "another sync",
    "formats.lvm.volumes.extents.Extents._extend:self._group.sync": "what is gained is cleared and told by a "
    "tag, and synced",
    "formats.lvm.volumes.extents.Extents.freeze:device.sync": "layers end with the image; machines that "
    "open the device do not",
    "formats.lvm.volumes.extents.Extents.freeze:self._group.sync": "the overlay is made next, which syncs the group; "
    "tests/formats/lvm/test_volumes.py misses it",
    "formats.lvm.volumes.extents.Extents.make_room:device.sync": "the sync of the group flushes the same devices",
    "formats.lvm.volumes.extents.Extents.reduce:self._group.sync": "the file of a snapshot was flushed when "
    "it became one",
    "formats.lvm.volumes.extents.Extents.reduce:self._group.sync#2": "a reduction that is lost is offered again",
}
"""Syncs without which nothing can be lost in this model, and why they may stay."""


def found_by(name: str) -> bool:
    kind, _, subject = name.rpartition(" ")
    if name == "small lvm":
        quick = bool(calls.promises(LVM) or calls.mark_made_anew() or calls.room_made_twice())
        return quick or bool(calls.more_room() or calls.creation_on_lvm() or calls.creation_on_lvm(True))
    if name == "small":
        quick = bool(calls.notes() or calls.note_kept() or calls.promises() or calls.part_made_again())
        return quick or bool(calls.creation() or calls.creation(reply_lost=True))
    if kind == "faults":
        return next(failures(CASES[subject]), None) is not None
    if kind == "live":
        played = live.runs(subject, live.PREPARED[subject][0], deaths=(live.POWER,), first=19)
        return any(run is not None for run in played)
    if kind == "passed":
        return any(found is not None for found in run_passed(PASSINGS[subject]))
    return bool(Explorer({**ALL, **BEFORE_USES, **ENTERING}[name], max_violations=1).run().violations)


def candidates(site: Site) -> list[str]:
    known = KILLERS.get(site.name)
    if known:
        return [known]
    if site.module.startswith("engine.formats.lvm."):
        return ["small lvm", *ON_LVM]
    return []


@pytest.mark.parametrize("site", [site for site in sites() if site.name not in REDUNDANT], ids=lambda site: site.name)
def test_a_deleted_sync_is_reported(site: Site):
    """Some crash or fault in some case then loses something."""
    assert candidates(site), f"name a case that misses {site} in KILLERS, or why it may stay in REDUNDANT"
    with deleted(site) as hits:
        found = any(found_by(name) for name in candidates(site))
    assert hits, f"no case runs {site}"
    assert found, f"nobody misses {site}"


def test_what_finds_the_mutants_finds_nothing_else():
    """The shortest of them report nothing when nothing is deleted; the rest are explored by tests of their own."""
    for name in (
        "small",
        "small lvm",
        "user-data",
        "create-performance",
        "clean-lost",
        "clean-unnamed-just-now",
        "export",
    ):
        assert not found_by(name), name


def test_no_sync_is_hidden_in_a_larger_statement():
    """The search above looks for statements."""
    assert hidden_syncs() == []


def test_every_name_that_is_spelled_out_here_exists():
    """A killer or a reason for a statement that is gone is to be removed; each statement has a name of its own."""
    names = [site.name for site in sites()]
    assert {*KILLERS, *REDUNDANT} <= set(names)
    assert len(set(names)) == len(names)


# -- the order of things


def test_a_use_that_is_entered_after_its_record_is_reported():
    """A process that dies in between leaves a record that needs something, and nothing says so."""

    def later(node: ast.stmt) -> list[ast.stmt] | None:
        text = ast.unparse(node)
        if isinstance(node, ast.With) and "enter(generation)" in text:
            return [hit()]
        return [node, statement("enter(generation)")] if text.startswith("self._link(temporary") else None

    with patched("engine.formats.files.tags", "Tags._put", later) as hits:
        found = Explorer(CASES["create-on-base"], "process", max_violations=1).run().violations
    assert hits and any("I17" in problem for violation in found for problem in violation.problems)


def test_a_cursor_that_is_recorded_before_the_flush_is_reported():
    """The data below it is then not durable, and the next attempt goes on above it."""

    def swapped(node: ast.stmt) -> list[ast.stmt] | None:
        text = ast.unparse(node)
        if text == "_barrier(job, zeros, hashing)":
            return [hit()]
        if text.startswith("checkpoint("):
            return [node, statement("_barrier(job, zeros, hashing)")]
        return None

    with patched("engine.copying.pump", "run", swapped) as hits:
        assert found_by("mend-copy-windows")
    assert hits


def test_a_seal_before_the_fill_is_reported(monkeypatch: pytest.MonkeyPatch):
    """A copy that is said to be whole before it is filled reads wrong."""
    original = fill.copy_all
    sealed: list[str] = []

    def sealing(attempt: Any, source: Any, filling: Any, *rest: Any) -> str:
        changes.change(
            attempt.repository, attempt.tag, lambda record: record._replace(whole=True, volume=filling.volume)
        )
        sealed.append(attempt.tag)
        return original(attempt, source, filling, *rest)

    monkeypatch.setattr(fill, "copy_all", sealing)
    assert found_by("mend-copy")
    assert sealed


# -- two hosts


def raced(name: str, swapped: bool) -> bool:
    return any(found is not None for found in run_race(RACES[name], swapped))


def test_publishing_without_a_look_at_the_newest_generation_is_reported():
    """Somebody who was passed before it began must not be left with an unknown outcome."""
    with patched(
        "engine.formats.files.tags",
        "Tags._put",
        lambda node: [hit()] if ast.unparse(node) == "self._require_newest(tag, expected)" else None,
    ) as hits:
        assert raced("user-data", False)
    assert hits


def test_publishing_without_a_second_look_is_reported():
    """A late link under a generation that was superseded and removed succeeds, and does not count."""
    with patched(
        "engine.formats.files.tags",
        "Tags._sealed",
        lambda node: [hit()] if isinstance(node, ast.If) and "newest_of" in ast.unparse(node.test) else None,
    ) as hits:
        assert raced("user-data", False)
    assert hits


def test_a_clean_without_a_second_look_at_the_dependants_is_reported():
    """Another host bases a disk on the image between the check and the deletion."""

    def blind(node: ast.stmt) -> list[ast.stmt] | None:
        if ast.unparse(node) == "dependants = of(tags, found.record)":
            return [hit(), statement("dependants = []")]
        return None

    with patched("engine.fixes.clean", "tag", blind) as hits:
        assert raced("clean-and-base", False)
    assert hits


def test_a_merge_without_a_second_look_at_the_dependants_is_reported():
    """Another host bases a disk on the lower image while it is being absorbed."""

    def blind(node: ast.stmt) -> list[ast.stmt] | None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "of(users, lower) != [above]":
            return [hit()]
        return None

    with patched("engine.fixes.merge", "_reserve", blind) as hits:
        assert raced("merge-and-base", False)
    assert hits


# -- room


class FullAtClose:
    """NFS tells at close that there is no room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._close = os.close
        self.left = 1
        monkeypatch.setattr(os, "close", self.close)

    def close(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self._close(descriptor)
        if "/tmp/" in path and path.endswith("-record") and self.left:
            self.left -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def refuses_when_full_at_close(root: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    engine = Engine(real_doors("h"), f"{root}/state")
    engine.create_repository("localfs-1.0", {"path": f"{root}/a"})
    engine.connect_storage_repository("a", "localfs-1.0", {"path": f"{root}/a"})
    with monkeypatch.context() as patch:
        full = FullAtClose(patch)
        try:
            engine.create_virtual_disk("a", 65536)
        except NoSpace:
            return not engine.list_images("a")
        assert not full.left
        return False


def test_no_room_at_close_is_an_error(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    """A record whose close says that there is no room is not published."""
    assert refuses_when_full_at_close(str(tmp_path), monkeypatch)


def test_no_room_at_close_that_is_ignored_is_reported(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    """The verb is then acknowledged, which the test above would not let pass."""

    def deaf(node: ast.stmt) -> list[ast.stmt] | None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "kind is None":
            quiet = statement("with contextlib.suppress(OSError):\n    self.close()")
            return [hit(), quiet]
        return None

    with patched("engine.tools.local.files", "RealFileHandle.__exit__", deaf) as hits:
        assert not refuses_when_full_at_close(str(tmp_path), monkeypatch)
    assert hits
