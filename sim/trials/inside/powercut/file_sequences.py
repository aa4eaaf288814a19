"""In a guest: small sequences of file operations on a real file system, recorded on dm-log-writes; what a power cut
leaves of each is compared with what the simulated storage may leave.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from engine.tools.local.files import RealFiles
from sim.trials.inside.media import MOUNT, medium_of
from sim.trials.inside.powercut.request import Asked, Result, chosen
from sim.trials.inside.recorder import Recording, WriteRecorder
from sim.trials.sequences import files as micro


class _Done(NamedTuple):
    name: str
    first: int
    """Number of the mark before its first operation; one more after each."""
    legal: list[set[micro.Tree]]


def compared(asked: Asked) -> Result:
    """Record all workloads, one after the other, then compare."""
    recorder = WriteRecorder(medium_of(asked.on), asked.log_disk, asked.room_disk)
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


def _compare(asked: Asked, recording: Recording, done: list[_Done]) -> Result:
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
        if len(wrong) >= asked.most_wrong:
            break
    return Result(count, wrong)
