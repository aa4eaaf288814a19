"""Small stories for every verb and every fix: what is there, and what is then done and crashed."""

from __future__ import annotations

from collections.abc import Callable

from sim.explore.cases import fixtures, fixtures_lvm
from sim.explore.cases.driver import FILES, Stage
from sim.explore.cases.fixtures import BLOCK, ODD, SIZE, data, disk, snap
from sim.explore.cases.fixtures_lvm import INSTEAD
from sim.explore.search.explorer import Story
from sim.hosts.world import LVM


def _do(act: Callable[[Stage], object]) -> Callable[[Stage], None]:
    def body(stage: Stage) -> None:
        act(stage)

    return body


def _fix(repo: str, rule: str, deep: bool = False) -> Callable[[Stage], None]:
    return _do(lambda stage: stage.fix(repo, rule, deep=deep))


def _snapshot_twice(stage: Stage) -> None:
    stage.snapshot("a", disk(stage), {"n": 1})
    stage.snapshot("a", disk(stage), {"n": 2}, strategy="performance")


def _with_runner(stage: Stage) -> None:
    stage.copy(("a", snap(stage)), "b")
    stage.wait()


def _remove_all(stage: Stage) -> None:
    for image in ("disk", "snapshot"):
        stage.remove("a", stage.named[image])


def _raw_disk(stage: Stage) -> None:
    fixtures.a_disk(stage, strategy="performance")


VERBS = (
    Story("create-space", fixtures.nothing, _do(lambda s: s.create("a", ODD, user_data={"n": 1}))),
    Story("create-performance", fixtures.nothing, _do(lambda s: s.create("a", ODD, strategy="performance"))),
    Story("create-unmade", fixtures.nothing, _do(lambda s: s.create("a", ODD, auto_fix=False))),
    Story("create-on-base", fixtures.a_chain, _do(lambda s: s.create("a", SIZE, ("a", snap(s))))),
    Story(
        "create-on-base-performance",
        fixtures.a_chain,
        _do(lambda s: s.create("a", SIZE, ("a", snap(s)), strategy="performance")),
    ),
    Story(
        "create-on-base-elsewhere",
        fixtures.a_chain,
        _do(lambda s: s.create("b", SIZE + BLOCK, ("a", snap(s)), auto_fix=False)),
    ),
    Story(
        "create-on-base-elsewhere-performance",
        fixtures.a_chain,
        _do(lambda s: s.create("b", SIZE + BLOCK, ("a", snap(s)), strategy="performance", auto_fix=False)),
    ),
    Story(
        "snapshot", fixtures.a_disk, _do(lambda s: s.snapshot("a", disk(s), {"n": 1})), then=fixtures.base_on_newcomer
    ),
    Story("snapshot-raw", _raw_disk, _do(lambda s: s.snapshot("a", disk(s), strategy="space"))),
    Story("snapshot-twice", fixtures.a_disk, _snapshot_twice),
    Story(
        "snapshot-as-base-of-a-copy",
        fixtures.two_disks_in_two,
        _do(lambda s: s.snapshot("a", disk(s), {"n": 1})),
        then=fixtures.copy_onto_newcomer,
    ),
    Story("copy-committed", fixtures.a_chain, _do(lambda s: s.copy(("a", snap(s)), "b", auto_fix=False)), again=True),
    Story("copy-by-runner", fixtures.a_chain, _with_runner),
    Story(
        "copy-same-base",
        fixtures.a_base_in_b,
        _do(lambda s: s.copy(("a", s.named["second"]), "b", snap(s), auto_fix=False)),
    ),
    Story(
        "copy-other-base",
        fixtures.an_unrelated_base_in_b,
        _do(lambda s: s.copy(("a", snap(s)), "b", s.named["base"], auto_fix=False)),
    ),
    Story(
        "copy-raw", fixtures.a_chain, _do(lambda s: s.copy(("a", snap(s)), "b", strategy="performance", auto_fix=False))
    ),
    Story("copy-disk", fixtures.a_disk, _do(lambda s: s.copy(("a", disk(s)), "b", digest=False, auto_fix=False))),
    Story("remove", fixtures.a_chain, _do(lambda s: s.remove("a", disk(s))), again=True),
    Story("remove-below", fixtures.a_chain, _do(lambda s: s.remove("a", snap(s))), again=True),
    Story("remove-all", fixtures.a_chain, _remove_all),
    Story("restore", fixtures.a_removed_disk, _do(lambda s: s.restore("a", disk(s))), again=True),
    Story("user-data", fixtures.a_disk, _do(lambda s: s.set_user_data("a", disk(s), {"new": [1, 2]})), again=True),
    Story("strategy", fixtures.a_chain, _do(lambda s: s.set_strategy("a", disk(s), "performance")), again=True),
    Story("digest", fixtures.a_chain, _do(lambda s: s.record_digest("a", snap(s))), again=True),
    Story("import", fixtures.a_file, _do(lambda s: s.import_raw("a", f"{FILES}/source.raw", auto_fix=False))),
    Story("export", fixtures.a_chain, _do(lambda s: s.export_raw("a", disk(s), f"{FILES}/out.raw"))),
    Story("machine", fixtures.a_chain, _do(lambda s: s.write("a", disk(s), 64 * 1024, data(9)))),
    Story("machine-wrong-header", fixtures.a_wrong_header, _do(lambda s: s.write("a", disk(s), 64 * 1024, data(9)))),
)
"""What users do. With ``auto_fix`` off the work itself is done, and crashed, in recovery."""

FIXES = (
    Story("mend-copy", fixtures.a_committed_copy, _fix("b", "B-COPY")),
    Story("mend-copy-windows", fixtures.a_copy_with_windows, _fix("b", "B-COPY"), slow=True),
    Story("mend-copy-reflink", fixtures.a_raw_copy_with_shared_blocks, _fix("b", "B-COPY")),
    Story("mend-copy-of-disk", fixtures.a_mutable_copy, _fix("b", "B-COPY")),
    Story("mend-copy-rewritten", fixtures.a_rewritten_source, _fix("b", "B-COPY"), slow=True),
    Story("mend-import", fixtures.an_unfinished_import, _fix("a", "B-IMPORT")),
    Story("mend-replica", fixtures.a_damaged_snapshot, _fix("a", "B-REPLICA")),
    Story("mend-salvage", fixtures.a_shortened_disk, _fix("a", "B-SALVAGE")),
    Story("clean-removed", fixtures.a_removed_disk, _fix("a", "C-REMOVED")),
    Story("clean-begun", fixtures.a_begun_deletion, _fix("a", "C-REMOVED")),
    Story("clean-scrap", fixtures.a_replaced_volume, _fix("a", "C-SCRAP")),
    Story("clean-attempt", fixtures.an_unwanted_attempt, _fix("a", "C-ATTEMPT")),
    Story("clean-evidence", fixtures.a_salvaged_disk, _fix("a", "C-EVIDENCE")),
    Story("clean-losses", fixtures.a_salvaged_disk, _fix("a", "C-LOSSES")),
    Story("clean-record", fixtures.a_damaged_record, _fix("a", "C-RECORD"), strangers=True),
    Story("clean-litter", fixtures.litter_of_all_kinds, _fix("a", "C-LITTER")),
    Story("clean-unnamed", fixtures.a_strange_volume, _fix("a", "C-UNNAMED"), strangers=True),
    Story(
        "clean-unnamed-just-now",
        fixtures.a_volume_twice,
        _do(fixtures.use_the_other_volume),
        then=fixtures.fix_if_offered("a", "C-UNNAMED"),
        strangers=True,
    ),
    Story("clean-lost", fixtures.a_volume_in_quarantine, _fix("a", "C-LOST"), strangers=True),
    Story("merge-down", fixtures.a_raw_chain, _fix("a", "M-CHAIN")),
    Story("merge-begun", fixtures.a_begun_merge, _fix("a", "M-CHAIN")),
    Story("merge-removed", fixtures.a_removed_snapshot, _fix("a", "M-CHAIN")),
    Story("merge-up", fixtures.two_snapshots, _fix("a", "M-CHAIN")),
    Story("optimize-flat", fixtures.an_overlay_that_wants_to_be_flat, _fix("a", "O-FLAT")),
    Story(
        "optimize-beside-a-merge",
        fixtures.two_that_stand_on_a_removed_one,
        _do(lambda s: s.fix("a", "O-FLAT", s.named["second"])),
        then=fixtures.fix_if_offered("a", "M-CHAIN"),
    ),
    Story("optimize-format", fixtures.a_flat_disk_that_wants_the_other_format, _fix("a", "O-FORMAT")),
    Story("optimize-header", fixtures.a_wrong_header, _fix("a", "O-HEADER")),
    Story("optimize-leaks", fixtures.leaked_clusters, _fix("a", "O-LEAKS", deep=True)),
)
"""What operators do."""


STORIES = {story.name: story for story in (*VERBS, *FIXES)}


def _on_lvm(story: Story) -> Story:
    return story._replace(name=f"lvm:{story.name}", prepare=INSTEAD.get(story.prepare, story.prepare), format=LVM)


ONLY_ON_LVM = (
    Story("mend-copy-raw-windows", fixtures_lvm.a_raw_copy_with_windows, _fix("b", "B-COPY"), format=LVM, slow=True),
    Story("optimize-reduce", fixtures_lvm.a_large_snapshot, _fix("a", "O-REDUCE"), format=LVM),
    Story("merge-reduced", fixtures_lvm.a_reduced_snapshot_with_a_larger_one, _fix("a", "M-CHAIN"), format=LVM),
)
"""What needs volumes that take all their room at once."""

_NOT_ON_LVM = ("mend-copy-reflink", "clean-unnamed-just-now")

ON_LVM = {
    story.name: story
    for story in [_on_lvm(story) for story in (*STORIES.values(), *ONLY_ON_LVM) if story.name not in _NOT_ON_LVM]
}
"""The same on logical volumes."""

ALL = {**STORIES, **ON_LVM}
