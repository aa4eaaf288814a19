"""Small cases for every verb and every fix: what is there, and what is then done and crashed."""

from __future__ import annotations

from collections.abc import Callable

from engine.triage import rules
from sim.explore.cases.case import Case
from sim.explore.cases.driver import FILES, Driver
from sim.explore.cases.fixtures import damage, images, lvm, others
from sim.explore.cases.fixtures.images import BLOCK, ODD, SIZE, data, disk, snap
from sim.explore.cases.fixtures.lvm import INSTEAD
from sim.hosts.world import LVM, SHARED


def _do(operation: Callable[[Driver], object]) -> Callable[[Driver], None]:
    def body(driver: Driver) -> None:
        operation(driver)

    return body


def _fix(repo: str, rule: str, deep: bool = False) -> Callable[[Driver], None]:
    return _do(lambda driver: driver.fix(repo, rule, deep=deep))


def _snapshot_twice(driver: Driver) -> None:
    driver.snapshot("a", disk(driver), {"n": 1})
    driver.snapshot("a", disk(driver), {"n": 2}, strategy="performance")


def _with_runner(driver: Driver) -> None:
    driver.copy(("a", snap(driver)), "b")
    driver.wait()


def _remove_all(driver: Driver) -> None:
    for image in ("disk", "snapshot"):
        driver.remove("a", driver.named[image])


def _snapshot_after_a_careless_machine(driver: Driver) -> None:
    driver.write_unsafe("a", disk(driver), 64 * 1024, data(9, 512))
    driver.snapshot_of_what_is_seen("a", disk(driver))


def _adopt_what_a_careless_tool_did(driver: Driver) -> None:
    driver.grow_unsafe("a", disk(driver), SIZE + 2 * BLOCK)
    driver.adopt_what_is_seen("a", disk(driver))


def _accept_what_a_stranger_wrote(driver: Driver) -> None:
    driver.write_as_a_stranger("a", disk(driver), 64 * 1024, data(9, 512))
    driver.accept_what_was_written("a", disk(driver))


def _adopt_a_base(driver: Driver) -> None:
    images.adopt_them(driver)
    driver.fix("a", rules.B_ADOPT, driver.named["base"])
    driver.models = (driver.model.exported(images.BASE, None),)


def _give_a_file_back(driver: Driver) -> None:
    content = driver.model.kept[images.TOP]
    driver.fix("a", rules.C_REMOVED)
    driver.models = (driver.model.exported(images.TOP, content),)


def _prepared(driver: Driver) -> None:
    driver.engine().prepare_image("a", disk(driver))


def _raw_disk(driver: Driver) -> None:
    images.a_disk(driver, strategy="performance")


VERBS = (
    Case("create-space", images.nothing, _do(lambda s: s.create("a", ODD, user_data={"n": 1}))),
    Case("create-performance", images.nothing, _do(lambda s: s.create("a", ODD, strategy="performance"))),
    Case("create-unmade", images.nothing, _do(lambda s: s.create("a", ODD, auto_fix=False))),
    Case("create-on-base", images.a_chain, _do(lambda s: s.create("a", SIZE, ("a", snap(s))))),
    Case(
        "create-on-base-performance",
        images.a_chain,
        _do(lambda s: s.create("a", SIZE, ("a", snap(s)), strategy="performance")),
    ),
    Case(
        "create-on-base-elsewhere",
        images.a_chain,
        _do(lambda s: s.create("b", SIZE + BLOCK, ("a", snap(s)), auto_fix=False)),
    ),
    Case(
        "create-on-base-elsewhere-performance",
        images.a_chain,
        _do(lambda s: s.create("b", SIZE + BLOCK, ("a", snap(s)), strategy="performance", auto_fix=False)),
    ),
    Case("snapshot", images.a_disk, _do(lambda s: s.snapshot("a", disk(s), {"n": 1})), then=others.base_on_newcomer),
    Case("snapshot-raw", _raw_disk, _do(lambda s: s.snapshot("a", disk(s), strategy="space"))),
    Case("snapshot-unflushed", images.a_disk, _snapshot_after_a_careless_machine),
    Case("snapshot-unflushed-raw", _raw_disk, _snapshot_after_a_careless_machine),
    Case(
        "snapshot-group",
        images.two_disks,
        _do(lambda s: s.snapshots("a", images.both(s), {"n": 1})),
        then=others.base_on_newcomers,
    ),
    Case("snapshot-twice", images.a_disk, _snapshot_twice),
    Case(
        "snapshot-as-base-of-a-copy",
        images.two_disks_in_two,
        _do(lambda s: s.snapshot("a", disk(s), {"n": 1})),
        then=others.copy_onto_newcomer,
    ),
    Case("copy-committed", images.a_chain, _do(lambda s: s.copy(("a", snap(s)), "b", auto_fix=False)), again=True),
    Case("copy-by-runner", images.a_chain, _with_runner),
    Case(
        "copy-same-base",
        images.a_base_in_b,
        _do(lambda s: s.copy(("a", s.named["second"]), "b", snap(s), auto_fix=False)),
    ),
    Case(
        "copy-other-base",
        images.an_unrelated_base_in_b,
        _do(lambda s: s.copy(("a", snap(s)), "b", s.named["base"], auto_fix=False)),
    ),
    Case(
        "copy-raw", images.a_chain, _do(lambda s: s.copy(("a", snap(s)), "b", strategy="performance", auto_fix=False))
    ),
    Case("copy-disk", images.a_disk, _do(lambda s: s.copy(("a", disk(s)), "b", digest=False, auto_fix=False))),
    Case("remove", images.a_chain, _do(lambda s: s.remove("a", disk(s))), again=True),
    Case("remove-below", images.a_chain, _do(lambda s: s.remove("a", snap(s))), again=True),
    Case("remove-all", images.a_chain, _remove_all),
    Case("restore", images.a_removed_disk, _do(lambda s: s.restore("a", disk(s))), again=True),
    Case("user-data", images.a_disk, _do(lambda s: s.set_user_data("a", disk(s), {"new": [1, 2]})), again=True),
    Case("resize", images.a_chain, _do(lambda s: s.resize("a", disk(s), SIZE + 2 * BLOCK)), again=True),
    Case("resize-raw", _raw_disk, _do(lambda s: s.resize("a", disk(s), SIZE + 2 * BLOCK))),
    Case("revert", images.a_chain, _do(lambda s: s.revert("a", disk(s), snap(s)))),
    Case("strategy", images.a_chain, _do(lambda s: s.set_strategy("a", disk(s), "performance")), again=True),
    Case("digest", images.a_chain, _do(lambda s: s.record_digest("a", snap(s))), again=True),
    Case("import", images.a_file, _do(lambda s: s.import_raw("a", f"{FILES}/source.raw", auto_fix=False))),
    Case("adopt-files", images.a_chain_of_files, _adopt_a_base),
    Case("export", images.a_chain, _do(lambda s: s.export_raw("a", disk(s), f"{FILES}/out.raw"))),
    Case("machine", images.a_chain, _do(lambda s: s.write("a", disk(s), 64 * 1024, data(9)))),
    Case("machine-unflushed", _raw_disk, _do(lambda s: s.write_unsafe("a", disk(s), 64 * 1024, data(9, 512)))),
    Case("machine-wrong-header", damage.a_wrong_header, _do(lambda s: s.write("a", disk(s), 64 * 1024, data(9)))),
)
"""What users do. With ``auto_fix`` off the work itself is done, and crashed, in recovery."""

FIXES = (
    Case("mend-copy", images.a_committed_copy, _fix("b", rules.B_COPY)),
    Case("mend-copy-windows", images.a_copy_with_windows, _fix("b", rules.B_COPY), slow=True),
    Case("mend-copy-reflink", images.a_raw_copy_with_shared_blocks, _fix("b", rules.B_COPY)),
    Case("mend-copy-of-layers-reflink", images.a_copy_of_layers_with_shared_blocks, _fix("b", rules.B_COPY)),
    Case("mend-copy-of-disk", images.a_mutable_copy, _fix("b", rules.B_COPY)),
    Case("mend-copy-rewritten", images.a_rewritten_source, _fix("b", rules.B_COPY), slow=True),
    Case("mend-import", images.an_unfinished_import, _fix("a", rules.B_IMPORT)),
    Case("mend-replica", damage.a_damaged_snapshot, _fix("a", rules.B_REPLICA)),
    Case("mend-salvage", damage.a_shortened_disk, _fix("a", rules.B_SALVAGE)),
    Case("clean-removed", images.a_removed_disk, _fix("a", rules.C_REMOVED)),
    Case("clean-adopted", images.an_adoption_without_the_old_name, _give_a_file_back),
    Case("clean-begun", images.a_begun_deletion, _fix("a", rules.C_REMOVED)),
    Case("clean-scrap", images.a_replaced_volume, _fix("a", rules.C_SCRAP)),
    Case("clean-attempt", images.an_unwanted_attempt, _fix("a", rules.C_ATTEMPT)),
    Case("clean-evidence", damage.a_salvaged_disk, _fix("a", rules.C_EVIDENCE)),
    Case("clean-losses", damage.a_salvaged_disk, _fix("a", rules.C_LOSSES)),
    Case("mend-lost", damage.a_disk_whose_volume_is_in_quarantine, _fix("a", rules.B_LOST)),
    Case("mend-older", damage.an_older_record, _fix("a", rules.B_OLDER), strangers=True),
    Case("mend-record", damage.a_damaged_record, _fix("a", rules.B_RECORD)),
    Case("clean-record", damage.a_lost_record, _fix("a", rules.C_RECORD), strangers=True),
    Case("clean-litter", damage.litter_of_all_kinds, _fix("a", rules.C_LITTER)),
    Case("clean-unnamed", damage.a_strange_volume, _fix("a", rules.C_UNNAMED), strangers=True),
    Case(
        "clean-unnamed-just-now",
        images.a_volume_twice,
        _do(others.use_the_other_volume),
        then=others.clean_up_to_the_end,
        strangers=True,
    ),
    Case("clean-lost", damage.a_volume_in_quarantine, _fix("a", rules.C_LOST), strangers=True),
    Case("merge-down", images.a_raw_chain, _fix("a", rules.M_CHAIN)),
    Case("merge-begun", images.a_begun_merge, _fix("a", rules.M_CHAIN)),
    Case("merge-removed", images.a_removed_snapshot, _fix("a", rules.M_CHAIN)),
    Case("merge-up", images.two_snapshots, _fix("a", rules.M_CHAIN)),
    Case("merge-down-larger", images.a_larger_disk_without_data, _fix("a", rules.M_CHAIN)),
    Case("optimize-flat", images.an_overlay_that_wants_to_be_flat, _fix("a", rules.O_FLAT)),
    Case(
        "optimize-beside-a-merge",
        images.two_that_stand_on_a_removed_one,
        _do(lambda s: s.fix("a", rules.O_FLAT, s.named["second"])),
        then=others.fix_if_offered("a", rules.M_CHAIN),
    ),
    Case("optimize-format", images.a_flat_disk_that_wants_the_other_format, _fix("a", rules.O_FORMAT)),
    Case("optimize-header", damage.a_wrong_header, _fix("a", rules.O_HEADER)),
    Case("adopt-grown", damage.a_grown_disk, _fix("a", rules.O_GROWN)),
    Case("adopt-grown-raw", damage.a_grown_raw_disk, _fix("a", rules.O_GROWN)),
    Case("adopt-grown-unflushed", _raw_disk, _adopt_what_a_careless_tool_did, strangers=True),
    Case("accept-written", _raw_disk, _accept_what_a_stranger_wrote, strangers=True),
    Case("optimize-leaks", damage.leaked_clusters, _fix("a", rules.O_LEAKS, deep=True)),
    Case("optimize-zeros", damage.zeros_that_take_room, _fix("a", rules.O_ZEROS, deep=True), slow=True),
)
"""What operators do."""


CASES = {case.name: case for case in (*VERBS, *FIXES)}


def _on_lvm(case: Case) -> Case:
    return case._replace(name=f"lvm:{case.name}", prepare=INSTEAD.get(case.prepare, case.prepare), format=LVM)


def _adopt_volumes(driver: Driver) -> None:
    lvm.adopt_them(driver)
    driver.fix("a", rules.B_ADOPT, driver.named["base"])
    driver.fix("a", rules.B_ADOPT, driver.named["top"])


ONLY_ON_LVM = (
    Case("adopt-volumes", lvm.a_chain_of_volumes, _adopt_volumes, format=LVM),
    Case("mend-adopted-volume", lvm.an_adoption, _fix("a", rules.B_ADOPT), format=LVM),
    Case("clean-adopted-volume", lvm.an_adoption_without_the_old_name, _fix("a", rules.C_REMOVED), format=LVM),
    Case("mend-copy-raw-windows", lvm.a_raw_copy_with_windows, _fix("b", rules.B_COPY), format=LVM, slow=True),
    Case("optimize-reduce", lvm.a_large_snapshot, _fix("a", rules.O_REDUCE), format=LVM),
    Case("merge-reduced", lvm.a_reduced_snapshot_with_a_larger_one, _fix("a", rules.M_CHAIN), format=LVM),
)
"""What needs volumes that take all their room at once."""

_NOT_ON_LVM = (
    "mend-copy-reflink",
    "mend-copy-of-layers-reflink",
    "clean-unnamed-just-now",
    "adopt-files",
    "clean-adopted",
    "adopt-grown-raw",
    "adopt-grown-unflushed",
    "accept-written",
    "snapshot-unflushed",
    "mend-older",
    "optimize-zeros",
)
"""What is for files only. A cluster that was never flushed may show what the device had there before, a device does not
tell that it was written to and has no holes, and a record has no file that can go."""

ON_LVM = {
    case.name: case
    for case in [_on_lvm(case) for case in (*CASES.values(), *ONLY_ON_LVM) if case.name not in _NOT_ON_LVM]
}
"""The same on logical volumes."""

ALL = {**CASES, **ON_LVM}

SHARED_BY_HOSTS = {
    f"shared:{name}": ON_LVM[f"lvm:{name}"]._replace(name=f"shared:{name}", format=SHARED)
    for name in ("snapshot", "merge-begun", "mend-copy", "remove", "optimize-format", "merge-up")
} | {"shared:prepared": Case("shared:prepared", images.a_disk, _prepared, format=SHARED)}
"""Some in volume groups that hosts share; in one the host dies with a disk prepared."""

BEFORE_USES = {
    f"old:{name}": CASES[name]._replace(name=f"old:{name}", uses=False)
    for name in ("snapshot", "snapshot-as-base-of-a-copy", "remove-below", "strategy", "clean-evidence", "merge-up")
}
"""Some in repositories that were made before there were uses: there all records are read."""

ENTERING = {
    case.name: case
    for case in (
        Case("old:enter-uses", images.two_that_stand_on_a_removed_one, _fix("a", rules.O_USES), uses=False),
        Case(
            "old:enter-uses-of-snapshots",
            images.a_snapshot_beside_an_unfinished_one,
            _fix("a", rules.O_USES),
            uses=False,
        ),
        Case("old:enter-uses-of-a-merge", images.a_begun_merge, _fix("a", rules.O_USES), uses=False),
    )
}
"""Such repositories are given uses."""

LONG = {
    case.name: case
    for case in (
        Case("merge-run", images.a_run, _fix("a", rules.M_CHAIN)),
        Case("merge-run-down", images.a_run_on_nothing, _fix("a", rules.M_CHAIN)),
    )
}
"""Some that take minutes each: explored whole where they are named."""

EXPLORED = ALL | LONG | ENTERING
"""What can be named, and what a violation can be of."""
