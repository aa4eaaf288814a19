"""What every format must do whose volumes do not grow by themselves: ``engine.formats.base.Extents``."""

from __future__ import annotations

import pytest

from engine.data.model import VolumeFormat
from engine.errors import NoSpace
from tests.formats.kit import MANAGED, SIZE, V1, Storage, qcow2, raw

pytestmark = pytest.mark.parametrize("storage", MANAGED, indirect=True)


def test_what_does_not_fit_is_told_before_it_is_tried(storage: Storage):
    """NoSpace for more than there is, nothing for what can be made."""
    repository = storage.open()
    assert repository.extents is not None
    repository.extents.require_room(VolumeFormat.QCOW2, SIZE)
    with pytest.raises(NoSpace):
        repository.extents.require_room(VolumeFormat.RAW, repository.space()[0] + SIZE)


def test_a_volume_is_reduced_to_what_is_in_it_and_gets_its_room_again(storage: Storage):
    """What is freed is told once; room for all that the image can hold comes back."""
    repository = storage.open()
    assert repository.extents is not None
    repository.volumes.make(qcow2(), 2 * SIZE, None)
    before = repository.volumes.facts(V1, VolumeFormat.QCOW2).length
    freed = repository.extents.reduce(qcow2())
    after = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert freed > 0 and after.length == before - freed and after.in_use == after.length
    assert repository.extents.reduce(qcow2()) == 0
    repository.extents.make_room(qcow2(), 2 * SIZE)
    assert repository.volumes.facts(V1, VolumeFormat.QCOW2).length == before


def test_a_raw_volume_grows_to_the_size_that_is_asked_for(storage: Storage):
    """Asking again, or for less, changes nothing; freezing changes no length."""
    repository = storage.open()
    assert repository.extents is not None
    repository.volumes.make(raw(), SIZE, None)
    for size in (2 * SIZE, 2 * SIZE, SIZE):
        repository.extents.make_room(raw(), size)
        assert repository.volumes.facts(V1, VolumeFormat.RAW).length == 2 * SIZE
    repository.extents.freeze(raw(), lambda layer: None)
    assert storage.open().volumes.facts(V1, VolumeFormat.RAW).length == 2 * SIZE
