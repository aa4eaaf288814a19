"""A process that is killed before any one of its effects leaves a repository that another host
finishes with check and fix: nothing lost, nothing half done, nothing left over.

Real files, real qemu-img; the case is run once to count its effects and then for some of them, spread over all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.api import Engine
from engine.data.model import Strategy
from sim.hosts.crash import Crashed
from tests.crash.kit import SIZE, World, content, contents, nothing_left_over, settle, write


class Case(NamedTuple):
    """What is there before, and what the host that dies was doing."""

    name: str
    prepare: Callable[[Engine], dict[str, str]]
    act: Callable[[Engine, dict[str, str]], str | None]
    """Returns the id of what it made, if anything."""
    makes: bool = False
    """An image appears: wholly or not at all."""
    removes: bool = False
    repositories: tuple[str, ...] = ("a",)


def one_disk(engine: Engine) -> dict[str, str]:
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 1M", "write -P 2 2M 64k")
    return {"disk": disk}


def snapshotted(engine: Engine) -> dict[str, str]:
    ids = one_disk(engine)
    ids["snapshot"] = engine.create_snapshot("a", ids["disk"])
    write(engine, "a", ids["disk"], "write -P 3 512k 256k", "write -z 2M 64k")
    return ids


def removed_base(engine: Engine) -> dict[str, str]:
    ids = snapshotted(engine)
    engine.remove_image("a", ids["snapshot"])
    return ids


def removed_small_base(engine: Engine) -> dict[str, str]:
    """The lower layer is the smaller one, so the merge goes up."""
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 1 0 64k", "write -P 2 1M 64k")
    snapshot = engine.create_snapshot("a", disk)
    write(engine, "a", disk, "write -P 3 512k 2M")
    engine.remove_image("a", snapshot)
    return {"disk": disk, "snapshot": snapshot}


def removed_disk(engine: Engine) -> dict[str, str]:
    ids = snapshotted(engine)
    engine.remove_image("a", ids["disk"])
    return ids


def wants_performance(engine: Engine) -> dict[str, str]:
    ids = snapshotted(engine)
    engine.set_strategy("a", ids["disk"], Strategy.PERFORMANCE)
    return ids


def elsewhere(engine: Engine) -> dict[str, str]:
    return snapshotted(engine)


def copied_once(engine: Engine) -> dict[str, str]:
    ids = one_disk(engine)
    ids["copy"] = engine.copy_image("b", ids["disk"], options={"auto_fix": False})
    settle(engine, "b")
    write(engine, "a", ids["disk"], "write -P 7 1M 128k")
    return ids


def run_first(rule: str) -> Callable[[Engine, dict[str, str]], None]:
    def act(engine: Engine, ids: dict[str, str]) -> None:
        fixes = [fix for fix in engine.check_storage_repository("a") if fix.rule == rule]
        assert fixes, rule
        engine.run_fix_here("a", fixes[0])

    return act


def committed_then_fixed(repo: str, image: str, engine: Engine) -> str:
    for fix in engine.check_storage_repository(repo):
        if fix.target == image:
            engine.run_fix_here(repo, fix)
    return image


_CRASHES = 12
NO_FIX = {"auto_fix": False}
CASES = [
    Case("create disk", lambda e: {}, lambda e, i: e.create_virtual_disk("a", SIZE), makes=True),
    Case(
        "create disk on a base",
        snapshotted,
        lambda e, i: e.create_virtual_disk("a", SIZE, i["snapshot"]),
        makes=True,
    ),
    Case(
        "create disk on a base elsewhere",
        elsewhere,
        lambda e, i: committed_then_fixed("b", e.create_virtual_disk("b", SIZE, i["snapshot"], options=NO_FIX), e),
        makes=True,
        repositories=("a", "b"),
    ),
    Case("create snapshot", one_disk, lambda e, i: e.create_snapshot("a", i["disk"]), makes=True),
    Case(
        "copy a snapshot",
        elsewhere,
        lambda e, i: committed_then_fixed("b", e.copy_image("b", i["snapshot"], options=NO_FIX), e),
        makes=True,
        repositories=("a", "b"),
    ),
    Case(
        "copy a disk on its older copy",
        copied_once,
        lambda e, i: committed_then_fixed("b", e.copy_image("b", i["disk"], i["copy"], options=NO_FIX), e),
        makes=True,
        repositories=("a", "b"),
    ),
    Case("remove", snapshotted, lambda e, i: e.remove_image("a", i["snapshot"]), removes=True),
    Case("user data", one_disk, lambda e, i: e.set_user_data("a", i["disk"], {"name": "x"})),
    Case("clean a removed disk", removed_disk, run_first("C-REMOVED"), removes=True),
    Case("merge down", removed_base, run_first("M-CHAIN"), removes=True),
    Case("merge up", removed_small_base, run_first("M-CHAIN"), removes=True),
    Case("flatten", wants_performance, run_first("O-FLAT")),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_killed_before_any_effect_nothing_is_lost_and_nothing_is_left(case: Case, tmp_path: Path):
    """Kill, let another host check and fix, compare all contents. Cases that have more effects than a dozen begin with
    different ones, as many do the same; ``make explore LONG=1`` takes every one, simulated."""
    template = World(tmp_path / "template", *case.repositories).create()
    setup = template.engine("setup")
    ids = case.prepare(setup)
    before = {repo: contents(setup, repo, tmp_path) for repo in case.repositories}
    visible = {repo: {i.id for i in setup.list_images(repo) if not i.removed} for repo in case.repositories}

    whole = template.copy(tmp_path / "whole")
    engine = whole.engine("host-a", crash_at=0)
    case.act(engine, ids)
    effects = whole.effects.names
    assert len(effects) > 3
    after = {repo: contents(whole.engine("host-b"), repo, tmp_path) for repo in case.repositories}
    made = {repo: after[repo].keys() - before[repo].keys() for repo in case.repositories}

    every = -(-len(effects) // _CRASHES)
    for number in range(1 + CASES.index(case) % every, len(effects) + 1, every):
        world = template.copy(tmp_path / f"at-{number}")
        host = world.engine("host-a", crash_at=number)
        try:
            case.act(host, ids)
        except Crashed:
            pass
        else:  # ids are random: where two share a directory there is less to do
            assert len(world.effects.names) < number
        world.bury()
        _recovered(world, case, before, visible, after, made, tmp_path)


def _recovered(world, case, before, visible, after, made, scratch):
    engine = world.engine("host-b")
    for repo in case.repositories:
        for image, data in contents(engine, repo, scratch).items():
            if image in before[repo]:
                assert data == before[repo][image], "an image changed before anything was fixed"
    for repo in case.repositories:
        settle(engine, repo)
        nothing_left_over(world, engine, repo)
        now = contents(engine, repo, scratch)
        for image, data in now.items():
            if image in before[repo]:
                assert data == before[repo][image]
            else:
                assert case.makes
                assert data in after[repo].values(), "a new image is neither absent nor as if acknowledged"
        gone = visible[repo] - now.keys()
        assert not gone or (case.removes and len(gone) == 1)
        assert len(now.keys() - visible[repo]) <= len(made[repo])
    engine.close()


def test_a_removed_image_can_be_restored_until_its_clean_ran(tmp_path: Path):
    """Removal destroys nothing; restore brings the very content back; after the clean it is refused."""
    world = World(tmp_path / "world").create()
    engine = world.engine("host-a")
    ids = snapshotted(engine)
    data = content(engine, "a", ids["disk"], tmp_path)
    engine.remove_image("a", ids["disk"])
    engine.remove_image("a", ids["disk"])
    engine.restore_image("a", ids["disk"])
    assert content(engine, "a", ids["disk"], tmp_path) == data
