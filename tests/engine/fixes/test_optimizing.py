"""Images become what was asked: format, depth, size, header; and what a merge needs before it begins."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from engine.data.model import Status
from engine.errors import ImageBusy, Refused, Stopped
from engine.fixes import sparsify
from engine.triage.health import MAX_CHAIN
from sim.hosts.crash import Crashed
from tests.crash.kit import SIZE, MiB, World, as_a_stranger, as_it_rots, content, nothing_left_over, settle, write
from tests.engine.fixes.kit import rules, status
from tests.engine.kit import volume_of

# -- optimize


def test_a_changed_strategy_makes_an_image_degraded_and_a_fix_makes_it_what_was_asked(engine, world, tmp_path):
    """Both ways; content, id and user data stay; the old volume is gone."""
    disk = engine.create_virtual_disk("a", SIZE, user_data={"n": 1})
    write(engine, "a", disk, "write -P 1 0 1M")
    expected = content(engine, "a", disk, tmp_path)
    for strategy, suffix in (("performance", ".raw"), ("space", ".qcow2")):
        engine.set_strategy("a", disk, strategy)
        report = engine.get_image_status("a", disk)
        assert report.status == Status.DEGRADED and "usable" in report.reason.lower()
        assert rules(engine, "a") == ["O-FORMAT"]
        settle(engine, "a")
        assert volume_of(world, engine, "a", disk).suffix == suffix
        assert content(engine, "a", disk, tmp_path) == expected
        nothing_left_over(world, engine, "a")
    assert engine.get_user_data("a", disk) == {"n": 1}


def test_a_chain_over_the_threshold_is_flattened_and_opens_fewer_layers(engine, world, tmp_path):
    """Snapshots keep their ids and content."""
    disk = engine.create_virtual_disk("a", SIZE)
    kept = {}
    for number in range(MAX_CHAIN):
        write(engine, "a", disk, f"write -P {number + 1} {number * 64}k 64k")
        snapshot = engine.create_snapshot("a", disk)
        kept[snapshot] = content(engine, "a", snapshot, tmp_path)
    expected = content(engine, "a", disk, tmp_path)
    assert rules(engine, "a") == ["O-DEPTH"]

    def opened():
        prepared = engine.prepare_image("a", disk)
        try:
            command = ["qemu-img", "info", "-U", "--backing-chain", "--output=json", prepared.path]
            return len(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        finally:
            engine.teardown_image("a", disk)

    assert opened() == MAX_CHAIN + 1
    settle(engine, "a")
    assert opened() == 1
    assert volume_of(world, engine, "a", disk).stat().st_size
    assert content(engine, "a", disk, tmp_path) == expected
    for snapshot, data in kept.items():
        assert content(engine, "a", snapshot, tmp_path) == data


def test_leaked_clusters_are_found_by_a_deep_check_and_given_back(engine, world, tmp_path):
    """Bytes come back; content stays."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    expected = content(engine, "a", disk, tmp_path)
    path = volume_of(world, engine, "a", disk)
    with as_it_rots(path), path.open("r+b") as file:  # unmap the L2 table: its clusters stay counted
        l1 = int.from_bytes(file.read()[40:48], "big")
        file.seek(l1)
        table = int.from_bytes(file.read(8), "big") & 0x00FFFFFFFFFFFE00
        file.seek(table + 8 * 8)
        file.write(bytes(8 * 8))
    expected = expected[: 8 * 65536] + bytes(8 * 65536) + expected[16 * 65536 :]
    assert rules(engine, "a") == []
    assert rules(engine, "a", deep=True) == ["O-LEAKS"]
    (fix,) = engine.check_storage_repository("a", {"deep": True})
    assert fix.cost.reclaimed_bytes == 8 * 65536
    engine.run_fix_here("a", fix)
    assert rules(engine, "a", deep=True) == []
    assert content(engine, "a", disk, tmp_path) == expected


@pytest.mark.parametrize("holes", [True, False])
def test_zeros_that_take_room_are_given_back_in_place(engine, world, tmp_path, monkeypatch, holes):
    """Found by a deep check; what becomes holes is that volume, with no room to spare, or a fresh one where the storage
    has no holes. A digest of before still holds, and nothing takes it for written to by others."""
    disk = engine.create_virtual_disk("a", 96 * MiB, options={"strategy": "performance"})
    prepared = engine.prepare_image("a", disk)
    with open(prepared.path, "r+b") as file:
        for _ in range(96):
            file.write(bytes(MiB))
        file.seek(0)
        file.write(b"data" * 1024)
    engine.teardown_image("a", disk)
    before = engine.get_image_status("a", disk).used_bytes
    volume = volume_of(world, engine, "a", disk)
    kept, expected = volume.stat().st_ino, content(engine, "a", disk, tmp_path)
    repository = engine.context.repository("a")
    known = repository.constraints()._replace(hole_punching=holes)
    monkeypatch.setattr(type(repository), "constraints", lambda self: known)
    with monkeypatch.context() as full:
        full.setattr(type(repository), "space", lambda self: (1 << 40, 1 << 20 if holes else 1 << 39))
        (fix,) = engine.check_storage_repository("a", {"deep": True})
        assert fix.rule == "O-ZEROS" and fix.cost.fits and fix.cost.reclaimed_bytes > 64 * MiB
        engine.run_fix_here("a", fix)
    assert engine.get_image_status("a", disk).used_bytes < before / 10
    assert (volume_of(world, engine, "a", disk).stat().st_ino == kept) is holes
    assert content(engine, "a", disk, tmp_path) == expected and expected[:4] == b"data"
    assert rules(engine, "a", deep=True) == []


def test_no_hole_is_punched_under_a_machine(engine, world, tmp_path):
    """Who looks and punches has the volume locked: what a machine writes in between would be lost."""
    disk = engine.create_virtual_disk("a", MiB, options={"strategy": "performance"})
    path = volume_of(world, engine, "a", disk)
    machine = subprocess.Popen(["qemu-io", "-f", "raw", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert machine.stdin is not None and machine.stdout is not None
    machine.stdin.write("write -P 7 0 64k\n")
    machine.stdin.flush()
    assert "qemu-io" in machine.stdout.read(7) or machine.stdout.readline()
    for later_ns in (0, 10**10):  # a time of writing that is seen to be new, or is not
        os.utime(path, ns=(0, path.stat().st_mtime_ns + later_ns))
        with pytest.raises(ImageBusy, match="qemu-io"):
            sparsify.in_place(engine.context, engine.context.repository("a"), disk)
    machine.communicate("quit\n")


def test_looking_for_zeros_can_be_stopped_where_there_are_none(engine, monkeypatch):
    """Found so: nobody was asked before the next zeros, which may be hours of reading away."""
    disk = engine.create_virtual_disk("a", 2 * MiB, options={"strategy": "performance"})
    write(engine, "a", disk, "write -P 1 0 2M")
    monkeypatch.setattr(sparsify, "_STEP_BYTES", MiB)
    answers = iter([False])  # when the volume was opened
    engine.context.stopping = lambda: next(answers, True)
    with pytest.raises(Stopped):
        sparsify.in_place(engine.context, engine.context.repository("a"), disk)


def test_what_a_stranger_wrote_while_zeros_were_looked_for_stays_told(engine, world):
    """Between the look at all of the data, which may take hours, and the work. Afterwards the volume would be noted as
    it is then, and nothing would tell of that write any more."""
    disk = engine.create_virtual_disk("a", MiB, options={"strategy": "performance"})
    write(engine, "a", disk, "write -P 1 0 64k")
    path = volume_of(world, engine, "a", disk)
    with as_a_stranger(path), path.open("r+b") as file:
        file.write(b"stranger")
    assert rules(engine, "a") == ["O-WRITTEN"]
    with pytest.raises(Refused, match="O-WRITTEN"):
        sparsify.in_place(engine.context, engine.context.repository("a"), disk)
    assert rules(engine, "a") == ["O-WRITTEN"]


def test_a_header_that_contradicts_its_record_is_never_followed_and_is_rewritten(engine, world, tmp_path):
    """The engine reads what the record says; check reports it; the fix mends it; prepare would too."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M")
    base = engine.create_snapshot("a", disk)
    expected = content(engine, "a", disk, tmp_path)
    top = volume_of(world, engine, "a", disk)
    for _ in range(2):
        with as_it_rots(top):
            rebase = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", str(top)]
            subprocess.run(rebase, check=True)
        assert status(engine, "a", disk) == Status.DEGRADED
        assert content(engine, "a", disk, tmp_path) == expected
        assert rules(engine, "a") == ["O-HEADER"]
        if _:
            settle(engine, "a")
        else:
            write(engine, "a", disk, "write -P 1 0 64k")
        info = json.loads(subprocess.check_output(["qemu-img", "info", "-f", "qcow2", "--output=json", top]))
        assert info["backing-filename"] == f"t-{base}"
        assert rules(engine, "a") == []


# -- merges


def test_merging_into_a_base_that_is_smaller_than_the_disk_grows_it_first(engine, world, tmp_path):
    """The disk keeps its size and content."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 2M")
    base = engine.create_snapshot("a", disk)
    large = engine.create_virtual_disk("a", 2 * SIZE, base)
    write(engine, "a", large, "write -P 2 4M 64k")
    expected = content(engine, "a", large, tmp_path)
    engine.remove_image("a", disk)
    engine.remove_image("a", base)
    settle(engine, "a")
    nothing_left_over(world, engine, "a")
    assert content(engine, "a", large, tmp_path) == expected
    assert engine.get_image_status("a", large).size_bytes == 2 * SIZE


def test_a_disk_written_between_two_attempts_of_a_merge_is_merged_as_it_is_now(engine, world, tmp_path):
    """The cursor of the first attempt is void once somebody wrote."""
    disk = engine.create_virtual_disk("a", 64 * MiB)
    write(engine, "a", disk, "write -P 1 0 60M")
    base = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 2 0 50M")
    engine.remove_image("a", base)
    (fix,) = engine.check_storage_repository("a")
    assert fix.plan["direction"] == "down"
    victim = World(world.root, *world.names)
    with pytest.raises(Crashed):
        _crash_at_flush(victim, 2).run_fix_here("a", fix)
    victim.bury()
    write(engine, "a", disk, "write -P 3 0 64k", "write -P 4 55M 64k")
    expected = content(engine, "a", disk, tmp_path)
    settle(engine, "a")
    assert content(engine, "a", disk, tmp_path) == expected
    nothing_left_over(world, engine, "a")


def _crash_at_flush(world, number):
    engine = world.engine("host-v", crash_at=0)
    plain = world.effects.step

    def step(name):
        plain(name)
        if world.effects.names.count("images.open_session.flush") == number:
            world.effects.crash()

    world.effects.step = step
    return engine


def test_an_unfinished_merge_comes_before_a_rebuild(engine, world, tmp_path):
    """A performance disk in the middle of a merge is offered the merge alone, and ends flat. Found by exploring."""
    disk = engine.create_virtual_disk("a", SIZE, options={"strategy": "performance"})
    write(engine, "a", disk, "write -P 1 0 1M")
    base = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 2 0 64k")
    expected = content(engine, "a", disk, tmp_path)
    engine.remove_image("a", base)
    fix = next(fix for fix in engine.check_storage_repository("a") if fix.rule == "M-CHAIN")
    victim = World(world.root, *world.names)
    with pytest.raises(Crashed):
        _crash_at_flush(victim, 1).run_fix_here("a", fix)
    victim.bury()
    assert rules(engine, "a") == ["M-CHAIN"]
    settle(engine, "a")
    nothing_left_over(world, engine, "a")
    assert content(engine, "a", disk, tmp_path) == expected
