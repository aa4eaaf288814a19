"""What every repository format must do: ``engine.formats.base.LitterBox``."""

from __future__ import annotations

import pytest

from engine.data.records import Operation
from engine.formats.base import Litter
from tests.formats.kit import SIZE, T1, T2, V1, V2, Storage, raw, record


@pytest.mark.no_kernel
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


@pytest.mark.no_kernel
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


@pytest.mark.no_kernel
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


@pytest.mark.no_kernel
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


@pytest.mark.no_kernel
def test_a_live_generation_given_as_litter_stays(storage: Storage):
    """The newest generation of a tag cannot be removed as litter of any kind."""
    repository = storage.open()
    generation = repository.tags.publish(record(), 0)
    name = f"tags/{T1[:2]}/{T1}.{generation:016x}"
    kinds = ("temporary", "old-generation", "progress", "digest", "lost", "foreign")
    assert repository.litter.remove([Litter(kind, name, 1) for kind in kinds]) == 0
    assert repository.tags.read(T1) is not None
