"""The home screen: default priorities, the operator's own, order, what is hidden, what is gone."""

from __future__ import annotations

import pytest

from engine.data.model import FixCost, Risk, Status
from tests.console_model.conftest import Host
from tests.console_model.kit import GIB, clean, fix, image, image_id, operation, taking, view
from tui.text.words import RunState, Undo
from tui.view.query import parse
from tui.work.decisions import Decisions, DecisionStore
from tui.work.triage import Marked, TriageOrder, queued_rows, same_kind, triage


def priorities(*fixes, **values) -> list[int]:
    return [row.priority for row in view([], fixes, **values).fixes]


def test_default_priorities():
    """Mend is P1, optimize P3, clean and merge are housekeeping while there is room."""
    found = priorities(fix(1), fix(2, "optimize"), fix(3, "merge"), clean(4, GIB))
    assert found == [1, 3, 4, 4]


def test_cleaning_is_urgent_when_space_is_low():
    """With less than a tenth free clean is P2, but not what loses data."""
    assert priorities(clean(1, GIB), clean(2, GIB, risk=Risk.LOSES_DATA), free=9 * GIB, total=100 * GIB) == [2, 4]
    assert priorities(clean(1, GIB), free=11 * GIB, total=100 * GIB) == [4]


def test_cleaning_is_urgent_when_a_mend_waits_for_room():
    """A mend that does not fit makes what frees room P2, merges too."""
    frees = fix(3, "merge", cost=FixCost(reclaimed_bytes=GIB))
    assert priorities(taking(1, 200 * GIB), clean(2, GIB), frees) == [1, 2, 2]


def test_a_merge_that_unlocks_a_mend_is_p2():
    """What unblocks something urgent is nearly as urgent."""
    mend = fix(1)
    assert priorities(mend, fix(2, "merge", unlocks=(mend.id,)), fix(3, "merge")) == [1, 2, 4]


def test_the_operator_decides():
    """An own priority wins, sorts, and is marked with a star."""
    seen = view([], [fix(1), fix(2, "optimize")])
    rows = triage(seen, Decisions(priorities={seen.fixes[1].key: 1, seen.fixes[0].key: 2})).rows
    assert [(row.fix.type, row.priority_text) for row in rows] == [("optimize", "P1*"), ("mend", "P2*")]


def test_inside_a_priority_dependants_then_time_decide():
    """Of two mends that with more dependants comes first, then the quicker one, then those without an estimate."""
    slow, quick = (fix(n, cost=FixCost(eta_s=eta)) for n, eta in ((1, 90.0), (2, 9.0)))
    seen = view([], [slow, quick, fix(3), fix(4)], dependants={image_id(4): 2})
    assert [int(row.fix.id, 16) for row in triage(seen, Decisions()).rows] == [4, 2, 1, 3]


@pytest.mark.parametrize(
    ("order", "wanted"),
    [(TriageOrder.SPACE, [3, 1, 2]), (TriageOrder.IMAGE, [2, 1, 3]), (TriageOrder.TYPE, [3, 1, 2])],
)
def test_other_orders(order: TriageOrder, wanted: list[int]):
    """By space what frees most comes first; by image and by type they are sorted as words."""
    names = {image_id(1): "b", image_id(2): "a", image_id(3): "c"}
    seen = view([], [fix(1), taking(2, GIB), clean(3, GIB)], names=names)
    assert [int(row.fix.id, 16) for row in triage(seen, Decisions(), order=order).rows] == wanted


def test_what_is_snoozed_is_hidden_and_counted():
    """A snoozed fix is not in the list, is counted, and can be shown."""
    seen = view([], [fix(1), fix(2)])
    decisions = Decisions(snoozed=frozenset({seen.fixes[0].key}))
    found = triage(seen, decisions)
    assert (len(found.rows), found.total, found.snoozed, found.filtered) == (1, 2, 1, 0)
    assert len(triage(seen, decisions, show_snoozed=True).rows) == 2


def test_the_filter_tells_how_many_it_hides():
    """A filter that matches one of three says so."""
    seen = view([], [fix(1), fix(2), clean(3, 1)])
    found = triage(seen, Decisions(), parse("type:clean"))
    assert (len(found.rows), found.filtered, found.total) == (1, 2, 3)


def test_data_that_no_image_shows_is_found_by_its_status():
    """HID stands in the list, so a filter knows it."""
    seen = view([], [clean(1, GIB, status_before="hidden"), fix(2)])
    query = parse("status:hid")
    assert [row.fix.type for row in triage(seen, Decisions(), query).rows] == ["clean"] and not query.hints


def test_a_queued_fix_that_vanished_is_gone_with_a_note(host: Host):
    """A fix that somebody else has done stays in the list as GONE, and the note says who worked there."""
    before = view([image(1, Status.BROKEN)], [fix(1)], names={image_id(1): "web"})
    store = DecisionStore(host.notes, before.identity)
    store.queue(before.fixes)
    after = view([image(1, operation=operation("host-b"))], [], names={image_id(1): "web"})
    row = triage(after, store.now()).rows[0]
    assert (row.state, row.note) == (RunState.GONE, "web is OPTIMIZED now; last: copy by host-b")
    assert queued_rows(after, store.now()) == [] and queued_rows(before, store.now()) == list(before.fixes)


def test_what_is_gone_is_no_step(host: Host):
    """The number of a queued fix is that of its step in the plan: one that vanished has none and is not counted."""
    seen = view([image(1, Status.BROKEN), image(2, Status.BROKEN)], [fix(1), fix(2)])
    store = DecisionStore(host.notes, seen.identity)
    store.queue(seen.fixes)
    rows = triage(view([image(2, Status.BROKEN)], [fix(2)]), store.now()).rows
    assert [(row.state, row.queued, row.position) for row in rows] == [(None, True, 1), (RunState.GONE, True, 0)]


def test_a_queued_fix_whose_image_is_worked_on_is_running(host: Host):
    """While somebody holds the image check offers nothing; the row says who."""
    before = view([image(1, Status.BROKEN)], [fix(1)])
    store = DecisionStore(host.notes, before.identity)
    store.queue(before.fixes)
    row = triage(view([image(1, Status.BROKEN, busy="copy by host b")], []), store.now()).rows[0]
    assert (row.state, row.note) == (RunState.RUNNING, "copy by host b")


def test_a_lost_repository_does_not_make_fixes_gone(host: Host):
    """A repository that was never read says nothing about queued fixes."""
    store = DecisionStore(host.notes, "e" * 32)
    store.queue(view([], [fix(1)]).fixes)
    assert triage(view()._replace(scanned_at=0.0), store.now()).rows == ()


def test_what_a_run_says_is_shown():
    """A fix of a run has its state and reason."""
    seen = view([], [fix(1)])
    row = triage(seen, Decisions(), marked={seen.fixes[0].key: Marked(RunState.WAITING, "step 1")}).rows[0]
    assert (row.state, row.note) == (RunState.WAITING, "step 1")


def test_all_of_a_kind_leaves_out_what_loses_data():
    """`a` takes the fixes of one type, never one that loses data unless the cursor is on it."""
    lossy = clean(2, 1, risk=Risk.LOSES_DATA)
    rows = triage(view([], [clean(1, 1), lossy, fix(3)]), Decisions()).rows
    harmless = next(row for row in rows if row.fix.id == clean(1, 1).id)
    assert {row.id for row in same_kind(rows, harmless)} == {clean(1, 1).id}
    assert lossy.id in {row.id for row in same_kind(rows, next(row for row in rows if row.fix.loses_data))}


def test_undo_class_and_label():
    """What deletes or overwrites is never undone; a removed image is named as such."""
    seen = view([], [clean(1, 1), fix(2), fix(3, "merge", risk=Risk.REWRITES_BASE)], names={image_id(1): "ci"})
    assert [row.undo for row in seen.fixes] == [Undo.NEVER, Undo.STOP, Undo.NEVER]
    assert seen.fixes[0].what == "clean (removed) ci"
