"""What every repository format must do: ``engine.formats.base.Leases``."""

from __future__ import annotations

from tests.formats.kit import T1, T2, Storage, record


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
