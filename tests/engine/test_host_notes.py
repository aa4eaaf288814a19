"""What a host keeps for itself does not grow for ever, and what it does not understand it keeps."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.doors.processes import ProcessState
from engine.errors import Damaged, NotFound, NotUnderstood, Refused, StorageError
from engine.host.live import switches
from engine.host.state import HostState, Task, sealed
from engine.tools.local.files import RealFiles
from sim.hosts.world import World
from tests.crash.kit import SIZE


def test_only_the_newest_logs_of_ended_tasks_are_kept(tmp_path):
    """Two hundred logs stay, the newest ones, and so with specs whose task never came to be."""
    doors = real_doors("host-1")
    state = HostState(doors, str(tmp_path))
    for number in range(230):
        for path in (state.task_log(f"{number:032x}"), str(tmp_path / f"tasks/{number:032x}.spec")):
            with open(path, "w", encoding="utf-8"):
                pass
            os.utime(path, ns=(number, number))
    state.save_spec("f" * 32, {})
    kept = sorted(os.listdir(tmp_path / "tasks"))
    logs = [name for name in kept if name.endswith(".log")]
    assert logs == [f"{number:032x}.log" for number in range(30, 230)]
    assert f"{'f' * 32}.spec" in kept
    assert f"{0:032x}.spec" not in kept


def note_of(engine):
    (path,) = (os.path.join(engine.state.directory, "prepared", name)
               for name in os.listdir(os.path.join(engine.state.directory, "prepared")))  # fmt: skip
    return path


def rewrite(engine, change: Callable[[dict[str, Any]], object]) -> str:
    """Write the only note anew, as ``change`` makes it of what it says without its seal; return its path."""
    path: str = note_of(engine)
    with open(path, encoding="utf-8") as stream:
        note = json.load(stream)
    del note["seal"]
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(change(note), stream)
    return path


def test_a_note_of_a_newer_version_is_read_as_far_as_it_is_known(engine):
    """One field more: the image is prepared, and can be torn down."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.prepare_image("a", disk)
    path = rewrite(engine, lambda note: sealed({**note, "throttle": 7}))
    assert [entry.image for entry in engine.list_prepared()] == [disk]
    engine.teardown_image("a", disk)
    assert not os.path.exists(path)


@pytest.mark.parametrize("text", ["[]", "no JSON", '{"a": {', "7", "[" * 100_000])
def test_a_note_of_connections_that_cannot_be_understood_is_kept_and_told(engine, text):
    """Every command says so, with the next step; a connect puts it aside and goes on. Found so: it was taken for none,
    and overwritten by the next connect."""
    (place,) = {connection.parameters["path"] for connection in [engine.list_repositories()["a"]]}
    path = os.path.join(engine.state.directory, "connections.json")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    fresh = Engine(engine.doors, engine.state.directory)
    for command in (fresh.list_repositories, lambda: fresh.list_images("a")):
        with pytest.raises(Damaged, match="cannot be understood") as error:
            command()
        assert path in error.value.message and "connect" in error.value.next_step
    (told,) = fresh.connect_storage_repository("a", "localfs-1.0", {"path": place})
    kept = [name for name in os.listdir(engine.state.directory) if name.startswith("connections.json.")]
    assert len(kept) == 1 and kept[0] in told
    with open(os.path.join(engine.state.directory, kept[0]), encoding="utf-8") as stream:
        assert stream.read() == text
    assert list(Engine(engine.doors, engine.state.directory).list_repositories()) == ["a"]


@pytest.mark.parametrize("text", ["no JSON", '["of another kind"]'])
def test_no_note_that_cannot_be_understood_is_overwritten(tmp_path, text):
    """Whichever it is: it gets another name."""
    state = HostState(real_doors("host-1"), str(tmp_path))
    (tmp_path / "throughput.json").write_text(text)
    state.note_throughput("ab" * 16, 1 << 30, 2.0)
    assert state.throughput("ab" * 16) and text in [path.read_text() for path in tmp_path.iterdir()]


def test_connections_that_were_given_up_and_make_no_sense_hold_up_nothing(tmp_path):
    """They are there for a hint only. Found so: each look for one ended in a traceback."""
    state = HostState(real_doors("host-1"), str(tmp_path))
    (tmp_path / "connections.json").write_text('{"": 7}')
    assert state.last_seen("ab" * 16) is None and state.connections() == {}
    state.save_connections({})


def test_a_note_without_a_seal_is_taken_as_it_is(engine):
    """Programs before there were seals wrote it."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.prepare_image("a", disk)
    rewrite(engine, lambda note: note)
    engine.teardown_image("a", disk)
    assert engine.list_prepared() == []


def test_a_holder_whose_number_was_changed_is_not_taken_for_a_dead_one(engine):
    """Found so: its note was forgotten, it lived on, and nothing told whom the disk waited for."""
    disk = engine.create_virtual_disk("a", SIZE)
    prepared = engine.prepare_image("a", disk)
    path = note_of(engine)
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    pid = str(prepared.process.pid)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text.replace(f"{pid},", f"{pid[:-1]}{(int(pid[-1]) + 1) % 10},"))
    assert engine.list_prepared() == engine.list_unheld() == []
    with pytest.raises(NotUnderstood, match=os.path.basename(path)) as told:
        engine.teardown_image("a", disk)
    assert f"engine.host.holder {disk}" in told.value.next_step and os.path.exists(prepared.path)
    os.remove(path)
    with pytest.raises(NotFound) as lost:
        engine.teardown_image("a", disk)
    assert f"engine.host.holder {disk}" in lost.value.next_step and "prepare by host" in lost.value.next_step
    engine.doors.processes.kill(prepared.process)


def test_a_disk_that_gets_another_holder_at_this_moment_is_found(engine, monkeypatch):
    """It had none when the first was asked for, and has one when the rest is: whoever looks for a switch that is under
    way would take it for over, and let its guest wait."""
    disk = engine.create_virtual_disk("a", SIZE)
    entry = engine.prepare_image("a", disk)._replace(switch=("fresh", "old"))
    engine.state.save_prepared(entry)
    states = {"": ProcessState.GONE}
    monkeypatch.setattr(engine.doors.processes, "state", lambda process: states.pop("", ProcessState.RUNNING))
    assert switches.find(engine.state, disk, "fresh", "old") == entry
    monkeypatch.undo()
    engine.teardown_image("a", disk)


@pytest.mark.parametrize("words", ["f", "f o", "f o b 1", "f o b 1 2 b 1", "f o b 1 2 b 1 x", "f o b 1 2 b 1 2 3"])
def test_a_switch_that_makes_no_sense_holds_no_look_up(engine, words):
    """Of another version: a note with a seal that fits."""
    disk = engine.create_virtual_disk("a", SIZE)
    entry = engine.prepare_image("a", disk)._replace(switch=tuple(words.split()))
    engine.state.save_prepared(entry)
    assert switches.of(entry) is None
    assert not engine.check_storage_repository("a")
    engine.teardown_image("a", disk)


def test_a_note_that_cannot_be_read_holds_up_nothing_else(engine, monkeypatch):
    """Found so: no disk could be prepared on this host, no task be listed."""
    disk, other = (engine.create_virtual_disk("a", SIZE) for _ in range(2))
    prepared = engine.prepare_image("a", disk)
    path, read = note_of(engine), RealFiles.read_file

    def unreadable(files, name, limit):
        if name in (path, engine.state.directory + "/tasks/x.json"):
            raise OSError(errno.EIO, "Input/output error", name)
        return read(files, name, limit)

    with open(engine.state.directory + "/tasks/x.json", "w", encoding="utf-8"):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(RealFiles, "read_file", unreadable)
        assert engine.list_tasks() == engine.list_prepared() == []
        engine.prepare_image("a", other)
        engine.teardown_image("a", other)
        with pytest.raises(NotUnderstood, match=os.path.basename(path)):
            engine.teardown_image("a", disk)
        with pytest.raises(Refused, match=os.path.basename(path)):
            engine.disconnect_storage_repository("a")
    assert engine.list_prepared() == [prepared]
    engine.teardown_image("a", disk)


def test_where_nothing_tells_what_is_prepared_nothing_is_prepared(engine, monkeypatch):
    """Found so: a folder of notes that could not be listed was taken for an empty one, and what its notes were about
    could be disconnected; the paths of machines were removed."""
    disk, other = (engine.create_virtual_disk("a", SIZE) for _ in range(2))
    prepared = engine.prepare_image("a", disk)
    listed = RealFiles.list_directory

    def unreadable(files, name, having=""):
        if name == f"{engine.state.directory}/prepared":
            raise OSError(errno.EIO, "Input/output error", name)
        return listed(files, name, having)

    with monkeypatch.context() as patch:
        patch.setattr(RealFiles, "list_directory", unreadable)
        for verb in (lambda: engine.prepare_image("a", other), lambda: engine.disconnect_storage_repository("a")):
            with pytest.raises(StorageError, match="prepared"):
                verb()
    assert os.path.exists(prepared.path)
    engine.teardown_image("a", disk)


def test_a_batch_whose_log_is_gone_can_be_stopped():
    """Found so: while there was one, no task of the repository could be stopped."""
    world = World()
    world.create("a")
    engine, process = world.host("one"), world.machine("one").process("engine.host.runner")
    image, identity = engine.create_virtual_disk("a", SIZE), engine.list_repositories()["a"].identity
    log = engine.state.task_log("none")
    engine.state.save_task(
        Task("0a" * 16, process.identity, identity, "a", "", "2 fixes", "", 0.0, log, (image,), (identity,))
    )
    engine.stop_task("a", image)
    assert process.dead and engine.list_tasks() == []


@pytest.mark.parametrize("text", ['{"repository": 1}', "[]", "no JSON"])
def test_a_note_that_cannot_be_understood_is_kept_and_named(engine, text):
    """Teardown and disconnect say which it is; what the machine has open stays where it is."""
    disk, other = (engine.create_virtual_disk("a", SIZE) for _ in range(2))
    prepared = engine.prepare_image("a", disk)
    path = note_of(engine)
    with open(path, encoding="utf-8") as stream:
        good = stream.read()
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    with pytest.raises(NotUnderstood, match=os.path.basename(path)):
        engine.teardown_image("a", disk)
    with pytest.raises(Refused, match=os.path.basename(path)):
        engine.disconnect_storage_repository("a")
    engine.prepare_image("a", other)
    engine.teardown_image("a", other)
    assert os.path.exists(prepared.path)
    with open(path, encoding="utf-8") as stream:
        assert stream.read() == text
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(good)
    engine.teardown_image("a", disk)
