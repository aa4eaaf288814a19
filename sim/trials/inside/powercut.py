"""In a guest: records operations on dm-log-writes, cuts the power in many ways, and compares with what is legal.

``main`` prints one JSON object: {"states", "seconds", "repaired", "wrong": [...]}; see ``sim.trials.powercut``.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.tools.local.files import RealFiles
from sim.trials.inside import logwrites
from sim.trials.inside.logwrites import State
from sim.trials.inside.places import MOUNT, place_of
from sim.trials.inside.replay import Recorder, Recording
from sim.trials.sequences import files as micro

MOST_WRONG = 5
_TOLD_EVERY = 20


class Asked(NamedTuple):
    """What the outside wants."""

    kind: str
    on: str
    """ext4, xfs or lvm."""
    log_disk: str
    room_disk: str
    most_states: int
    seed: int
    profile: str
    """micro: the rules of the simulation that must allow everything that is found."""
    careless: bool
    """verbs: nothing is synced, so something must be found."""


class Found(NamedTuple):
    """What came of it."""

    states: int
    wrong: list[str]
    repaired: int = 0
    """So many times LVM could not read a group before its own tools had put back the last state."""


def main(words: list[str]) -> int:
    """Do what the one argument, JSON, asks for."""
    asked = Asked(**json.loads(words[0]))
    started = time.monotonic()
    if asked.kind == "micro" and asked.on == "lvm":
        from sim.trials.inside.powercut_lvm import compared

        found = compared(asked)
    elif asked.kind == "micro":
        found = _micro(asked)
    else:
        from sim.trials.inside.powercut_verbs import verbs

        found = verbs(asked)
    answer: dict[str, Any] = {**found._asdict(), "seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def chosen(asked: Asked, recording: Recording, first: int, last: int, each: int = 2) -> Iterator[State]:
    """States of cuts between two entries, at most as many as were asked for, in order. ``each``: so many of them before
    each flush keep some of the writes."""
    chance = random.Random(asked.seed)
    found = [state for state in logwrites.states(recording.entries, first, chance, each) if state.position < last]
    if len(found) > asked.most_states:
        picked = sorted(chance.sample(range(len(found)), asked.most_states))
        found = [found[index] for index in picked]
    for number, state in enumerate(found):
        if number % _TOLD_EVERY == 0:
            sys.stderr.write(f"progress: {number} of {len(found)} states were looked at\n")
            sys.stderr.flush()
        yield state


# -- small sequences of file operations


class _Done(NamedTuple):
    name: str
    first: int
    """Number of the mark before its first operation; one more after each."""
    legal: list[set[micro.Tree]]


def _micro(asked: Asked) -> Found:
    recorder = Recorder(place_of(asked.on), asked.log_disk, asked.room_disk)
    files = RealFiles()
    done = []
    for name, workload in micro.WORKLOADS.items():
        top = f"{MOUNT}/{name}"
        micro.prepare(files, top)
        os.sync()
        recorder.mark(f"{name} begins")
        first = len(recorder.marks)
        for _ in workload(files, top):
            recorder.mark(name)
        done.append(_Done(name, first, micro.legal(workload, asked.profile)))
    os.sync()
    recorder.mark("the end")
    recording = recorder.finish()
    try:
        return _compare(asked, recording, done)
    finally:
        recording.close()


def _compare(asked: Asked, recording: Recording, done: list[_Done]) -> Found:
    first = recording.entry_of_mark(1)
    count, wrong = 0, []
    for state in chosen(asked, recording, first, len(recording.entries)):
        with recording.found(state):
            for one in done:
                acknowledged = min(state.marks - one.first, len(one.legal) - 1)
                if acknowledged < 0:
                    continue
                found = micro.real_tree(f"{MOUNT}/{one.name}")
                allowed = set.union(*one.legal[acknowledged : acknowledged + 2])
                if state.marks >= one.first + len(one.legal):  # what came after it was preceded by a sync of everything
                    allowed = one.legal[-1]
                if found not in allowed:
                    wrong.append(f"{one.name}, {acknowledged} operations done, {state.about}: {micro.shown(found)}")
        count += 1
        if len(wrong) >= MOST_WRONG:
            break
    return Found(count, wrong)
