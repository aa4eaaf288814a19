"""What every repository format must do: ``engine.formats.base.Digests``."""

from __future__ import annotations

from tests.formats.kit import V1, Storage


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
