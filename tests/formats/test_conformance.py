"""What every repository format must do: the sentences of ``engine.formats.base.Repository``."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.data.model import MAX_USER_DATA_BYTES, VolumeFormat, is_id
from engine.data.records import Operation, check_user_data, is_tombstone
from engine.errors import BadRequest, OutcomeUnknown, Overtaken, StorageError
from engine.formats.base import Litter, backing_name
from tests.formats.kit import SIMULATED, SIZE, STORAGES, T1, T2, V1, V2, Storage, qcow2, raw, record, status

on_this_machine = pytest.mark.parametrize("storage", sorted(set(STORAGES) - SIMULATED), indirect=True)
"""For what is looked at with other means than the doors."""


def test_an_empty_repository_has_nothing_in_it(storage: Storage):
    """A fresh repository has an identity, a place and room, no tags, no volumes and no litter."""
    repository = storage.open()
    scan = repository.scan()
    assert (scan.volumes, scan.tags, scan.litter) == ({}, {}, [])
    assert is_id(repository.identity) and repository.place
    total, free = repository.space()
    assert 0 < free <= total


def test_the_identity_belongs_to_the_storage(storage: Storage):
    """A second handle of the same storage shows the same identity and format."""
    first, second = storage.open(), storage.open()
    assert (first.identity, first.format) == (second.identity, second.format)


def test_constraints_are_probed_data(storage: Storage):
    """Constraints name alignment and limits, are the same twice, and probing leaves nothing behind."""
    repository = storage.open()
    constraints = repository.constraints()
    assert constraints == repository.constraints()
    assert constraints.alignment_bytes % 512 == 0 and constraints.max_image_bytes >= 1 << 40
    assert constraints.fencing in {"kernel-lock", "nfs4-lock", "exclusive", "sanlock", "none"}
    assert repository.scan().litter == []


# -- tags


def test_a_published_record_is_the_newest_for_everybody(storage: Storage):
    """publish returns the new generation; the record is read back whole through another handle."""
    first, second = storage.open(), storage.open()
    wanted = record(
        volume=qcow2(parent=T2), operation=Operation("copy", raw(V2)), last=status("ä\n\x00"), lost=((0, 512),)
    )
    generation = first.tags.publish(wanted, 0)
    entry = second.tags.read(T1)
    assert entry is not None
    assert (entry.generation, entry.record, entry.problem, entry.tombstone) == (generation, wanted, "", False)
    assert second.scan().tags == second.tags.scan() == {T1: entry}


def test_each_change_has_a_higher_generation_and_replaces_the_one_before(storage: Storage):
    """Generations rise, the newest record is read, and no litter stays of the older ones."""
    repository = storage.open()
    generations = [0]
    for count in range(1, 6):
        generations.append(repository.tags.publish(record(epoch=count), generations[-1]))
    assert generations == sorted(set(generations))
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record == record(epoch=5)
    assert repository.scan().litter == []


def test_a_tag_that_never_was_is_none(storage: Storage):
    """read_tag of an unknown id is None, also in the shard of another tag."""
    repository = storage.open()
    assert repository.tags.read(T1) is None
    repository.tags.publish(record(T1), 0)
    assert repository.tags.read(T1[:2] + "f" * 30) is None


@pytest.mark.parametrize("expected", [0, 7, 1 << 48])
def test_a_wrong_expectation_is_overtaken_and_changes_nothing(storage: Storage, expected: int):
    """publish and purge_tag against a generation that is not the newest raise Overtaken, nothing is visible."""
    repository = storage.open()
    generation = repository.tags.publish(record(epoch=3), 0)
    assert expected != generation
    with pytest.raises(Overtaken) as caught:
        repository.tags.publish(record(epoch=4), expected)
    assert not isinstance(caught.value, OutcomeUnknown)
    with pytest.raises(Overtaken):
        repository.tags.purge(T1, expected or 9)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record == record(epoch=3) and entry.generation == generation
    assert repository.scan().litter == []


def test_a_stale_handle_is_overtaken(storage: Storage):
    """Of two handles that read the same generation the second to publish is overtaken."""
    first, second = storage.open(), storage.open()
    start = first.tags.publish(record(), 0)
    first.tags.publish(record(epoch=2), start)
    with pytest.raises(Overtaken):
        second.tags.publish(record(epoch=3), start)
    entry = second.tags.read(T1)
    assert entry is not None and entry.record == record(epoch=2)


def test_concurrent_changes_are_never_lost(storage: Storage, request: pytest.FixtureRequest):
    """Handles that change one tag at once: every acknowledged change is in the result, and nothing else
    but changes whose outcome was reported as unknown."""
    start, threadless = storage.open(), request.node.callspec.params["storage"] in SIMULATED
    start.tags.publish(record(user_data=0), 0)

    def add(times: int) -> tuple[int, int]:
        repository = storage.open()
        done = unknown = 0
        while done + unknown < times:
            entry = repository.tags.read(T1)
            assert entry is not None and entry.record is not None
            try:
                repository.tags.publish(entry.record._replace(user_data=entry.record.user_data + 1), entry.generation)
                done += 1
            except OutcomeUnknown:
                unknown += 1
            except Overtaken:
                continue
        return done, unknown

    with ThreadPoolExecutor(1 if threadless else 3) as pool:
        results = list(pool.map(add, [15] * 3))
    done, unknown = (sum(column) for column in zip(*results, strict=True))
    entry = start.tags.read(T1)
    assert entry is not None and entry.record is not None
    assert done <= entry.record.user_data <= done + unknown
    assert start.scan().litter == []


def test_a_purge_leaves_a_tombstone(storage: Storage):
    """After purge_tag the tag is a tombstone of a higher incarnation, and only that."""
    repository = storage.open()
    generation = repository.tags.publish(record(), 0)
    repository.tags.purge(T1, generation)
    entry = storage.open().tags.read(T1)
    assert entry is not None and entry.tombstone and not entry.problem
    assert is_tombstone(entry.generation) and entry.generation > generation
    assert repository.scan() == repository.scan()._replace(volumes={}, tags={T1: entry}, litter=[])


def test_nobody_wins_against_a_tombstone_but_who_has_seen_it(storage: Storage):
    """A writer from before the purge is overtaken; the id can live again after the tombstone."""
    repository = storage.open()
    old = repository.tags.publish(record(), 0)
    repository.tags.purge(T1, old)
    for expected in (old, 0):
        with pytest.raises(Overtaken):
            repository.tags.publish(record(epoch=9), expected)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.tombstone
    again = repository.tags.publish(record(epoch=2), entry.generation)
    assert again > entry.generation
    alive = repository.tags.read(T1)
    assert alive is not None and alive.record == record(epoch=2)


def test_a_purge_can_be_repeated(storage: Storage):
    """purge_tag of a tombstone changes nothing."""
    repository = storage.open()
    repository.tags.purge(T1, repository.tags.publish(record(), 0))
    before = repository.tags.read(T1)
    assert before is not None
    repository.tags.purge(T1, before.generation)
    assert repository.tags.read(T1) == before


@pytest.mark.parametrize("character", ["x", "ä", "\x01", "🖴"])
def test_user_data_up_to_the_limit_is_kept(storage: Storage, character: str):
    """64 KiB of user data, whatever is in it, is read back as it was given."""
    repository = storage.open()
    size = len(json.dumps(character, ensure_ascii=False).encode()) - 2
    fitting = (MAX_USER_DATA_BYTES - 2) // size
    with pytest.raises(BadRequest, match="MAX_USER_DATA_BYTES"):
        check_user_data(character * (fitting + 1))
    data = check_user_data(character * fitting)
    repository.tags.publish(record(user_data=data), 0)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record is not None and entry.record.user_data == data


@pytest.mark.parametrize("bad", ["", "../" * 11, "A" * 32, "1" * 31, "1" * 33, "1" * 30 + "/x", "1" * 31 + "\n"])
def test_what_is_no_id_never_becomes_a_path(storage: Storage, bad: str):
    """A tag or volume that is not an id is refused by every call that takes one."""
    repository = storage.open()
    calls = [
        lambda: repository.tags.read(bad),
        lambda: repository.tags.publish(record(bad), 0),
        lambda: repository.tags.purge(bad, 1),
        lambda: repository.volumes.facts(bad, VolumeFormat.RAW),
        lambda: repository.volumes.make(raw(bad), SIZE, None),
        lambda: repository.volumes.remove(bad, VolumeFormat.RAW),
        lambda: repository.volumes.quarantine(bad, VolumeFormat.RAW),
        lambda: repository.volumes.layer(raw(bad)),
        lambda: repository.progress.start(bad, 1),
        lambda: repository.progress.read(bad, 1),
        lambda: repository.digests.write(bad, b""),
        lambda: repository.digests.read(bad),
        lambda: repository.leases.try_acquire(bad),
        lambda: repository.leases.held(bad),
    ]
    for call in calls:
        with pytest.raises(BadRequest):
            call()
    assert repository.scan() == storage.open().scan()._replace(volumes={}, tags={}, litter=[])


# -- volumes


@on_this_machine
def test_a_raw_volume_is_made_empty_and_aligned(storage: Storage):
    """make_volume: present, listed, size rounded up to the alignment, reads as zeros."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE - 100, None)
    facts = repository.volumes.facts(V1, VolumeFormat.RAW)
    assert facts.present and not facts.problem and facts.header is None
    assert facts.length == SIZE
    assert repository.scan().volumes == {V1: VolumeFormat.RAW}
    with open(repository.volumes.layer(raw()).path, "rb") as file:
        assert file.read(SIZE) == bytes(SIZE)


@on_this_machine
def test_a_qcow2_volume_is_what_qemu_understands(storage: Storage):
    """A qcow2 has the aligned virtual size, passes qemu-img check, and names its parent's tag only."""
    repository = storage.open()
    repository.volumes.make(qcow2(parent=T2), SIZE - 5, VolumeFormat.RAW)
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.present and not facts.problem and facts.header is not None
    assert (facts.header.size, facts.header.backing_name) == (SIZE, backing_name(T2))
    assert facts.header.backing_format == "raw"
    path = repository.volumes.layer(qcow2()).path
    info = json.loads(_qemu_img("info", "--output=json", path))
    assert (info["virtual-size"], info["backing-filename"]) == (SIZE, backing_name(T2))
    assert info["backing-filename-format"] == "raw"
    driver = "host_device" if stat.S_ISBLK(os.stat(path).st_mode) else "file"
    alone = {"driver": "qcow2", "backing": None, "file": {"driver": driver, "filename": path}}
    _qemu_img("check", f"json:{json.dumps(alone)}")


@on_this_machine
def test_a_qcow2_without_parent_has_no_backing(storage: Storage):
    """No parent, no backing name, whatever backing format is given."""
    repository = storage.open()
    repository.volumes.make(qcow2(), SIZE, VolumeFormat.QCOW2)
    header = repository.volumes.facts(V1, VolumeFormat.QCOW2).header
    assert header is not None and header.backing_name is None
    _qemu_img("check", "-f", "qcow2", repository.volumes.layer(qcow2()).path)


@on_this_machine
def test_an_unfinished_volume_is_replaced(storage: Storage):
    """make_volume of a name that is there makes it empty again."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    with open(repository.volumes.layer(raw()).path, "r+b", buffering=0) as old:
        old.write(b"half a copy")
    repository.volumes.make(raw(), 2 * SIZE, None)
    with open(repository.volumes.layer(raw()).path, "rb") as new:
        assert new.read(11) == bytes(11)
    assert repository.volumes.facts(V1, VolumeFormat.RAW).length == 2 * SIZE


def test_an_absent_volume_is_known_to_be_absent(storage: Storage):
    """volume_facts says present=False, not unreadable; layer refuses."""
    repository = storage.open()
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert (facts.present, facts.unreadable, facts.problem) == (False, False, "")
    with pytest.raises(StorageError, match=V1):
        repository.volumes.layer(qcow2())


@on_this_machine
def test_a_qcow2_that_is_none_has_a_problem(storage: Storage):
    """Bytes that are no qcow2 header are a problem and not a reading error."""
    repository = storage.open()
    repository.volumes.make(qcow2(), SIZE, None)
    with open(repository.volumes.layer(qcow2()).path, "r+b") as file:
        file.write(b"garbage")
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.present and facts.problem and facts.header is None and not facts.unreadable


def test_removing_a_volume_can_be_repeated(storage: Storage):
    """remove_volume frees it; again, and of one that never was, is a success."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    for volume in (V1, V1, V2):
        repository.volumes.remove(volume, VolumeFormat.RAW)
    assert repository.scan().volumes == {}
    assert not repository.volumes.facts(V1, VolumeFormat.RAW).present


@on_this_machine
def test_a_quarantined_volume_is_litter_with_its_data(storage: Storage):
    """quarantine_volume takes it out of the volumes; it is "lost" litter until that is removed."""
    repository = storage.open()
    repository.volumes.make(raw(), SIZE, None)
    with open(repository.volumes.layer(raw()).path, "r+b") as file:
        file.write(b"x" * 65536)
    for _ in range(2):
        repository.volumes.quarantine(V1, VolumeFormat.RAW)
    scan = repository.scan()
    assert scan.volumes == {}
    assert [(item.kind, item.busy) for item in scan.litter] == [("lost", False)]
    assert repository.litter.remove(scan.litter) >= 65536
    assert repository.scan().litter == []


# -- progress


def test_the_newest_line_is_read_back(storage: Storage):
    """Of many lines the last one is read, by every handle, per attempt."""
    first, second = storage.open(), storage.open()
    assert second.progress.read(T1, 1) is None
    first.progress.start(T1, 1)
    first.progress.start(T1, 2)
    assert second.progress.read(T1, 1) is None
    for sequence in range(100):
        first.progress.write(T1, 1, sequence, b'{"line": %d}' % sequence)
        assert second.progress.read(T1, 1) == b'{"line": %d}' % sequence
    assert second.progress.read(T1, 2) is None


def test_a_long_line_fits(storage: Storage):
    """The longest line that the engine writes is kept whole, with a sequence of any length."""
    from engine.data.progress import MAX_LINE_BYTES

    repository = storage.open()
    repository.progress.start(T1, 1)
    line = b"z" * MAX_LINE_BYTES
    repository.progress.write(T1, 1, (1 << 61) + 5, line)
    assert repository.progress.read(T1, 1) == line


def test_starting_again_forgets_the_lines(storage: Storage):
    """start_progress of the same attempt begins with no line; removing can be repeated."""
    repository = storage.open()
    repository.progress.start(T1, 1)
    repository.progress.write(T1, 1, 40, b"{}")
    repository.progress.start(T1, 1)
    assert repository.progress.read(T1, 1) is None
    for _ in range(2):
        repository.progress.remove(T1, 1)
    assert repository.progress.read(T1, 1) is None
    with pytest.raises(StorageError):
        repository.progress.write(T1, 1, 1, b"{}")


# -- digests


def test_digests_are_replaced_whole(storage: Storage):
    """write_digests replaces, read_digests gives the last ones, removing can be repeated."""
    repository = storage.open()
    assert repository.digests.read(V1) is None
    for data in (b"d" * 3200, b"", b"e" * 64):
        repository.digests.write(V1, data)
        assert storage.open().digests.read(V1) == data
    for _ in range(2):
        repository.digests.remove(V1)
    assert repository.digests.read(V1) is None


# -- leases


def test_a_lease_excludes_everybody_else(storage: Storage):
    """One handle holds it: others get None and see it held, until it is released."""
    first, second = storage.open(), storage.open()
    first.tags.publish(record(), 0)
    assert not second.leases.held(T1)
    lease = first.leases.try_acquire(T1)
    assert lease is not None
    for repository in (first, second):
        assert repository.leases.held(T1)
        assert repository.leases.try_acquire(T1) is None
        assert repository.leases.try_acquire(T1, shared=True) is None
    lease.release()
    lease.release()
    assert not second.leases.held(T1)
    again = second.leases.try_acquire(T1)
    assert again is not None
    again.release()


def test_a_shared_lease_admits_readers_only(storage: Storage):
    """Shared leases go together; an exclusive one waits for the last of them."""
    first, second = storage.open(), storage.open()
    first.tags.publish(record(), 0)
    one, two = first.leases.try_acquire(T1, shared=True), second.leases.try_acquire(T1, shared=True)
    assert one is not None and two is not None
    assert first.leases.try_acquire(T1) is None
    one.release()
    assert second.leases.try_acquire(T1) is None and second.leases.held(T1)
    two.release()
    alone = first.leases.try_acquire(T1)
    assert alone is not None
    alone.release()


def test_leases_of_different_tags_are_independent(storage: Storage):
    """Tags of the same shard, nearly equal, have leases of their own."""
    repository = storage.open()
    leases = [repository.leases.try_acquire(tag) for tag in (T1, T1[:14] + "2" + T1[15:], T2)]
    assert all(lease is not None for lease in leases)
    for lease in leases:
        assert lease is not None
        lease.release()


# -- litter


def test_progress_of_no_live_attempt_is_litter(storage: Storage):
    """A log of another epoch, of a finished image, of a tombstone or of no tag is litter; that of the record's
    operation is not."""
    repository = storage.open()
    repository.tags.publish(record(T1, epoch=2, operation=Operation("copy")), 0)
    repository.tags.publish(record(V2, epoch=1), 0)
    repository.tags.purge(T2, repository.tags.publish(record(T2, epoch=1), 0))
    for tag, epoch in ((T1, 1), (T1, 2), (T2, 1), (V1, 1), (V2, 1)):
        repository.progress.start(tag, epoch)
    litter = repository.scan().litter
    assert [item.kind for item in litter] == ["progress"] * 4
    assert repository.litter.remove(litter) > 0
    assert repository.scan().litter == []
    repository.progress.write(T1, 2, 1, b"{}")
    assert repository.progress.read(T1, 2) == b"{}"


def test_digests_of_no_volume_are_litter(storage: Storage):
    """Digests whose volume is gone are litter, others are not."""
    repository = storage.open()
    repository.volumes.make(raw(V1), SIZE, None)
    for volume in (V1, V2):
        repository.digests.write(volume, b"d" * 32)
    litter = repository.scan().litter
    assert [item.kind for item in litter] == ["digest"]
    repository.litter.remove(litter)
    assert repository.scan().litter == []
    assert repository.digests.read(V1) == b"d" * 32
    assert repository.digests.read(V2) is None


def test_litter_that_came_to_be_needed_is_kept(storage: Storage):
    """remove_litter looks afresh: what is in use by now stays, and nothing is said to be freed."""
    repository = storage.open()
    repository.progress.start(T1, 3)
    repository.digests.write(V1, b"d" * 32)
    litter = repository.scan().litter
    assert {item.kind for item in litter} == {"progress", "digest"}
    repository.tags.publish(record(T1, epoch=3, operation=Operation("copy")), 0)
    repository.volumes.make(raw(V1), SIZE, None)
    assert repository.litter.remove(litter) == 0
    repository.progress.write(T1, 3, 1, b"{}")
    assert repository.digests.read(V1) == b"d" * 32


def test_progress_of_a_leased_tag_is_busy(storage: Storage):
    """Who holds a tag's lease may be about to claim an epoch: its progress is busy and stays."""
    repository = storage.open()
    repository.tags.publish(record(), 0)
    repository.progress.start(T1, 1)
    lease = storage.open().leases.try_acquire(T1)
    assert lease is not None
    litter = repository.scan().litter
    assert [(item.kind, item.busy) for item in litter] == [("progress", True)]
    assert repository.litter.remove(litter) == 0
    lease.release()
    assert not repository.scan().litter[0].busy
    repository.litter.remove(litter)
    assert repository.scan().litter == []


@pytest.mark.parametrize("kind", ["temporary", "old-generation", "progress", "digest", "lost", "foreign", "new"])
@pytest.mark.parametrize(
    "name", ["", "..", "../../etc/passwd", "/etc/passwd", "tags", "tmp/../repository.json", "locks"]
)
def test_litter_of_a_strange_name_removes_nothing(storage: Storage, kind: str, name: str):
    """Litter may come from another host: a name that is none of ours is passed over."""
    repository = storage.open()
    repository.tags.publish(record(), 0)
    assert repository.litter.remove([Litter(kind, name, 5)]) == 0
    entry = storage.open().tags.read(T1)
    assert entry is not None and entry.record == record()


def test_a_live_generation_given_as_litter_stays(storage: Storage):
    """The newest generation of a tag cannot be removed as litter of any kind."""
    repository = storage.open()
    generation = repository.tags.publish(record(), 0)
    name = f"tags/{T1[:2]}/{T1}.{generation:016x}"
    kinds = ("temporary", "old-generation", "progress", "digest", "lost", "foreign")
    assert repository.litter.remove([Litter(kind, name, 1) for kind in kinds]) == 0
    assert repository.tags.read(T1) is not None


def test_closing_leaves_the_repository_usable_by_others(storage: Storage):
    """close can be repeated and another handle goes on."""
    first, second = storage.open(), storage.open()
    first.tags.publish(record(), 0)
    first.close()
    first.close()
    assert second.tags.read(T1) is not None


def _qemu_img(*arguments: str) -> str:
    return subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=True).stdout
