"""What every repository format must do: ``engine.formats.base.Tags``."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.data.model import MAX_USER_DATA_BYTES
from engine.data.records import Operation, check_user_data, is_tombstone
from engine.errors import BadRequest, OutcomeUnknown, Overtaken
from tests.formats.kit import SIMULATED, T1, T2, V2, Storage, qcow2, raw, record, status


def test_a_published_record_is_the_newest_for_everybody(storage: Storage):
    """publish returns the new generation; the record is read back whole through another handle."""
    first, second = storage.open(), storage.open()
    wanted = record(
        volume=qcow2(parent=T2), operation=Operation("copy", raw(V2)), last=status("ä\n\x00"), lost=((0, 512),)
    )
    generation = first.tags.publish(wanted, 0)
    entry = second.tags.read(T1)
    assert entry is not None
    assert (entry.generation, entry.record, entry.problem, entry.tombstone) == (generation, wanted, "", False)
    assert second.scan().tags == second.tags.scan() == {T1: entry}


def test_each_change_has_a_higher_generation_and_replaces_the_one_before(storage: Storage):
    """Generations rise, the newest record is read, and no litter stays of the older ones."""
    repository = storage.open()
    generations = [0]
    for count in range(1, 6):
        generations.append(repository.tags.publish(record(epoch=count), generations[-1]))
    assert generations == sorted(set(generations))
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record == record(epoch=5)
    assert repository.scan().litter == []


@pytest.mark.no_kernel
def test_a_tag_that_never_was_is_none(storage: Storage):
    """read_tag of an unknown id is None, also in the shard of another tag."""
    repository = storage.open()
    assert repository.tags.read(T1) is None
    repository.tags.publish(record(T1), 0)
    assert repository.tags.read(T1[:2] + "f" * 30) is None


@pytest.mark.parametrize("expected", [0, *(pytest.param(one, marks=pytest.mark.no_kernel) for one in (7, 1 << 48))])
def test_a_wrong_expectation_is_overtaken_and_changes_nothing(storage: Storage, expected: int):
    """publish and purge_tag against a generation that is not the newest raise Overtaken, nothing is visible."""
    repository = storage.open()
    generation = repository.tags.publish(record(epoch=3), 0)
    assert expected != generation
    with pytest.raises(Overtaken) as caught:
        repository.tags.publish(record(epoch=4), expected)
    assert not isinstance(caught.value, OutcomeUnknown)
    with pytest.raises(Overtaken):
        repository.tags.purge(T1, expected or 9)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record == record(epoch=3) and entry.generation == generation
    assert repository.scan().litter == []


def test_a_stale_handle_is_overtaken(storage: Storage):
    """Of two handles that read the same generation the second to publish is overtaken."""
    first, second = storage.open(), storage.open()
    start = first.tags.publish(record(), 0)
    first.tags.publish(record(epoch=2), start)
    with pytest.raises(Overtaken):
        second.tags.publish(record(epoch=3), start)
    entry = second.tags.read(T1)
    assert entry is not None and entry.record == record(epoch=2)


def test_concurrent_changes_are_never_lost(storage: Storage, request: pytest.FixtureRequest):
    """Handles that change one tag at once: every acknowledged change is in the result, and nothing else
    but changes whose outcome was reported as unknown."""
    start, threadless = storage.open(), request.node.callspec.params["storage"] in SIMULATED
    start.tags.publish(record(user_data=0), 0)

    def add(times: int) -> tuple[int, int]:
        repository = storage.open()
        done = unknown = 0
        while done + unknown < times:
            entry = repository.tags.read(T1)
            assert entry is not None and entry.record is not None
            try:
                repository.tags.publish(entry.record._replace(user_data=entry.record.user_data + 1), entry.generation)
                done += 1
            except OutcomeUnknown:
                unknown += 1
            except Overtaken:
                continue
        return done, unknown

    with ThreadPoolExecutor(1 if threadless else 3) as pool:
        results = list(pool.map(add, [15] * 3))
    done, unknown = (sum(column) for column in zip(*results, strict=True))
    entry = start.tags.read(T1)
    assert entry is not None and entry.record is not None
    assert done <= entry.record.user_data <= done + unknown
    assert start.scan().litter == []


def test_a_purge_leaves_a_tombstone(storage: Storage):
    """After purge_tag the tag is a tombstone of a higher incarnation, and only that."""
    repository = storage.open()
    generation = repository.tags.publish(record(), 0)
    repository.tags.purge(T1, generation)
    entry = storage.open().tags.read(T1)
    assert entry is not None and entry.tombstone and not entry.problem
    assert is_tombstone(entry.generation) and entry.generation > generation
    assert repository.scan() == repository.scan()._replace(volumes={}, tags={T1: entry}, litter=[])


@pytest.mark.no_kernel
def test_nobody_wins_against_a_tombstone_but_who_has_seen_it(storage: Storage):
    """A writer from before the purge is overtaken; the id can live again after the tombstone."""
    repository = storage.open()
    old = repository.tags.publish(record(), 0)
    repository.tags.purge(T1, old)
    for expected in (old, 0):
        with pytest.raises(Overtaken):
            repository.tags.publish(record(epoch=9), expected)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.tombstone
    again = repository.tags.publish(record(epoch=2), entry.generation)
    assert again > entry.generation
    alive = repository.tags.read(T1)
    assert alive is not None and alive.record == record(epoch=2)


@pytest.mark.no_kernel
def test_a_purge_can_be_repeated(storage: Storage):
    """purge_tag of a tombstone changes nothing."""
    repository = storage.open()
    repository.tags.purge(T1, repository.tags.publish(record(), 0))
    before = repository.tags.read(T1)
    assert before is not None
    repository.tags.purge(T1, before.generation)
    assert repository.tags.read(T1) == before


@pytest.mark.parametrize("character", ["🖴", *(pytest.param(one, marks=pytest.mark.no_kernel) for one in "xä\x01")])
def test_user_data_up_to_the_limit_is_kept(storage: Storage, character: str):
    """64 KiB of user data, whatever is in it, is read back as it was given."""
    repository = storage.open()
    size = len(json.dumps(character, ensure_ascii=False).encode()) - 2
    fitting = (MAX_USER_DATA_BYTES - 2) // size
    with pytest.raises(BadRequest, match="MAX_USER_DATA_BYTES"):
        check_user_data(character * (fitting + 1))
    data = check_user_data(character * fitting)
    repository.tags.publish(record(user_data=data), 0)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record is not None and entry.record.user_data == data
