"""The loop that copies: what it leaves in a target that may show anything, wherever it is stopped."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from engine.copying import pump
from engine.copying.ranges import merged
from engine.data.digests import CHUNK_BYTES, DigestList
from engine.doors.images import Data

KIB = 1 << 10
MIB = 1 << 20
SIZE = 9 * MIB + 4 * KIB
ROOM = 12 * MIB
GARBAGE = b"\xa5"


class Memory:
    """A session on bytes, of which nothing is kept before a flush."""

    def __init__(self, content: bytes) -> None:
        self.durable = bytearray(content)
        self._now = bytearray(content)
        self.zeroed: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self._now)

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Data]]:
        for start, length in ranges:
            yield start, self.read(start, length)

    def read(self, start: int, length: int) -> bytes:
        return bytes(self._now[start : start + length])

    def write(self, start: int, data: Data) -> None:
        self._now[start : start + len(data)] = data

    def zero(self, start: int, length: int) -> None:
        self.zeroed.append((start, length))
        self._now[start : start + length] = bytes(length)

    def flush(self) -> None:
        self.durable[:] = self._now

    def close(self) -> None:
        """Nothing."""


class Stop(Exception):
    """The end of an attempt."""


def image(numbers: random.Random) -> tuple[bytes, list[tuple[int, int]]]:
    """Content, and the ranges that can hold data: some of them are zeros."""
    content = bytearray(SIZE)
    ranges = []
    for _ in range(numbers.randrange(7)):
        start = numbers.randrange(0, SIZE, 4 * KIB)
        length = min(SIZE - start, numbers.choice([4 * KIB, 64 * KIB, 700 * KIB, 3 * MIB]))
        ranges.append((start, length))
        if numbers.random() < 0.7:
            content[start : start + length] = numbers.randbytes(length)
    return bytes(content), merged(ranges, SIZE)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_was_in_the_target_only_the_image_is_in_it_afterwards(seed):
    """Zeros to the end of its room. Stopped at a checkpoint, and with anything above the cursor, it goes on there."""
    numbers = random.Random(seed)
    content, ranges = image(numbers)
    target = Memory(GARBAGE * ROOM)
    digests = DigestList(SIZE)
    cursor, percents = 0, [0]
    ticks = iter(range(0, 10**9, 6))  # every look at the clock finds a window's time gone

    def checkpoint(position: int, percent: int) -> None:
        nonlocal cursor
        assert position > cursor or position == cursor == ROOM
        cursor = position
        percents.append(percent)
        if numbers.random() < 0.5 and percent < 100:
            raise Stop

    while percents[-1] < 100:
        target = Memory(bytes(target.durable[:cursor]) + GARBAGE * (ROOM - cursor))
        job = pump.Job(Memory(content), target, ranges, SIZE, blank=False, zeroed_to=ROOM, digests=digests)
        try:
            pump.run(job, cursor, checkpoint, lambda: float(next(ticks)))
        except Stop:
            assert cursor % CHUNK_BYTES == 0
    assert cursor == ROOM and target.durable == content + bytes(ROOM - SIZE)
    assert percents == sorted(percents)
    again = pump.digest_of(Memory(content), merged([(0, SIZE)], SIZE), SIZE)
    assert digests.root() == again.root()


def test_holes_and_zeros_that_were_read_are_zeroed_together_and_nothing_twice():
    """One request for what follows each other, up to the largest one."""
    content = bytearray(SIZE)
    content[3 * MIB : 3 * MIB + 64 * KIB] = b"x" * 64 * KIB
    target = Memory(GARBAGE * 70 * MIB)
    ranges = merged([(3 * MIB, 128 * KIB), (5 * MIB, MIB)], SIZE)
    job = pump.Job(Memory(bytes(content)), target, ranges, SIZE, blank=False, zeroed_to=70 * MIB)
    pump.run(job, 0, lambda cursor, percent: None, lambda: 0.0)
    assert target.durable == content + bytes(70 * MIB - SIZE)
    assert len(target.zeroed) == 3
    assert sum(length for _, length in target.zeroed) == 70 * MIB - 64 * KIB


def test_where_nothing_is_to_be_zeroed_holes_stay_as_they_are():
    """A merge writes into an image that has a content."""
    target = Memory(GARBAGE * SIZE)
    job = pump.Job(Memory(bytes(SIZE)), target, [(4 * KIB, 8 * KIB), (5 * MIB, 4 * KIB)], SIZE, blank=False)
    pump.run(job, 0, lambda cursor, percent: None, lambda: 0.0)
    expected = bytearray(GARBAGE * SIZE)
    expected[4 * KIB : 12 * KIB] = bytes(8 * KIB)
    expected[5 * MIB : 5 * MIB + 4 * KIB] = bytes(4 * KIB)
    assert target.durable == expected
