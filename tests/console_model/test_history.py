"""The history of a host: every verb and fix is in it, and nothing that happens to its file does harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import NotFound, Stopped
from tui.work import away, history
from tui.work.history import Entry, History
from tui.work.noted import NotedEngine

LOOKS = (
    "list_repositories get_storage_repository_constraints host_warnings get_srm get_image_status "
    "check_storage_repository inspect_repository list_tasks task_events task_image task_is_running wait_for_task "
    "list_images plan_adoption get_user_data list_prepared list_unheld close context"
).split()
"""What changes nothing, and is not in the history."""


@pytest.fixture
def engine(tmp_path: Path) -> NotedEngine:
    """A host with a repository ``main``, used by the command."""
    made = NotedEngine(real_doors("host-a"), str(tmp_path / "state" / "host-a"), "command")
    parameters = {"path": str(tmp_path / "main")}
    made.create_repository("localfs-1.0", parameters)
    made.connect_storage_repository("main", "localfs-1.0", parameters)
    return made


def entry(number: int, **more: Any) -> Entry:
    return Entry(float(number), "alice", "host-a", "console", "copy", "main")._replace(**more)


def test_every_verb_that_changes_something_is_noted():
    """A verb of the engine either only looks, or the history tells of it: none can be forgotten."""
    public = {name for name in vars(Engine) if not name.startswith("_")}
    assert public - set(LOOKS) == public & vars(NotedEngine).keys()


def test_who_did_what_and_what_came_of_it(engine: NotedEngine):
    """Verb, face, user, host, image with its name, the result, and the error of what failed."""
    disk = engine.create_virtual_disk("main", 1 << 20, user_data={"name": "web"})
    engine.set_strategy("main", disk, "performance")
    with pytest.raises(NotFound):
        engine.remove_image("main", "f" * 32)
    *_, made, strategy, failed = engine.history.entries()
    assert (made.verb, made.image, made.name, made.result) == ("create-disk", disk, "web", "done")
    assert (strategy.verb, strategy.name, strategy.text, strategy.face) == ("strategy", "web", "performance", "command")
    assert (failed.result, failed.code) == ("failed", "not-found") and "f" * 32 in failed.error
    assert {item.host for item in engine.history.entries()} == {"host-a"} and made.user == history.user_name()
    assert [item.verb for item in engine.history.entries()][:2] == ["create-repo", "connect"]


def test_what_was_stopped_did_not_fail(engine: NotedEngine):
    """A fix in the own process that was asked to stop is noted as stopped."""
    engine.create_virtual_disk("main", 1 << 20, options={"auto_fix": False})
    (fix,) = engine.check_storage_repository("main")
    engine.context.stopping = lambda: True
    with pytest.raises(Stopped):
        engine.run_fix_here("main", fix)
    engine.context.stopping = lambda: False
    assert (engine.history.entries()[-1].result, engine.history.entries()[-1].code) == ("stopped", "stopped")


def test_who_works_behind_sudo_is_told(monkeypatch: pytest.MonkeyPatch):
    """The user whom the system knows, with the one who became it."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    name = history.user_name()
    monkeypatch.setenv("SUDO_USER", "alice")
    assert name and history.user_name() == f"alice as {name}"


def test_work_that_ended_while_nobody_looked_is_told_once(engine: NotedEngine, tmp_path: Path):
    """A fix that was started is in the history again when it has ended, by name and with its result; so is one whose
    process was killed. Whoever comes first is told, nobody twice."""
    disk = engine.create_virtual_disk("main", 1 << 20, user_data={"name": "web"}, options={"auto_fix": False})
    (fix,) = engine.check_storage_repository("main")
    task = engine.fix_storage_repository("main", fix)
    told = engine.history.entries()[-1]
    assert (told.verb, told.image, told.name, told.text) == ("fix create", disk, "web", fix.rule)
    assert (told.result, told.task) == ("started", task.id)
    engine.wait_for_task(task)
    (ended,) = away.settle(engine.notes)
    assert (ended.verb, ended.name, ended.result, ended.task) == ("create", "web", "done", task.id)
    assert away.news([ended]) == ["Create web ended while you were away: done."]
    assert away.settle(engine.notes) == [] and engine.history.entries()[-1] == ended
    Path(task.log).write_text('{"event": "start"}\n', encoding="utf-8")
    engine.history.add(ended._replace(result="started"), {"task": task._asdict()})
    assert [item.result for item in away.settle(engine.notes)] == ["killed"]
    engine.history.add(ended._replace(result="started"), {"task": "nonsense"})
    assert [item.result for item in away.settle(engine.notes)] == ["killed"]


def test_a_line_that_was_cut_off_costs_itself_alone(engine: NotedEngine, tmp_path: Path):
    """Neither what was written before nor what comes after is lost, and what no program wrote is passed over."""
    path = tmp_path / "state" / "host-a" / "history.jsonl"
    before = engine.history.entries()
    with path.open("ab") as stream:
        stream.write(b'[1]\n{"when": "x"}\n\xff\n' + b"[" * 100_000 + b'\n{"when": 1, "user": "al')
    engine.history.add(entry(7, name="\x1b]0;x\x07"))
    assert engine.history.entries() == (*before, entry(7, name="\\x1b]0;x\\x07"))
    assert json.loads(path.read_bytes().splitlines()[-1])["when"] == 7


def test_the_history_is_bounded_and_keeps_the_newest(engine: NotedEngine, monkeypatch: pytest.MonkeyPatch):
    """Past the limit the older half goes, never the newest; a text of any length is cut."""
    monkeypatch.setattr(history, "_LIMIT_BYTES", 4000)
    for number in range(100):
        engine.history.add(entry(number, text="x" * 1000))
    kept = History(engine.notes).entries()
    assert 10 < len(kept) < 40 and [item.when for item in kept] == list(range(100 - len(kept), 100))
    assert all(len(item.text) == 300 for item in kept)


def test_a_history_that_cannot_be_written_stops_nobody(engine: NotedEngine, tmp_path: Path):
    """The verb is what counts."""
    path = tmp_path / "state" / "host-a" / "history.jsonl"
    path.unlink()
    path.mkdir()
    assert engine.create_virtual_disk("main", 1 << 20)
    assert engine.history.entries() == ()
