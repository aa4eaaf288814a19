"""Plans: the order, what each step leaves, when one is refused, and when it does not hold any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.model import FixCost, Risk, Status
from engine.errors import Ambiguous, Damaged, NotFound
from tests.console_model.conftest import Host
from tests.console_model.kit import GIB, NOW, clean, fix, image, image_id, taking, view
from tui.view.estimates import Sample, Times
from tui.view.plan import Validity, make, validity
from tui.view.snapshot import Counts, lost
from tui.work import plans

NAMES = {image_id(1): "web", image_id(2): "mail", image_id(3): "ci", image_id(4): "erp"}
UNMEASURED = Times()


def seen(*fixes, images=(), **values):
    return view(images, fixes, names=NAMES, **values)


def planned(view, *numbers: int, reserve: float = 0.0, times: Times = UNMEASURED):
    rows = {int(row.id, 16): row for row in view.fixes}
    return make(view, [rows[number] for number in numbers], times, NOW, reserve)


def order(plan) -> list[int]:
    return [int(step.row.id, 16) for step in plan.steps]


def test_the_queue_is_the_order_while_nothing_speaks_against_it():
    """Steps run as they were queued; nothing is said to have moved."""
    plan = planned(seen(fix(1), clean(3, GIB), fix(2)), 2, 1, 3)
    assert order(plan) == [2, 1, 3] and plan.moved == () and plan.runnable


def test_what_frees_the_room_that_another_needs_goes_first():
    """A clean that makes a mend fit is moved before it, and a sentence says so."""
    repo = seen(taking(1, 8 * GIB, free=5 * GIB), taking(2, GIB), clean(3, 6 * GIB), free=5 * GIB)
    plan = planned(repo, 1, 2, 3)
    assert order(plan) == [3, 1, 2]
    assert plan.moved == ("Step 1 was third. It frees the space that step 2 needs.",)
    assert plan.steps[1].after_steps == (1,) and plan.steps[1].needs == "step 1"
    assert plan.refused == ""


def test_what_another_depends_on_goes_first():
    """A base is mended before the image on it."""
    base = fix(2)
    plan = planned(seen(fix(1, depends_on=(base.id,)), base), 1, 2)
    assert order(plan) == [2, 1] and plan.steps[1].after_steps == (1,)
    assert plan.moved == ("Step 1 was second. Step 2 depends on it.",)


def test_space_after_each_step_adds_up():
    """Free space falls by the peak, comes back by what is freed, and the lowest point is told."""
    flat = fix(1, "optimize", cost=FixCost(peak_extra_bytes=4 * GIB, reclaimed_bytes=3 * GIB))
    plan = planned(seen(flat, clean(3, 2 * GIB), taking(2, 5 * GIB), free=20 * GIB), 1, 3, 2)
    assert [(s.free_before // GIB, s.lowest // GIB, s.free_after // GIB) for s in plan.steps] == [
        (20, 16, 19), (19, 19, 21), (21, 16, 16),
    ]  # fmt: skip
    assert (plan.lowest_free // GIB, plan.lowest_at, plan.free_after // GIB) == (16, 1, 16)
    assert [point // GIB for point in plan.curve()] == [20, 16, 19, 19, 21, 16, 16]


def test_a_queue_that_would_go_under_the_reserve_is_refused_with_an_offer():
    """The refusal names the step and the missing amount; offered is what makes enough room, as little as does."""
    repo = seen(taking(1, 8 * GIB), clean(3, 2 * GIB), clean(4, GIB), free=10 * GIB, total=100 * GIB)
    plan = planned(repo, 1, reserve=0.03)
    assert not plan.runnable and plan.stuck == plan.steps[0].row.key
    assert plan.missing_bytes == GIB
    assert "Step 1, mend web, needs 8.0G and 3.0G are kept free: 1.0G are missing" in plan.refused
    assert [offer.row.id for offer in plan.offers] == [clean(3, 1).id]
    assert planned(repo, 1, 3, reserve=0.03).runnable


def test_fixes_that_take_no_room_run_on_a_full_storage():
    """The reserve stops nobody who frees room or takes none."""
    assert planned(seen(clean(3, GIB), fix(1), free=0), 1, 3, reserve=0.5).runnable


def test_what_waits_for_something_else_is_left_out_with_its_reason():
    """A missing source cannot be planned for."""
    plan = planned(seen(fix(1, waits_for="image 7 to copy from"), fix(2)), 1, 2)
    assert order(plan) == [2]
    assert [(item.row.name, item.why) for item in plan.skipped] == [("web", "it waits for image 7 to copy from")]


def test_what_depends_on_something_that_was_not_chosen_is_left_out_with_an_offer():
    """The base that would have to be mended first is offered."""
    base = fix(2)
    plan = planned(seen(fix(1, depends_on=(base.id,)), base), 1)
    assert plan.steps == () and "depends on mend mail" in plan.skipped[0].why
    assert [offer.row.id for offer in plan.offers] == [base.id]


def test_what_needs_another_host_as_manager_is_left_out():
    """A fix that needs the SRM is not planned where another host has that role."""
    repo = seen(fix(1, needs_srm=True))._replace(srm="host-c")
    assert "the SRM, host-c" in planned(repo, 1).skipped[0].why
    assert planned(repo._replace(srm="host-a"), 1).steps[0].needs == "SRM"


def test_statuses_afterwards():
    """Counts follow the images: mended, cleaned away, and those that stood on a broken base."""
    images = [
        image(1, Status.BROKEN), image(2, Status.DEGRADED), image(3, removed=True),
        image(5, Status.BROKEN, rule="B-BASE", reason=f"needs image {image_id(1)}: its data is gone"),
    ]  # fmt: skip
    fixes = (fix(1), fix(2, "optimize", status_before="degraded"), clean(3, GIB))
    plan = planned(seen(*fixes, images=images, dependants={image_id(1): 1}), 1, 2, 3)
    assert plan.counts_before == Counts(broken=2, degraded=1, removed=1)
    assert plan.counts_after == Counts(optimized=3)


def test_what_is_left_broken_is_told():
    """An image that stays broken is named with what it waits for, or with the fix that was not chosen."""
    images = [image(1, Status.BROKEN), image(2, Status.BROKEN), image(4, Status.UNKNOWN, reason="EIO")]
    plan = planned(seen(fix(1), fix(2, waits_for="its source"), images=images))
    assert plan.left == ("web: mend web is not in the plan.", "mail: It waits for its source.", "erp: EIO.")


def test_what_can_never_be_undone_is_told():
    """Deleting, losing data and merging have a sentence each; a copy has none."""
    lossy = fix(4, risk=Risk.LOSES_DATA, why="Zeros take the place of lost data")
    merge = fix(2, "merge", risk=Risk.IRREVERSIBLE)
    plan = planned(seen(fix(1), clean(3, GIB), lossy, merge), 1, 3, 4, 2)
    assert plan.never == (
        "Step 2 deletes ci (1.0G): it cannot be restored then.",
        "Step 3 loses data: Zeros take the place of lost data.",
        "Step 4 makes mail one: they cannot be separated again.",
    )


def test_the_id_says_what_is_run_in_which_order():
    """The same fixes in the same order have the same id; another order or another fix has another."""
    repo = seen(fix(1), fix(2))
    assert planned(repo, 1, 2).id == planned(repo, 1, 2).id != planned(repo, 2, 1).id
    assert planned(repo, 1).id != planned(seen(fix(1)._replace(id="f" * 16)), 0xFFFFFFFFFFFFFFFF).id


def test_a_plan_goes_stale_when_an_image_changes():
    """A fix with another id means the facts have changed: the plan says how many images, and since when."""
    plan = planned(seen(fix(1), fix(2)), 1, 2)
    assert validity(plan, seen(fix(1), fix(2))) == Validity(True)
    found = validity(plan, seen(fix(1), fix(2)._replace(id="f" * 16)))
    assert not found.valid and found.reason.startswith("1 image has changed since ")


def test_a_plan_goes_stale_when_somebody_works_on_an_image():
    """The reason names who."""
    plan = planned(seen(fix(1), images=[image(1, Status.BROKEN)]), 1)
    busy = seen(images=[image(1, Status.BROKEN, busy="copy by host b")])
    assert validity(plan, busy).reason == "web is being worked on: copy by host b"


def test_a_plan_goes_stale_when_the_room_is_gone():
    """Space that others took counts too."""
    plan = planned(seen(taking(1, 8 * GIB), free=10 * GIB), 1, reserve=0.005)
    assert validity(plan, seen(taking(1, 8 * GIB), free=10 * GIB)).valid
    assert "step 1 would not fit" in validity(plan, seen(taking(1, 8 * GIB), free=5 * GIB)).reason


def test_a_plan_is_stale_while_the_repository_cannot_be_read():
    """Nothing is known to hold about storage that does not answer."""
    repo = seen(fix(1))
    assert "cannot be read" in validity(planned(repo, 1), lost(repo, "storage-error", "gone", "", NOW)).reason
    assert "another repository" in validity(planned(repo, 1), repo._replace(identity="f" * 32)).reason


def test_times_are_a_range_with_its_source_or_nothing():
    """The range of all steps is told with its source; one kind of step that was never measured leaves none."""
    times = Times([Sample("mend", "M-1", GIB, 10.0), Sample("mend", "M-1", GIB, 20.0)])
    repo = seen(taking(1, GIB // 2), clean(3, 1))
    plan = planned(repo, 1, times=times)
    assert (plan.time.low_s, plan.time.high_s, plan.time.source) == (10.0, 20.0, "from 2 earlier runs on this host")
    assert planned(repo, 1, 3, times=times).time.text == "?"
    assert "1 of 2 steps" in planned(repo, 1, 3, times=times).time.source


def test_an_empty_queue_is_an_empty_plan():
    """Nothing is run, nothing changes, nothing is refused."""
    plan = planned(seen(fix(1)))
    assert not plan.runnable and plan.free_after == plan.free_before and plan.counts_after == plan.counts_before


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=9), st.integers(0, 30))
def test_no_step_of_a_plan_that_may_run_goes_under_the_reserve(costs: list[tuple[int, int]], free: int):
    """Whatever the queue: each fix is there once, and when the plan is not refused no step that takes room leaves
    less than the reserve."""
    fixes = [
        fix(n, cost=FixCost(peak_extra_bytes=peak * GIB, reclaimed_bytes=back * GIB))
        for n, (peak, back) in enumerate(costs, 1)
    ]
    repo = view([], fixes, free=free * GIB, total=100 * GIB)
    plan = make(repo, repo.fixes, Times(), NOW, 0.02)
    assert sorted(order(plan)) == list(range(1, len(costs) + 1))
    if not plan.refused:
        assert all(step.lowest >= plan.reserve_bytes for step in plan.steps if step.row.peak_bytes)


# -- as files


@pytest.fixture
def saved(host: Host):
    repo = seen(taking(1, 200 * GIB, free=GIB), clean(3, GIB), fix(2, waits_for="x"), images=[image(1, Status.BROKEN)])
    plan = planned(repo, 1, 3, 2, reserve=0.1)
    plans.save(host.notes, plan)
    return plan


def test_a_saved_plan_is_the_same_plan(host: Host, saved):
    """Every field survives; it is found by the beginning of its id."""
    assert plans.load(host.notes, "e" * 32, saved.id) == saved
    assert plans.load(host.notes, "e" * 32, saved.short.upper()) == saved


def test_an_unknown_or_ambiguous_plan_is_an_error(host: Host, saved):
    """A wrong id is named; so is one that is the beginning of two."""
    for text in ("ffff", "", saved.id[:3], "../x"):
        with pytest.raises(NotFound):
            plans.load(host.notes, "e" * 32, text)
    with pytest.raises(NotFound):
        plans.load(host.notes, "f" * 32, saved.id)
    name = saved.id[:4] + "0" * 12
    path = Path(host.notes.path(f"{'e' * 32}/plans"))
    (path / f"{name}.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Ambiguous):
        plans.load(host.notes, "e" * 32, saved.short)


def test_a_plan_that_was_edited_is_not_run(host: Host, saved):
    """Its id is a hash of what it runs: steps that were exchanged are noticed."""
    path = Path(host.notes.path(f"{'e' * 32}/plans/{saved.id}.json"))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(fix(1).id, fix(9).id), encoding="utf-8")
    with pytest.raises(Damaged, match="not what its name says"):
        plans.load(host.notes, "e" * 32, saved.id)
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(Damaged):
        plans.load(host.notes, "e" * 32, saved.id)


def test_old_plans_are_forgotten(host: Host):
    """Looking at plans for years does not fill the disk."""
    for number in range(60):
        plans.save(host.notes, planned(seen(fix(number + 1)), number + 1))
    assert len(host.notes.names(f"{'e' * 32}/plans", ".json")) == 50


def test_a_fix_that_only_a_deep_look_finds_is_not_missed_by_a_quick_one():
    """A quick look does not offer it, which says nothing; a deep look that does not offer it makes the plan stale."""
    plan = planned(seen(fix(1, deep=True), deep=True), 1)
    assert validity(plan, seen()).valid
    assert not validity(plan, seen(deep=True)).valid
