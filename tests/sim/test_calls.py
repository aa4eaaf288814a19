"""Power cuts outside of any case: creating a repository, a host's own notes, and single calls of a repository."""

from __future__ import annotations

import pytest

from sim.explore.search import calls
from sim.hosts.world import FORMAT, LVM


def test_creating_a_repository_is_all_or_nothing():
    """There is none and it can be created, or it is there; also where the answer of the server is lost."""
    assert calls.creation() == calls.creation(reply_lost=True) == []


@pytest.mark.parametrize("in_a_group", [False, True])
def test_creating_a_repository_on_lvm_is_all_or_nothing(in_a_group):
    """On a bare device, and in a group that is there already."""
    assert calls.creation_on_lvm(in_a_group) == []


def test_room_for_more_records_is_made_or_not():
    """The first record of a new chunk, and the new chunk itself, are there where they were acknowledged."""
    assert calls.more_room() == []


def test_what_a_host_notes_is_there_whole_or_not():
    """A connection that was acknowledged is known after a power cut of the host itself."""
    assert calls.notes() == []


def test_a_note_that_cannot_be_understood_is_kept():
    """Wherever the power of the host is cut while another one takes its name."""
    assert calls.note_kept() == []


@pytest.mark.parametrize("format", [FORMAT, LVM])
def test_calls_that_say_so_are_durable_on_return(format):
    """Each call of a repository by itself, in every state that a power cut right after it leaves."""
    assert calls.promises(format) == []


def test_what_was_begun_by_one_that_died_is_durable_when_another_finds_it_done():
    """Room for a volume that was made and not synced; found by exploring a merge into a shorter volume."""
    assert calls.room_made_twice() == []


def test_a_part_that_is_made_again_is_durable():
    """What is put into it later is durable only if it is."""
    assert calls.part_made_again() == []


def test_a_group_that_is_marked_anew_stays_so():
    """The mark of an older program would let another host of the same name have the group."""
    assert calls.mark_made_anew() == []
