"""The tape decides everything, and its record repeats a run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sim.hosts.tape import Tape, explore


def play(tape: Tape) -> list[int]:
    """A run whose length depends on what was chosen."""
    said = []
    for _ in range(6):
        said.append(tape.choose(3, "which"))
        if said[-1] == 2:
            said.append(tape.choose(2, "more", rarity=10))
    return said


@given(st.integers(0, 1 << 32))
def test_a_record_repeats_the_run(seed: int):
    """The values of a seeded tape, given to a recorded one, lead to the same choices; so does the seed."""
    tape = Tape.seeded(seed)
    said = play(tape)
    assert play(Tape(tape.values)) == said
    assert play(Tape.seeded(seed)) == said


@given(st.lists(st.integers(0, 1000)))
def test_any_list_is_a_tape(values: list[int]):
    """Answers are always below the number of options, and 0 after the end."""
    tape = Tape(values)
    said = play(tape)
    assert all(0 <= choice.value < choice.options for choice in tape.record)
    assert Tape(values).choose(7, "x") == (values[0] % 7 if values else 0)
    assert said == play(Tape(tape.values))


def test_exploration_goes_through_every_run_once():
    """All combinations, each once, simplest first; with at most so many changes only those."""
    runs = []
    for tape in explore():
        runs.append((tape.choose(2, "a"), tape.choose(3, "b")) if not tape.choose(2, "c") else ())
    assert sorted(map(str, runs)) == sorted(map(str, [(a, b) for a in range(2) for b in range(3)] + [()]))
    assert runs[0] == (0, 0)
    few = [tuple(tape.choose(3, "x") for _ in range(4)) for tape in explore(changes=1)]
    assert sorted(few) == sorted(t for t in ((a, b, c, d) for a in range(3) for b in range(3) for c in range(3)
                                             for d in range(3)) if sum(map(bool, t)) <= 1)  # fmt: skip
    short = [tuple(tape.choose(2, "x") for _ in range(5)) for tape in explore(limit_depth=2)]
    assert short == [(0, 0, 0, 0, 0), (0, 1, 0, 0, 0), (1, 0, 0, 0, 0), (1, 1, 0, 0, 0)]


def test_rare_things_are_rare():
    """With a rarity of 50 about one choice in 50 is not 0, and one option is no choice."""
    tape = Tape.seeded(1)
    odd = sum(bool(tape.choose(5, "fault", rarity=50)) for _ in range(10_000))
    assert 100 < odd < 400
    assert tape.choose(1, "none") == 0 and len(tape.record) == 10_000
