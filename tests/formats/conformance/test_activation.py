"""What every format must do whose volumes are active only while they are used: ``engine.formats.base.Activation``."""

from __future__ import annotations

import pytest

from tests.formats.kit import MANAGED, SIZE, Storage, qcow2

pytestmark = pytest.mark.parametrize("storage", MANAGED, indirect=True)


def test_what_is_held_stays_in_use_and_what_is_not_held_does_not(storage: Storage):
    """Its name is told as long as the lease is held; then nothing is left, and asking again changes nothing."""
    repository = storage.open()
    assert repository.activation is not None
    repository.volumes.make(qcow2(), SIZE, None)
    repository.volumes.layer(qcow2())
    lease = repository.activation.hold(qcow2(), True)
    (name,) = repository.activation.deactivate(every=True)
    assert qcow2().id in name
    lease.release()
    for _ in range(2):
        assert repository.activation.deactivate(every=True) == []


def test_a_volume_can_be_used_again_after_it_was_deactivated(storage: Storage):
    """It is activated anew, with what was in it."""
    repository = storage.open()
    assert repository.activation is not None
    repository.volumes.make(qcow2(), SIZE, None)
    first = repository.volumes.layer(qcow2())
    repository.activation.deactivate()
    assert repository.volumes.layer(qcow2()) == first
    repository.activation.deactivate()


def test_a_volume_that_is_shut_can_be_locked_by_others_who_let_nobody_write(storage: Storage):
    """And goes as any when none of them has it any more."""
    repository = storage.open()
    assert repository.activation is not None
    repository.volumes.make(qcow2(), SIZE, None)
    repository.volumes.layer(qcow2())
    locks = [repository.activation.shut(qcow2()) for _ in range(2)]
    for lock in locks:
        lock.release()
    assert repository.activation.deactivate(every=True) == []
