"""A repository from before there were uses is given them: nobody who works on meanwhile leaves one out, and nobody
believes them too early."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.data.records import Operation, canonical
from engine.errors import ImageBusy, Refused, StorageError
from engine.formats.base import Missing, Repository
from engine.formats.files import layout
from engine.formats.files.tree import Tree
from engine.formats.files.uses import Uses
from tests.formats.kit import T1, T2, V1, V2, LocalStorage, SpyFiles, failing, once, qcow2, raw, real_doors, record

P, Q, V3 = "5" * 32, "6" * 32, "7" * 32
NEVER = Missing("uses", "")


@pytest.fixture
def old(local: LocalStorage) -> LocalStorage:
    """As a version has made it that knows no uses."""
    path = Path(local.path)
    made = json.loads((path / layout.IDENTITY_FILE).read_bytes())
    text = canonical({"format": made["format"], "identity": made["id"], "owner": "0"}) + b"\n"
    (path / layout.IDENTITY_FILE).write_bytes(text)
    (path / layout.COPY_FILE).write_bytes(layout.encode_copy(text))
    return local


def give(repository: Repository) -> None:
    assert repository.parts is not None
    repository.parts.make("uses")


def entered(local: LocalStorage, subject: str = P) -> list[tuple[str, int]]:
    """(user, generation)"""
    return sorted((use.user, use.generation) for use in Uses(Tree(real_doors(), local.path)).of(subject))


def said(local: LocalStorage) -> list[dict[str, object]]:
    """What repository.json says, and its copy."""
    path = Path(local.path)
    copied = layout.decode_copy((path / layout.COPY_FILE).read_bytes())
    return [json.loads(text or b"{}") for text in ((path / layout.IDENTITY_FILE).read_bytes(), copied)]


def test_what_records_need_is_entered_and_then_believed(old: LocalStorage):
    """It is offered until that is done; the rest of what the repository says of itself stays."""
    repository, identity = old.open(), old.open().identity
    repository.tags.publish(record(P), 0)
    repository.tags.publish(record(volume=qcow2(V1, P)), 0)
    assert repository.scan().missing == (NEVER,) and entered(old) == []
    give(repository)
    assert entered(old) == [(T1, 1)] and not repository.scan().missing
    assert repository.tags.knows_users and old.open().tags.knows_users and set(old.open().tags.users(P)) == {T1}
    wanted = {"format": "1.0", "id": identity, "later": True, "needs": ["uses"], "owner": "0"}
    assert said(old) == [wanted, wanted]


def test_whose_volume_it_is_that_several_name_is_entered(old: LocalStorage):
    """A snapshot has taken over the volume of its disk, which its record says no more; another one that was never
    finished names it, too. It was deleted with that one."""
    repository = old.open()
    unfinished = Operation("create_snapshot", other=P)
    repository.tags.publish(record(T1, volume=qcow2(V1, ""), mutable=False, strong=True), 0)
    repository.tags.publish(record(T2, volume=qcow2(V1, ""), mutable=False, strong=False, operation=unfinished), 0)
    repository.tags.publish(record(Q, volume=qcow2(V2, "")), 0)
    repository.tags.publish(record(P, volume=qcow2(V3, "")), 0)
    give(repository)
    assert {user for user, _ in entered(old, V1)} == {T1, T2}
    assert entered(old, V2) == entered(old, V3) == [] and not old.open().scan().litter


def test_interrupted_at_any_step_it_is_not_believed_and_goes_on(old: LocalStorage):
    """From the first step on programs from before find no identity; until the last one all records are read."""
    repository = old.open()
    repository.tags.publish(record(volume=qcow2(V1, P)), 0)
    spy, steps = SpyFiles(old.path), 0
    while not old.open().tags.knows_users:
        steps += 1
        left = steps

        def stop(verb: str, name: str) -> None:
            nonlocal left
            left -= verb in SpyFiles.EFFECTS and not name.startswith("tmp/")
            if left < 0:
                raise KeyboardInterrupt

        spy.before = stop
        try:
            give(old.open(spy))
        except KeyboardInterrupt:
            assert set(old.open().tags.users(P)) == {T1}
            assert all("identity" not in text for text in said(old)) or not entered(old)
        spy.before = lambda verb, name: None
    assert steps > 6


def test_who_has_it_open_from_before_enters_what_it_needs_from_the_first_step_on(old: LocalStorage):
    """It looks again before each record, and is told of no other repository."""
    open_before, spy = old.open(), SpyFiles(old.path)
    open_before.tags.publish(record(volume=qcow2(V1, P)), 0)
    anchors = open_before.anchors()

    def between() -> None:
        assert said(old)[1]["needs"] == ["uses-begun"] and not open_before.tags.knows_users
        open_before.tags.publish(record(volume=qcow2(V1, P), epoch=2), 1)  # relies on nothing that was entered
        open_before.tags.publish(record(T2, volume=qcow2(V2, P)), 0)
        assert entered(old) == [(T1, 2), (T2, 1)] and not open_before.scan().litter

    spy.before = once("sync_directory", between, "tmp")
    give(old.open(spy))
    assert {(T1, 2), (T2, 1)} <= set(entered(old)) and not old.open().scan().litter
    open_before.tags.publish(record(T2, volume=raw(V2)), 1)
    assert open_before.tags.knows_users
    now = open_before.anchors()
    assert all(anchors[name] == now[name] for name in anchors.keys() & now.keys())


@pytest.mark.parametrize(("verb", "name"), [("list", "."), ("read", "repository.")])
def test_while_its_state_cannot_be_read_it_is_taken_for_no_other_one(old: LocalStorage, verb: str, name: str):
    """The file is another one, and what would explain it is not to be had at this moment. Found so: one call that
    failed, and a host that had it open called it replaced."""
    spy = SpyFiles(old.path)
    open_before = old.open(spy)
    anchors = open_before.anchors()
    give(old.open())
    spy.before = failing(verb, errno.EIO, name)
    now = open_before.anchors()
    assert now and all(anchors[name] == now[name] for name in anchors.keys() & now.keys())


def test_a_copy_that_cannot_be_read_says_the_same_in_the_end(old: LocalStorage):
    """Others read it, or later. Found so: it went on saying that there are no uses, so whoever read it entered none,
    while others believed them; and nothing explained the other file, so the repository was called replaced."""
    anchors = old.open().anchors()
    old.open().tags.publish(record(volume=qcow2(V1, P)), 0)
    spy = SpyFiles(old.path)
    spy.before = failing("read", errno.EACCES, layout.COPY_FILE)
    give(old.open(spy))
    now = old.open().anchors()
    assert [text["needs"] for text in said(old)] == [["uses"], ["uses"]] and old.open().tags.knows_users
    assert all(anchors[name] == now[name] for name in anchors.keys() & now.keys())


def test_a_program_from_before_that_has_it_open_finds_another_file(old: LocalStorage):
    """By its inode it is told that this is not the repository that was connected."""
    path = Path(old.path) / layout.IDENTITY_FILE
    with path.open("rb") as kept:  # so that its number is not given again
        before = path.stat().st_ino
        give(old.open())
        assert path.stat().st_ino != before and kept


def test_a_record_that_is_being_written_is_waited_for(old: LocalStorage):
    """Its writer has looked before: it comes without a use."""
    spy = SpyFiles(old.path)
    writer, refused = old.open(spy), []

    def meanwhile() -> None:
        with pytest.raises(ImageBusy, match="writes a record"):
            give(old.open())
        refused.append(entered(old))

    spy.before = once("link", meanwhile, "tmp/*-record")
    writer.tags.publish(record(volume=qcow2(V1, P)), 0)
    assert refused == [[]] and entered(old) == []
    give(old.open())
    assert entered(old) == [(T1, 1)]


def test_who_was_taken_for_dead_while_it_wrote_a_record_cannot_publish_it(
    old: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    """Its lease is lost, so its file is removed, and there is nothing to give a name to."""
    spy = SpyFiles(old.path)
    writer = old.open(spy)

    def meanwhile() -> None:
        other = old.open()
        monkeypatch.setattr(other.leases, "try_acquire", lambda name, shared=False: SimpleNamespace(release=bool))
        give(other)

    spy.before = once("link", meanwhile, "tmp/*-record")
    with pytest.raises(StorageError):
        writer.tags.publish(record(volume=qcow2(V1, P)), 0)
    assert old.open().tags.read(T1) is None and old.open().tags.knows_users


def test_two_do_not_do_it_at_once(old: LocalStorage):
    """The second is told; what it is offered then is nothing."""
    spy, refused = SpyFiles(old.path), []

    def meanwhile() -> None:
        with pytest.raises(ImageBusy, match="somebody works on"):
            give(old.open())
        refused.append(True)

    spy.before = once("sync_directory", meanwhile, "tmp")
    give(old.open(spy))
    give(old.open())
    assert refused == [True] and not old.open().scan().missing


def test_while_a_record_is_not_understood_nothing_is_believed(old: LocalStorage):
    """What it needs is not known: refused, and begun."""
    old.open().tags.publish(record(volume=qcow2(V1, P)), 0)
    (file,) = (Path(old.path) / layout.tag_shard(T1)).glob(f"{T1}.*")
    good = file.read_bytes()
    file.write_bytes(b"damaged")
    with pytest.raises(Refused, match="not known what all images need"):
        give(old.open())
    assert not old.open().tags.knows_users
    file.write_bytes(good)
    give(old.open())
    assert entered(old) == [(T1, 1)]


def test_a_copy_that_is_made_late_replaces_none(old: LocalStorage):
    """A writer that found none, and was frozen, does not take back what the repository says since."""
    copied = Path(old.path) / layout.COPY_FILE
    copied.unlink()
    spy = SpyFiles(old.path)
    writer = old.open(spy)
    spy.before = once("link", lambda: give(old.open()), "tmp/*-repository")
    writer.tags.publish(record(volume=qcow2(V1, P)), 0)
    assert [text["needs"] for text in said(old)] == [["uses"], ["uses"]]
    assert entered(old) == [(T1, 1)]


def test_what_was_interrupted_is_entered_durably(old: LocalStorage):
    """A name that is seen may be lost with the power of the host that made it."""
    old.open().tags.publish(record(volume=qcow2(V1, P)), 0)
    spy = SpyFiles(old.path)
    spy.before = failing("sync_directory", 5, layout.tag_shard(P))
    with pytest.raises(StorageError):
        give(old.open(spy))
    assert entered(old) == [(T1, 1)] and not old.open().tags.knows_users
    again = SpyFiles(old.path)
    give(old.open(again))
    assert f"sync_directory {layout.tag_shard(P)}" in again.log


@pytest.mark.parametrize("more", ['"\\ud800"', "1e999", f'"{"a" * (layout.MAX_IDENTITY_BYTES - 130)}"'])
def test_what_cannot_be_said_again_is_left_as_it_is(old: LocalStorage, more: str):
    """A field of a stranger's that no writer could put there, or that would make the file longer than is read: then
    nobody could open the repository any more."""
    path = Path(old.path)
    text = (path / layout.IDENTITY_FILE).read_bytes().replace(b"{", f'{{"added":{more},'.encode(), 1)
    assert len(layout.encode_copy(text)) <= layout.MAX_IDENTITY_BYTES
    (path / layout.IDENTITY_FILE).write_bytes(text)
    (path / layout.COPY_FILE).write_bytes(layout.encode_copy(text))
    with pytest.raises(Refused, match="cannot be written again"):
        give(old.open())
    assert (path / layout.IDENTITY_FILE).read_bytes() == text and old.open().scan().missing == (NEVER,)
