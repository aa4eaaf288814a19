"""Fuzzing: random verbs by several hosts, schedules and faults, then recovery without faults."""

from __future__ import annotations

import json

import pytest

from engine.data.model import Status
from engine.errors import StorageError
from sim.disk.content import Content
from sim.explore.cases import operations
from sim.explore.cases.operations import outcomes
from sim.explore.oracle.reference import Found, Image, Model, fitting
from sim.explore.random.fuzz import fuzz, main
from sim.hosts.world import Job

SHARED = "lvm-shared"


@pytest.mark.parametrize("seed", range(11, 31))
def test_a_seed_ends_in_order(seed):
    """Safety while faults happen, then a bounded number of fixes to quiescence."""
    outcome = fuzz(seed)
    assert not outcome.problems
    assert outcome.steps > 0


@pytest.mark.parametrize("seed", [3, 13, 21, 1535])
def test_a_seed_of_hosts_that_share_a_volume_group_ends_in_order(seed):
    """They freeze, lose their power, the storage or their presence. Found so: an error of the storage that was none of
    the engine's (21), and a record that was lost though a host had seen it (1535)."""
    outcome = fuzz(seed, world=SHARED)
    assert not outcome.problems
    assert outcome.steps > 300


@pytest.mark.slow
@pytest.mark.parametrize("seed", [9])
def test_a_seed_of_watched_hosts_with_machines_ends_in_order(seed):
    """The same with machines on each host, which its watchdog ends when it has lost its leases."""
    outcome = fuzz(seed, world="lvm-watched")
    assert not outcome.problems
    assert any("machine of" in line for line in outcome.told)


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_seed_of_hosts_that_share_a_server_ends_in_order(seed):
    """They see each other's names late; machines run there, and an operator works on the server."""
    outcome = fuzz(seed, world="nfs")
    assert not outcome.problems
    assert outcome.steps > 0


@pytest.mark.parametrize("seed", [2, 25])
def test_a_seed_of_a_host_with_a_volume_group_ends_in_order(seed):
    """Several of its processes act at once, beside machines."""
    outcome = fuzz(seed, world="lvm")
    assert not outcome.problems
    assert outcome.steps > 300


def test_the_same_seed_takes_the_same_steps():
    """Everything that is left to chance comes from one tape."""
    one, two = fuzz(7), fuzz(7)
    assert one == two


def test_a_recorded_tape_takes_the_same_steps(tmp_path, capsys):
    """Also where hosts share, and from a file that says which world it is of."""
    recorded = fuzz(2, world=SHARED)
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps({"seed": 2, "world": SHARED, "tape": recorded.tape}))
    assert main(["--replay", str(saved)]) == 0
    assert f"trace {recorded.digest}" in capsys.readouterr().out


def test_what_a_disk_shows_after_a_failed_flush_may_be_old_new_or_both():
    """In the range that was being written, until it is written anew; not beside it, nor in what was acknowledged."""
    image = Image(8192, Content(8192, ()), True, {})
    before = Model().made("a", "disk", image)
    write = operations.write("a", "disk", 0, b"n" * 4096)
    failed, done = Job(), Job()
    failed.error, failed.done, done.done = StorageError("the flush failed"), True, True

    def may_show(models: tuple[Model, ...], content: Content) -> bool:
        seen = {("a", "disk"): Found(8192, True, {}, Status.OPTIMIZED, False, content)}
        return bool(fitting(models, seen, None)[0])

    old, torn = image.content, image.content.write(512, b"n" * 512)
    new, beside = old.write(0, b"n" * 4096), old.write(4096, b"n")
    after = outcomes((before,), [write], [failed])
    assert [may_show(after, content) for content in (old, torn, new, beside)] == [True, True, True, False]
    again = outcomes(after, [write], [done])
    assert [may_show(again, content) for content in (old, torn, new, beside)] == [False, False, True, False]
