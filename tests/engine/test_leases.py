"""Leases of several tags: all of them or none, on every path."""

from __future__ import annotations

import pytest

from engine.errors import ImageBusy, StorageError
from engine.tags import leasing

TAGS = tuple(digit * 32 for digit in "1234")


class Failing:
    """The leases of a repository, of which one cannot be had."""

    def __init__(self, leases, tag, error):
        self._leases, self._tag, self._error = leases, tag, error

    def __getattr__(self, name):
        return getattr(self._leases, name)

    def try_acquire(self, tag, shared=False):
        if tag == self._tag:
            raise self._error
        return self._leases.try_acquire(tag, shared)

    def adopt(self, tag, token):
        if tag == self._tag:
            raise self._error
        return self._leases.adopt(tag, token)


@pytest.fixture
def repository(engine):
    return engine.context.repository("a")


def held(repository):
    return [tag for tag in TAGS if repository.leases.held(tag)]


def test_a_set_is_taken_whole(engine, repository):
    """And given up whole."""
    with leasing.take(engine.doors, repository, TAGS[:2], TAGS[2:]):
        assert held(repository) == list(TAGS)
    assert held(repository) == []


@pytest.mark.parametrize("broken", TAGS)
@pytest.mark.parametrize("error", [StorageError("made up"), KeyboardInterrupt()])
def test_a_set_of_which_one_raises_leaves_none_taken(engine, repository, monkeypatch, broken, error):
    """Whichever it is, and whatever it raises: the others would be kept until this process ends."""
    monkeypatch.setattr(repository, "leases", Failing(repository.leases, broken, error))
    with pytest.raises(type(error)):
        leasing.take(engine.doors, repository, TAGS)
    assert held(repository) == []


def test_a_set_of_which_one_is_held_leaves_none_taken(engine, repository):
    """The error names it."""
    other = repository.leases.try_acquire(TAGS[2])
    with pytest.raises(ImageBusy, match=TAGS[2]):
        leasing.take(engine.doors, repository, TAGS)
    assert held(repository) == [TAGS[2]]
    other.release()


@pytest.mark.parametrize("broken", TAGS)
def test_of_leases_that_were_handed_over_none_stays_if_one_is_lost(engine, repository, monkeypatch, broken):
    """A process inherits all of them at once; those after the lost one would stay with it while it does other work."""
    leases = [repository.leases.try_acquire(tag) for tag in TAGS if tag != broken]
    tokens = dict(zip([tag for tag in TAGS if tag != broken], [lease.token for lease in leases], strict=True))
    monkeypatch.setattr(repository, "leases", Failing(repository.leases, broken, StorageError("made up")))
    with pytest.raises(StorageError):
        leasing.adopt(repository, {**tokens, broken: "0"})
    assert held(repository) == []
    for lease in leases:
        lease.descriptor = -1  # closed through the set that adopted it
