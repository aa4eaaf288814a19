"""Power cuts outside of any story: creating a repository, a host's own notes, and single calls of a repository."""

from __future__ import annotations

from sim.explore import small


def test_creating_a_repository_is_all_or_nothing():
    """There is none and it can be created, or it is there; also where the answer of the server is lost."""
    assert small.creation() == small.creation(reply_lost=True) == []


def test_what_a_host_notes_is_there_whole_or_not():
    """A connection that was acknowledged is known after a power cut of the host itself."""
    assert small.notes() == []


def test_calls_that_say_so_are_durable_on_return():
    """Each call of a repository by itself, in every state that a power cut right after it leaves."""
    assert small.promises() == []
