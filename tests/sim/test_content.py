"""Sparse content: it reads as the bytes that were written, and its digest depends on nothing else."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sim.disk.content import BLOCK, EMPTY, Content

SPAN = 5 * BLOCK
OFFSETS = st.one_of(
    st.integers(0, SPAN), st.sampled_from([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 512])
)
DATA = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.binary(min_size=1, max_size=1), st.sampled_from([511, 512, 600, BLOCK, 2 * BLOCK + 7])).map(
        lambda pair: pair[0] * pair[1]
    ),
    st.integers(0, 1000).map(lambda seed: random.Random(seed).randbytes(BLOCK + 100)),
)
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), OFFSETS, DATA),
        st.tuples(st.just("fill"), OFFSETS, st.integers(0, 2 * BLOCK), st.sampled_from([0, 1, 255])),
        st.tuples(st.just("punch"), OFFSETS, st.integers(0, 2 * BLOCK)),
        st.tuples(st.just("truncate"), OFFSETS),
    ),
    max_size=12,
)


def on_bytes(have: bytearray, op: tuple) -> None:
    """The same change on plain bytes."""
    if op[0] == "write" and op[2]:
        put(have, op[1], op[2])
    elif op[0] == "fill" and op[2]:
        put(have, op[1], bytes([op[3]]) * op[2])
    elif op[0] == "punch":
        end = min(len(have), op[1] + op[2])
        if op[1] < end:
            have[op[1] : end] = bytes(end - op[1])
    elif op[0] == "truncate":
        del have[op[1] :]
        have.extend(bytes(op[1] - len(have)))


def put(have: bytearray, offset: int, data: bytes) -> None:
    have.extend(bytes(max(0, offset - len(have))))
    have[offset : offset + len(data)] = data


def apply(content: Content, op: tuple) -> Content:
    changed: Content = getattr(content, op[0])(*op[1:])
    return changed


@given(OPS, OFFSETS, st.integers(0, SPAN))
def test_content_reads_as_what_was_written(ops, offset, length):
    """After any changes every range reads as it would from plain bytes, and older contents are untouched."""
    content, plain = EMPTY, bytearray()
    history = []
    for op in ops:
        history.append((content, bytes(plain)))
        content = apply(content, op)
        on_bytes(plain, op)
    assert content.size == len(plain)
    assert content.read(0, SPAN * 2) == plain
    assert content.read(offset, length) == plain[offset : offset + length]
    for old, known in history:
        assert old.read(0, SPAN * 2) == known


@given(OPS, st.randoms(use_true_random=False))
def test_the_digest_depends_on_what_is_read_only(ops, rng):
    """The same bytes written in other pieces and another order have the same digest; one changed bit another."""
    content = EMPTY
    for op in ops:
        content = apply(content, op)
    plain = content.read(0, content.size)
    cuts = sorted([*rng.sample(range(len(plain) + 1), min(len(plain) + 1, 4)), 0, len(plain)])
    pieces = [(a, plain[a:b]) for a, b in pairwise(cuts)]
    rng.shuffle(pieces)
    other = EMPTY.truncate(len(plain))
    for start, data in pieces:
        other = other.write(start, data)
    assert other.digest == content.digest
    assert other.same(content)
    if plain:
        position = rng.randrange(len(plain))
        flipped = content.write(position, bytes([plain[position] ^ 1]))
        assert flipped.digest != content.digest
    assert content.truncate(len(plain) + 1).digest != content.digest


@given(OPS)
def test_segments_cover_the_file_and_tell_the_truth(ops):
    """Segments are in order without gaps; holes and known zeros read as zeros; only data occupies room."""
    content = EMPTY
    for op in ops:
        content = apply(content, op)
    position = 0
    blocks: set[int] = set()
    for segment in content.segments():
        assert segment.start == position and segment.length > 0
        position += segment.length
        if segment.zero:
            assert not any(content.read(segment.start, segment.length))
        if segment.data:
            blocks.update(range(segment.start // BLOCK, (position - 1) // BLOCK + 1))
    assert position == content.size
    assert content.allocated == len(blocks) * BLOCK


def test_a_repeated_byte_is_not_taken_for_one_byte():
    """A block full of one byte and a block with that byte once differ in their digest."""
    assert EMPTY.write(0, b"A" * BLOCK).digest != EMPTY.write(0, b"A").truncate(BLOCK).digest


def test_a_hundred_gigabytes_cost_nothing():
    """A file of 100 GB with a few patterns has a few runs, and reading or hashing it does not go through it all."""
    gigabyte = 1 << 30
    content = EMPTY.truncate(100 * gigabyte)
    for number in range(100):
        content = content.fill(number * gigabyte, gigabyte // 2, number % 3)
    assert len(content.runs) == 100
    assert content.read(gigabyte + 5, 3) == b"\1\1\1"
    assert content.digest == content.fill(0, 0, 1).digest
    assert content.allocated == 50 * gigabyte
