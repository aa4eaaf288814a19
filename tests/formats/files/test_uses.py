"""Who uses a tag or a volume: entered before it is needed, forgotten after it is not, believed only one way."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from engine.data.records import Operation
from engine.errors import Damaged, Overtaken, Refused, StorageError
from engine.formats.base import Litter, Repository
from engine.formats.files import layout
from engine.formats.files.tree import Tree
from engine.formats.files.uses import Use, Uses
from tests.formats.kit import T1, T2, V1, V2, LocalStorage, SpyFiles, failing, once, qcow2, raw, real_doors, record

P, Q = "5" * 32, "6" * 32


def entered(local: LocalStorage, subject: str) -> list[tuple[str, int]]:
    """(user, generation)"""
    return sorted((use.user, use.generation) for use in Uses(Tree(real_doors(), local.path)).of(subject))


def litter(repository: Repository) -> list[Litter]:
    return [item for item in repository.scan().litter if item.kind == "use"]


def enter(local: LocalStorage, use: Use) -> None:
    """As a process left it that went no further."""
    path = Path(f"{local.path}/{use.path}")
    path.parent.mkdir(exist_ok=True)
    path.touch()


# -- entered


def test_a_use_is_durable_before_the_record_that_needs_it_has_its_name(local: LocalStorage, spy: SpyFiles):
    """Its name is made and the directory synced; then the record is linked."""
    repository = local.open(spy)
    repository.tags.publish(record(P), 0)
    spy.log.clear()
    repository.tags.publish(record(volume=qcow2(V1, P)), 0)
    use = f"create tags/55/use.{P}.{T1}.{1:016x}"
    order = [step for step in spy.log if step in (use, "sync_directory tags/55") or step.startswith("link")]
    assert order[:2] == [use, "sync_directory tags/55"] and order[2].startswith("link") and "tags/11" in order[2]
    assert entered(local, P) == [(T1, 1)] and set(repository.tags.users(P)) == {T1}


def test_what_cannot_be_entered_is_not_published(local: LocalStorage, spy: SpyFiles):
    """A record is never without its use, and the same again enters it."""
    repository = local.open(spy)
    repository.tags.publish(record(P), 0)
    spy.before = failing("create", errno.ENOSPC, "use.")
    with pytest.raises(StorageError):
        repository.tags.publish(record(volume=qcow2(V1, P)), 0)
    assert repository.tags.read(T1) is None
    spy.before = lambda verb, name: None
    repository.tags.publish(record(volume=qcow2(V1, P)), 0)
    assert entered(local, P) == [(T1, 1)]


def test_what_is_needed_as_before_is_not_entered_again(local: LocalStorage):
    """The use of the record before it counts, also in another process."""
    local.open().tags.publish(record(volume=qcow2(V1, P)), 0)
    local.open().tags.publish(record(volume=qcow2(V1, P), epoch=2), 1)
    assert entered(local, P) == [(T1, 1)]


def test_what_is_needed_again_after_it_was_not_is_entered_anew(local: LocalStorage):
    """Who removes the older use late does not take the newer one."""
    tags = local.open().tags
    tags.publish(record(volume=qcow2(V1, P)), 0)
    tags.publish(record(volume=raw(V1)), 1)
    tags.publish(record(volume=qcow2(V1, P)), 2)
    assert (T1, 3) in entered(local, P)


def test_a_snapshot_that_is_begun_enters_its_disk_and_the_volume_of_it(local: LocalStorage):
    """The disk that moves onto it then finds that entered, and its use of what the snapshot needs as well is gone."""
    tags = local.open().tags
    tags.publish(record(T2, volume=qcow2(V1, P)), 0)
    begun = record(mutable=False, volume=qcow2(V1, P), operation=Operation("create_snapshot", qcow2(V2, T1), other=T2))
    tags.publish(begun, 0)
    assert entered(local, V1) == [(T1, 1)] and entered(local, T1) == [(T2, 0)]
    assert entered(local, P) == [(T1, 1), (T2, 1)]
    tags.publish(record(T2, volume=qcow2(V2, T1)), 1)
    assert entered(local, T1) == [(T2, 0)] and entered(local, P) == [(T1, 1)]
    tags.publish(begun._replace(operation=None), 1)
    assert entered(local, V1) == [(T1, 1)] and set(tags.users(T1)) == {T2}


def test_a_disk_that_returns_to_a_snapshot_which_was_copied_in_again_is_entered(local: LocalStorage):
    """What this process entered for the disk when it began the snapshot went with it. Found so: it still relied on
    that, nobody was told that the disk needs the snapshot, and a clean would have deleted that below it."""
    tags, other = local.open().tags, local.open().tags
    tags.publish(record(T2, volume=raw(V1)), 0)
    begun = record(mutable=False, volume=raw(V1), operation=Operation("create_snapshot", qcow2(V2, T1), other=T2))
    tags.publish(begun, 0)
    tags.publish(record(T2, volume=qcow2(V2, T1)), 1)
    other.publish(record(T2, volume=raw(V1)), 2)
    other.purge(T1, 1)
    tombstone = other.read(T1)
    assert tombstone is not None and other.users(T1) == {}
    other.publish(record(mutable=False, volume=raw(V2)), tombstone.generation)
    tags.publish(record(T2, volume=qcow2(V2, T1)), 3)
    assert set(other.users(T1)) == {T2}


def test_a_merge_down_enters_the_volume_that_it_takes_over(local: LocalStorage):
    """Before the volume is the upper image's, and it stays until it is not."""
    tags = local.open().tags
    tags.publish(record(T2, volume=raw(V1)), 0)
    merging = Operation("merge", other=T2, direction="down", pinned=(V2, V1))
    tags.publish(record(volume=qcow2(V2, T2), operation=merging), 0)
    tags.publish(record(volume=raw(V1), scrap=(qcow2(V2, T2),)), 1)
    tags.publish(record(volume=raw(V1)), 2)
    assert entered(local, V1) == [(T1, 1)] and entered(local, T2) == []


# -- forgotten


def test_a_use_stays_as_long_as_the_record_before_may_count(local: LocalStorage):
    """The newest one may be damaged: then the one before needs what it needed."""
    tags = local.open().tags
    tags.publish(record(volume=qcow2(V1, P)), 0)
    tags.publish(record(volume=raw(V2), scrap=(qcow2(V1, P),)), 1)
    assert entered(local, P) == [(T1, 1)]
    tags.publish(record(volume=raw(V2)), 2)
    assert entered(local, P) == []


def test_what_another_process_needed_again_stays_as_long_as_its_record_may_count(local: LocalStorage):
    """What was to be forgotten before that is not forgotten early. Found so: the record before, which counts when the
    newest is damaged, needed a tag that nobody was told to need."""
    tags = local.open().tags
    tags.publish(record(volume=qcow2(V1, P)), 0)
    tags.publish(record(volume=raw(V2)), 1)
    local.open().tags.publish(record(volume=qcow2(V1, P)), 2)
    tags.publish(record(volume=raw(V2)), 3)
    assert (T1, 3) in entered(local, P)
    tags.publish(record(volume=raw(V2)), 4)
    assert entered(local, P) == []


def test_a_tombstone_needs_nothing(local: LocalStorage):
    """What its tag needed is forgotten with it."""
    tags = local.open().tags
    tags.publish(record(volume=qcow2(V1, P)), 0)
    tags.purge(T1, 1)
    assert entered(local, P) == []


@pytest.mark.parametrize("state", ["never published", "not yet needed", "not needed any more", "tombstone"])
def test_a_use_that_a_crash_left_is_litter_and_removed_for_good(local: LocalStorage, state: str):
    """Before it goes its user has a generation after which no late writer needs it."""
    repository = local.open()
    if state == "not needed any more":
        repository.tags.publish(record(volume=qcow2(V1, P)), 0)
        repository.tags.publish(record(volume=raw(V2)), 1)
    else:
        if state in ("not yet needed", "tombstone"):
            repository.tags.publish(record(volume=raw(V1)), 0)
        if state == "tombstone":
            repository.tags.purge(T1, 1)
        newest = repository.tags.read(T1)
        generation = newest.generation if newest else 0
        enter(local, Use(P, T1, generation + 1))
    before = repository.tags.read(T1)
    items = litter(local.open())
    assert [item.name for item in items] and not items[0].busy
    local.open().litter.remove(items)
    assert entered(local, P) == [] and litter(local.open()) == []
    with pytest.raises(Overtaken):
        repository.tags.publish(record(volume=qcow2(V1, P)), before.generation if before else 0)
    now = local.open().tags.read(T1)
    assert now is not None and (before is None or before.record == now.record)


def test_a_use_whose_user_is_damaged_or_works_on_it_is_left_alone(local: LocalStorage):
    """What cannot be understood may need anything that it is entered for; whoever holds the lease is about to."""
    repository = local.open()
    repository.tags.publish(record(volume=raw(V1)), 0)
    enter(local, Use(P, T1, 2))
    lease = local.open().leases.try_acquire(T1)
    assert lease is not None
    items = litter(repository)
    assert [item.busy for item in items] == [True]
    repository.litter.remove(items)
    assert entered(local, P) == [(T1, 2)]
    lease.release()
    Path(f"{local.path}/tags/11/{T1}.{1:016x}").write_bytes(b"junk")
    assert litter(repository) == []
    repository.litter.remove(items)
    assert entered(local, P) == [(T1, 2)]


def test_who_publishes_while_a_use_is_removed_enters_its_own(local: LocalStorage, spy: SpyFiles):
    """The remover takes away what counted until then, and no more."""
    repository = local.open()
    repository.tags.publish(record(volume=qcow2(V1, P)), 0)
    repository.tags.publish(record(volume=raw(V2)), 1)
    repository.tags.publish(record(volume=raw(V2), epoch=2), 2)
    enter(local, Use(P, T1, 1))
    items = litter(repository)

    def needed_again() -> None:
        local.open().tags.publish(record(volume=qcow2(V1, P)), 3)

    spy.before = once("unlink", needed_again, "use.")
    local.open(spy).litter.remove(items)
    assert entered(local, P) == [(T1, 4)]


# -- lost


def test_what_somebody_has_deleted_is_told_and_entered_again(local: LocalStorage):
    """As a part of the repository that is missing: also for records that were put there by other means."""
    tags = local.open().tags
    tags.publish(record(P), 0)
    tags.publish(record(volume=qcow2(V1, P)), 0)
    assert local.open().scan().missing == ()
    Path(f"{local.path}/tags/55/use.{P}.{T1}.{1:016x}").unlink()
    repository = local.open()
    (part,) = repository.scan().missing
    assert part == ("uses", "names") and repository.parts is not None
    repository.parts.make("uses")
    assert entered(local, P) == [(T1, 1)] and repository.scan().missing == ()


def test_a_record_that_comes_during_a_scan_misses_nothing(local: LocalStorage, spy: SpyFiles):
    """Its use was entered after the directory of what it needs was listed, and is looked for again."""
    late = record("6" * 32, volume=qcow2(V1, P))
    local.open().tags.publish(record(P), 0)
    local.open().tags.publish(record("6" * 31 + "7"), 0)

    def publish() -> None:
        local.open().tags.publish(late, 0)

    spy.before = once("list", publish, "tags/66")
    scan = local.open(spy).scan()
    assert late.id in scan.tags and scan.missing == ()


# -- who knows of them


def test_a_program_that_does_not_know_of_uses_finds_no_identity(local: LocalStorage):
    """So it refuses the repository, and writes no record without its uses."""
    data = json.loads(Path(f"{local.path}/repository.json").read_bytes())
    assert "identity" not in data and data["needs"] == ["uses"]


def test_a_repository_that_needs_more_than_this_program_knows_is_refused(local: LocalStorage):
    """By name of what that is."""
    path = Path(f"{local.path}/repository.json")
    Path(f"{local.path}/repository.copy").unlink()
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"needs": ["uses", "wings"]}))
    with pytest.raises(Refused, match="needs wings"):
        local.open()


@pytest.mark.parametrize("needs", [7, [["uses"]], {"uses": 1}, "uses", None])
def test_wild_needs_are_damage_or_refused(local: LocalStorage, needs: object):
    """Nothing is guessed."""
    path = Path(f"{local.path}/repository.json")
    Path(f"{local.path}/repository.copy").unlink()
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"needs": needs}))
    with pytest.raises((Damaged, Refused)):
        local.open()


def test_names_that_are_no_uses_are_foreign(local: LocalStorage):
    """In another directory than the subject's, or with a generation that is never written."""
    shard = Path(f"{local.path}/tags/55")
    shard.mkdir()
    for name in (f"use.{Q}.{T1}.{1:016x}", f"use.{P}.{T1}.{'f' * 16}", f"use.{P}.{T1}"):
        (shard / name).touch()
    found = local.open().scan().litter
    assert {item.kind for item in found} == {"foreign"} and len(found) == 3
    assert layout.parse_use_name(f"use.{P}.{T1}.{7:016x}", "55") == (P, T1, 7)
