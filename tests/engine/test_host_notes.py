"""What a host keeps for itself does not grow for ever, and what it does not understand it keeps."""

from __future__ import annotations

import json
import os

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import Damaged, NotUnderstood, Refused
from engine.host.state import HostState
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


def test_a_note_of_a_newer_version_is_read_as_far_as_it_is_known(engine):
    """One field more: the image is prepared, and can be torn down."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.prepare_image("a", disk)
    path = note_of(engine)
    with open(path, encoding="utf-8") as stream:
        note = json.load(stream)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({**note, "throttle": 7}, stream)
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
