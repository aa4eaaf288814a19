"""The operator's decisions: kept, shared between consoles, undone and redone."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from engine.errors import BadRequest, Refused, StorageError
from engine.tools.local.files import RealFiles
from tests.console_model.conftest import Host
from tests.console_model.kit import clean, fix, image, image_id, view
from tui.view.fixes import FixRow
from tui.work.config import choice, keep_choice
from tui.work.decisions import MAX_QUEUED, DecisionStore

IDENTITY = "e" * 32


def rows(count: int = 4) -> tuple[FixRow, ...]:
    return view([image(n) for n in range(1, count + 1)], [fix(n) for n in range(1, count + 1)]).fixes


KEYS = {row.key for row in rows()}


@pytest.fixture
def store(host: Host) -> DecisionStore:
    return DecisionStore(host.notes, IDENTITY)


def another(host: Host) -> DecisionStore:
    """The store as another console of the host sees it."""
    return DecisionStore(host.notes, IDENTITY)


def queue_of(store: DecisionStore) -> list[str]:
    return [item.fix_id.lstrip("0") for item in store.now().queue]


def test_the_queue_keeps_its_order_and_takes_each_fix_once(store: DecisionStore):
    """Queued fixes stay in the order in which they came; queueing again moves nothing."""
    store.queue(rows()[:2])
    store.queue(rows()[:3])
    assert queue_of(store) == ["1", "2", "3"]
    assert store.now().position(rows()[1].key) == 2 and store.now().position("x") == 0


def test_toggle_takes_in_and_out(store: DecisionStore):
    """space on a fix queues it, and takes it out again."""
    assert store.toggle(rows()[0]) and not store.toggle(rows()[0])
    assert queue_of(store) == []


def test_move_stops_at_both_ends(store: DecisionStore):
    """A queued fix moves by places, and not beyond the first or the last."""
    store.queue(rows())
    store.move(rows()[3].key, -2, KEYS)
    assert queue_of(store) == ["1", "4", "2", "3"]
    store.move(rows()[0].key, -5, KEYS)
    store.move(rows()[0].key, 99, KEYS)
    assert queue_of(store) == ["4", "2", "3", "1"]


def test_everything_is_there_after_a_restart_and_in_another_console(host: Host, store: DecisionStore):
    """Queue, priorities and what is snoozed are on disk when the call returns."""
    store.queue(rows()[:2])
    store.set_priority(rows()[2:3], 1)
    store.snooze(rows()[3:], True)
    seen = another(host).now()
    assert seen == store.now() and seen.generation == 3
    assert seen.priorities == {rows()[2].key: 1} and seen.snoozed == {rows()[3].key}


def test_a_change_of_another_console_shows_at_the_next_look(host: Host, store: DecisionStore):
    """Two consoles see each other's changes, and neither loses one."""
    store.queue(rows()[:1])
    other = another(host)
    other.queue(rows()[1:2])
    assert queue_of(store) == ["1", "2"]
    store.queue(rows()[2:3])
    assert queue_of(other) == ["1", "2", "3"]


def test_nothing_is_lost_between_consoles_that_change_at_once(host: Host):
    """Many threads that queue at the same time all find their fix in the queue."""
    wanted = rows(12)
    threads = [threading.Thread(target=lambda row=row: another(host).queue([row])) for row in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {item.key for item in another(host).now().queue} == {row.key for row in wanted}


def test_what_is_no_step_of_the_plan_is_passed_over_by_a_move(store: DecisionStore):
    """A queued fix that check does not offer any more is no place: the fix behind it gets before the one before it."""
    store.queue(rows()[:3])
    store.move(rows()[2].key, -1, {rows()[0].key, rows()[2].key})
    assert queue_of(store) == ["3", "1", "2"]
    store.move(rows()[2].key, 1, {rows()[0].key, rows()[2].key})
    assert queue_of(store) == ["1", "3", "2"]


def test_a_fix_is_either_queued_or_snoozed(store: DecisionStore):
    """What is hidden does not run unseen: snoozing takes a fix out of the queue, queueing wakes it, and undo of either
    brings back what was."""
    store.queue(rows()[:2])
    store.snooze(rows()[:1], True)
    assert queue_of(store) == ["2"] and store.now().hidden == {rows()[0].key}
    store.queue(rows()[:1])
    assert queue_of(store) == ["2", "1"] and not store.now().hidden
    store.undo()
    store.undo()
    assert queue_of(store) == ["1", "2"] and not store.now().hidden


def test_undo_takes_back_and_redo_makes_again(host: Host, store: DecisionStore):
    """Undo and redo go through every kind of change, over a restart, and say what they did."""
    store.queue(rows()[:2])
    store.move(rows()[1].key, -1, KEYS)
    store.set_priority(rows()[:1], 2)
    assert another(host).undo() == "priority of mend 00000000 to P2"
    assert another(host).undo().startswith("move mend")
    assert queue_of(store) == ["1", "2"] and store.now().priorities == {}
    assert store.redo().startswith("move") and queue_of(store) == ["2", "1"]
    assert store.now().undo == ("queue 2 fixes", "move mend 00000000") and len(store.now().redo) == 1


def test_a_new_change_ends_what_can_be_redone(store: DecisionStore):
    """After undo and another change there is nothing to redo."""
    store.queue(rows()[:1])
    store.undo()
    store.queue(rows()[1:2])
    with pytest.raises(Refused, match="nothing to redo"):
        store.redo()


def test_undo_of_nothing_is_refused(store: DecisionStore):
    """There is a sentence when nothing can be undone."""
    with pytest.raises(Refused, match="nothing to undo"):
        store.undo()


def test_a_change_that_changes_nothing_is_none(store: DecisionStore):
    """Moving the first to the front writes nothing and cannot be undone."""
    store.queue(rows()[:1])
    store.move(rows()[0].key, -1, KEYS)
    store.unqueue(["x"])
    assert store.now().generation == 1 and len(store.now().undo) == 1


def test_a_fix_is_the_same_after_its_facts_changed(store: DecisionStore):
    """The queue holds a fix by what it does: a new generation of the image gives it another id and no other place."""
    before = view([image(1)], [fix(1)]).fixes[0]
    after = view([image(1)], [fix(1)._replace(id="f" * 16, reads=(("tag:x", "2"),))]).fixes[0]
    store.queue([before])
    assert after.id != before.id and store.now().position(after.key) == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"queue": 3}', '{"queue": [[1]], "undo": [7]}', "[" * 100_000, "\xff"]
)
def test_a_damaged_file_is_survived(host: Host, store: DecisionStore, text: str):
    """Whatever is in the file: it is read as far as it makes sense, and the next change is kept."""
    store.queue(rows()[:1])
    path = Path(host.notes.path(f"{IDENTITY}/desk.json"))
    path.write_bytes(text.encode("latin-1"))
    assert another(host).now().queue == ()
    another(host).queue(rows()[1:2])
    assert [item.key for item in another(host).now().queue] == [rows()[1].key]


def test_a_damaged_file_is_told(host: Host, store: DecisionStore):
    """The operator hears that the saved queue could not be read."""
    store.queue(rows()[:1])
    Path(host.notes.path(f"{IDENTITY}/desk.json")).write_text("{", encoding="utf-8")
    assert "could not be read" in another(host).now().note


def test_a_file_that_cannot_be_read_for_a_while_is_told_and_kept(
    host: Host, store: DecisionStore, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is shown of it, nothing can be queued, and nothing else is held up: a choice is the default meanwhile."""
    store.queue(rows()[:1])
    keep_choice(host.notes, "theme", "dark")
    with monkeypatch.context() as patch:
        patch.setattr(RealFiles, "read_file", unreadable)
        fresh = another(host)
        assert "cannot be read now" in fresh.now().note and fresh.now().queue == ()
        assert choice(host.notes, "theme", "light") == "light"
        with pytest.raises(StorageError):
            fresh.queue(rows()[1:2])
    assert [item.key for item in fresh.now().queue] == [rows()[0].key]
    assert choice(host.notes, "theme", "light") == "dark"


def unreadable(files: RealFiles, path: str, limit: int) -> bytes:
    raise OSError(errno.EIO, "Input/output error", path)


def test_a_priority_outside_1_to_4_is_refused(store: DecisionStore):
    """There are four priorities, and None for the one by rule."""
    with pytest.raises(BadRequest):
        store.set_priority(rows()[:1], 5)
    store.set_priority(rows()[:1], 4)
    store.set_priority(rows()[:1], None)
    assert store.now().priorities == {}


def test_a_queue_has_an_end(store: DecisionStore):
    """More than a person can mean is refused, and nothing of it is queued."""
    many = view([], [clean(number, 1) for number in range(1, MAX_QUEUED + 2)]).fixes
    with pytest.raises(BadRequest, match="at most"):
        store.queue(many)
    assert store.now().queue == ()


def test_undo_is_bounded(store: DecisionStore):
    """A long session keeps the last 50 changes and a small file."""
    for _ in range(60):
        store.toggle(rows()[0])
    assert len(store.now().undo) == 50


def test_names_from_the_disk_are_harmless_in_the_queue(host: Host, store: DecisionStore):
    """The name of a queued fix is printable, also when the note was tampered with."""
    row = view([image(1)], [fix(1)], names={image_id(1): "a"}).fixes[0]._replace(name="\x1b[2Jx")
    store.queue([row])
    assert another(host).now().queue[0].name.isprintable()


def test_a_note_is_understood_once_for_each_change(host: Host):
    """Looking at notes twice a second costs a stat each; a change is seen at once."""
    asked: list[dict[str, object]] = []

    def understand(data: dict[str, object]) -> object:
        asked.append(data)
        return data.get("x")

    host.notes.write("a.json", {"x": 1})
    assert [host.notes.remembered("a.json", understand) for _ in range(3)] == [1, 1, 1] and len(asked) == 1
    host.notes.write("a.json", {"x": 2})
    assert host.notes.remembered("a.json", understand) == 2
    host.notes.remove("a.json")
    assert host.notes.remembered("a.json", understand) is None
