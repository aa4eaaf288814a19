"""What every repository format must do: ``engine.formats.base.Progress``."""

from __future__ import annotations

import pytest

from engine.errors import StorageError
from tests.formats.kit import T1, Storage


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


@pytest.mark.no_kernel
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
