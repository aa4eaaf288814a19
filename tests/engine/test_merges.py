"""Several merges of one chain: whatever is killed, and whatever is run next, no image gets worse."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest

from engine.data.model import FixType, Status
from engine.data.records import Operation
from engine.errors import ImageBusy, StaleFix
from engine.fixes import fill, merge
from engine.tags import changes
from tests.crash.kit import SIZE, content, nothing_left_over, settle, write
from tests.engine.kit import Killer, fixes, record, run, state_of, volume_of
from tests.engine.test_gate import machine


def chain(engine, depth):
    """A disk on ``depth`` removed snapshots, in each layer half as much as below it, so that all merges go down; return
    (disk, snapshots from the lowest up)."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 2M")
    snapshots = []
    for number in range(depth):
        snapshots.append(engine.create_snapshot("a", disk))
        write(engine, "a", disk, f"write -P {number + 2} {number * 256}k {1024 >> number}k")
    for snapshot in snapshots:
        engine.remove_image("a", snapshot)
    return disk, snapshots


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_tag_that_is_in_an_unfinished_merge_is_in_no_other(engine, world, monkeypatch, tmp_path, killed):
    """Neither side of it is offered another merge; what was offered before is out of date. All merges still end."""
    disk, snapshots = chain(engine, 3)
    expected = content(engine, "a", disk, tmp_path)
    before = fixes(engine, "a", "M-CHAIN")
    assert {fix.target for fix in before} == set(snapshots)
    killer = Killer(world, monkeypatch)
    killer.before(merge, "_down", lambda engine: run(engine, "a", "M-CHAIN", snapshots[killed]))

    busy = {snapshots[killed], [*snapshots, disk][killed + 1]}
    offered = fixes(engine, "a", "M-CHAIN")
    assert [fix.target for fix in offered if busy & set(fix.images)] == [snapshots[killed]]
    for fix in before:
        if fix.target != snapshots[killed] and busy & set(fix.images):
            with pytest.raises(StaleFix):
                engine.run_fix_here("a", fix)
    assert state_of(engine, "a", disk) == Status.OPTIMIZED
    settle(engine, "a")
    assert content(engine, "a", disk, tmp_path) == expected
    nothing_left_over(world, engine, "a")


def test_merges_of_a_chain_may_run_in_any_order(engine, world, tmp_path):
    """Each order of the three ends in the disk alone, unchanged."""
    for order in itertools.permutations(range(3)):
        disk, snapshots = chain(engine, 3)
        expected = content(engine, "a", disk, tmp_path)
        for number in order:
            run(engine, "a", "M-CHAIN", snapshots[number])
            assert content(engine, "a", disk, tmp_path) == expected
            for clean in fixes(engine, "a"):
                if clean.type == FixType.CLEAN:  # what was merged up still stands on what is below it
                    engine.run_fix_here("a", clean)
        settle(engine, "a")
        engine.remove_image("a", disk)
        settle(engine, "a")
        nothing_left_over(world, engine, "a")


@pytest.mark.parametrize("way", ["down", "fresh"])
def test_no_layer_is_replaced_under_a_machine_that_came_meanwhile(engine, world, monkeypatch, tmp_path, way):
    """Without a lease, by the path of the volume: what it writes there would be in no image, and go with the layer."""
    disk, (snapshot,) = chain(engine, 1)
    expected, before = content(engine, "a", disk, tmp_path), record(engine, "a", disk).volume
    context = engine.context

    def and_a_machine_comes(copy: Callable[..., object]) -> Callable[..., object]:
        def copied(*arguments: object) -> object:
            done = copy(*arguments)
            machines.enter_context(machine(str(volume_of(world, engine, "a", disk))))
            return done

        return copied

    with contextlib.ExitStack() as machines, monkeypatch.context() as patch:
        patch.setattr(fill, "copy_into", and_a_machine_comes(fill.copy_into))
        patch.setattr(fill, "copy_all", and_a_machine_comes(fill.copy_all))
        with pytest.raises(ImageBusy, match="qemu-io"):
            merge.merge(context, context.repository("a"), snapshot, disk, way)
        assert record(engine, "a", disk).volume == before
    settle(engine, "a")
    assert content(engine, "a", disk, tmp_path) == expected
    nothing_left_over(world, engine, "a")


def test_an_executor_that_comes_late_begins_no_second_merge(engine):
    """Whatever it was told when it began: the records of both sides say that they are in another merge."""
    disk, (lower, upper) = chain(engine, 2)
    context, repository = engine.context, engine.context.repository("a")
    changes.change(repository, lower, lambda record: record._replace(absorbed_by=upper))
    changes.change(
        repository, upper, lambda record: record._replace(operation=Operation("merge", other=lower, direction="down"))
    )
    with pytest.raises(StaleFix, match=f"{upper} is in another unfinished merge"):
        merge.merge(context, repository, upper, disk, "up")
    assert record(engine, "a", disk).operation is None


def test_the_lower_side_of_an_unfinished_merge_does_not_become_an_upper_one(engine):
    """It says into what it is being merged."""
    disk, (lower, upper) = chain(engine, 2)
    context, repository = engine.context, engine.context.repository("a")
    changes.change(repository, upper, lambda record: record._replace(absorbed_by=disk))
    begun = Operation("merge", other=upper, direction="down")
    changes.change(repository, disk, lambda record: record._replace(operation=begun))
    for way in ("down", "up"):
        with pytest.raises(StaleFix, match=f"{upper} is being merged into {disk}"):
            merge.merge(context, repository, lower, upper, way)
    assert record(engine, "a", upper).operation is None
    assert [fix.target for fix in fixes(engine, "a", "M-CHAIN")] == [upper]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("final", [False, True])
def test_a_reservation_whose_merge_never_began_holds_nothing_up(engine, world, tmp_path, first, final):
    """One of them was reserved and its executor died before its upper record named the merge: the other merge may run
    first. The disk, which the reserved one would else not let read, reads the same. Found by generated cases."""
    disk, snapshots = chain(engine, 2)
    expected = content(engine, "a", disk, tmp_path)
    reserved, above = [(snapshots[1], disk), (snapshots[0], snapshots[1])][first]
    absorber = above if final else reserved
    changes.change(engine.context.repository("a"), reserved, lambda record: record._replace(absorbed_by=absorber))
    run(engine, "a", "M-CHAIN", snapshots[first])
    assert state_of(engine, "a", disk) == Status.OPTIMIZED
    assert content(engine, "a", disk, tmp_path) == expected
    settle(engine, "a")
    assert content(engine, "a", disk, tmp_path) == expected
    nothing_left_over(world, engine, "a")
