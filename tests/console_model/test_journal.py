"""The timeline: what this host did and saw, once each, bounded, kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.model import Status
from tests.console_model.conftest import Demo, Host
from tests.console_model.kit import NOW, image, image_id, operation, view
from tui.view import live
from tui.view.gather import gather
from tui.view.snapshot import lost
from tui.work.journal import MAX_EVENTS, Event, Journal, changes

IDENTITY = "e" * 32


def event(number: int, mark: str = "") -> Event:
    return Event(float(number), "host-a", "run", image_id(1), "web", f"step {number}", mark)


def test_events_are_kept_in_order_and_bounded(host: Host):
    """Another console sees them at once; the oldest of very many are forgotten."""
    Journal(host.notes, IDENTITY).add([event(number) for number in range(MAX_EVENTS + 10)])
    found = Journal(host.notes, IDENTITY).events()
    assert len(found) == MAX_EVENTS and found[-1] == event(MAX_EVENTS + 9) and found[0] == event(10)


def test_what_two_consoles_saw_is_told_once(host: Host):
    """The same change, noted by two consoles, is one event."""
    for _ in range(2):
        Journal(host.notes, IDENTITY).add([event(1, "the same")])
    assert len(Journal(host.notes, IDENTITY).events()) == 1


def test_the_lane_of_an_image_has_all_hosts(host: Host):
    """Who did which stage, on one line per image."""
    broken = image(1, Status.BROKEN, operation=operation("host-b"))
    first = view([broken], names={image_id(1): "web"})
    mended = image(1, operation=operation("host-c", 100, stage=3, stages=3, when=NOW + 5))
    journal = Journal(host.notes, IDENTITY)
    journal.note_scan(None, first)
    journal.note_scan(first, view([mended], names={image_id(1): "web"})._replace(scanned_at=NOW + 6))
    lane = journal.lane(image_id(1))
    assert [one.host for one in lane] == ["host-b", "host-c"]
    assert [one.kind for one in lane] == ["seen", "status"]
    assert "BRK to OPT" in lane[1].text


def test_a_first_look_tells_unfinished_work_only():
    """Ten thousand finished operations are no news."""
    done = operation("host-b", 100, stage=3, stages=3)
    found = changes(
        None, view([image(1, Status.DEGRADED, operation=done), image(2, Status.BROKEN, operation=operation())])
    )
    assert [one.image for one in found] == [image_id(2)]


def test_images_that_came_and_went_are_told():
    """A new image, a removed one, one that is gone for good."""
    before = view([image(1), image(2), image(3)])
    after = view([image(1), image(2, removed=True), image(4)])
    texts = {one.image: one.text for one in changes(before, after)}
    assert texts[image_id(2)].startswith("OPT to DEL") and texts[image_id(3)] == "OPT to gone"
    assert texts[image_id(4)].startswith("new to OPT") and image_id(1) not in texts


def test_a_storm_of_changes_is_summed_up():
    """More changes than anybody reads are counted."""
    before = view([image(number) for number in range(1, 300)])
    after = view([image(number, Status.BROKEN) for number in range(1, 300)])
    found = changes(before, after)
    assert len(found) == 101 and found[-1].text == "199 more images changed their state"


def test_what_an_operator_stopped_did_not_fail():
    """A stop is told as one; an error stays a failure."""
    for stopped, kind, said in ((True, "stopped", "an operator stopped it"), (False, "failed", "no space")):
        ended = operation(last_error="no space", stopped=stopped)
        (found,) = changes(view([image(1)]), view([image(1, operation=ended, status=Status.BROKEN)]))[:1]
        assert (found.kind, found.crash) == (kind, not stopped) and found.text.endswith(said)


def test_losing_and_getting_back_is_told_once():
    """The moment the storage went away and the moment it came back are events; each look in between is not."""
    seen = view([image(1)])
    gone = lost(seen, "storage-error", "no answer", "", NOW + 10)
    assert [one.kind for one in changes(seen, gone)] == ["lost"] and changes(seen, gone)[0].crash
    assert changes(gone, lost(gone, "storage-error", "no answer", "", NOW + 20)) == []
    assert [one.kind for one in changes(gone, seen)] == ["back"]


@pytest.mark.parametrize("text", ["", "{}", "[1, [2]]", '[["x","","","","","",""]]', "[[1,2,3,4,5,6,7]]"])
def test_a_damaged_journal_is_survived(host: Host, text: str):
    """What makes no sense is left out, and new events are kept."""
    journal = Journal(host.notes, IDENTITY)
    journal.add([event(1)])
    Path(host.notes.path(f"{IDENTITY}/journal.json")).write_text(text, encoding="utf-8")
    Journal(host.notes, IDENTITY).add([event(2)])
    assert Journal(host.notes, IDENTITY).events()[-1] == event(2)


# -- the last persisted state of one image


def test_the_last_operation_of_one_image(demo: Demo):
    """It is what a whole check sees of that image."""
    image_of = demo.ids["web-db"]
    seen = [item for item in gather(demo.engine, "demo").operations if item.image == image_of]
    assert [live.operation(demo.engine, "demo", image_of)] == seen
    assert live.operation(demo.engine, "demo", "f" * 32) is None


def test_evidence_for_a_take_over(demo: Demo):
    """Who worked, when it was saved, whether the lease is held, in sentences; allowed only when nobody holds it."""
    found = live.evidence(demo.engine, "demo", demo.ids["web-db"])
    assert found.allowed and not found.lease_held
    assert found.lines[0] == "host-b worked on it: copy, stage 2/3 copy data, 40 %."
    demo.engine.prepare_image("demo", demo.ids["wiki"])
    held = live.evidence(demo.engine, "demo", demo.ids["wiki"])
    assert not held.allowed and "Taking over is not possible" in " ".join(held.lines)
    demo.engine.teardown_image("demo", demo.ids["wiki"])
