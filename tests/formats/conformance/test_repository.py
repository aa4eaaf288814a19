"""What every repository format must do: what is of the repository itself, and which parts it says that it has."""

from __future__ import annotations

import pytest

from engine.data.model import VolumeFormat, is_id
from engine.errors import BadRequest
from tests.formats.kit import SIZE, T1, Storage, raw, record


def test_an_empty_repository_has_nothing_in_it(storage: Storage):
    """A fresh repository has an identity, a place and room, no tags, no volumes and no litter."""
    repository = storage.open()
    scan = repository.scan()
    assert (scan.volumes, scan.tags, scan.litter) == ({}, {}, [])
    assert is_id(repository.identity) and repository.place
    total, free = repository.space()
    assert 0 < free <= total


@pytest.mark.no_kernel
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


@pytest.mark.no_kernel
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


def test_closing_leaves_the_repository_usable_by_others(storage: Storage):
    """close can be repeated and another handle goes on."""
    first, second = storage.open(), storage.open()
    first.tags.publish(record(), 0)
    first.close()
    first.close()
    assert second.tags.read(T1) is not None


@pytest.mark.no_kernel
def test_a_part_that_a_format_has_not_is_none(storage: Storage):
    """Where one host alone may make volumes there is a manager; those who need none say so and have no such part.
    Volumes that are active only while they are used do not grow by themselves either."""
    repository = storage.open()
    assert (repository.manager is not None) == repository.constraints().needs_srm
    assert (repository.activation is None) == (repository.extents is None)
