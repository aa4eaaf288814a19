"""In a guest: changes of volume groups by real LVM, recorded on dm-log-writes; what a power cut leaves of each is
compared with what the simulated LVM may leave.
"""

from __future__ import annotations

import os
import random
from typing import NamedTuple

from engine.doors.volume_groups import BlockHandle
from engine.errors import DiskwrightError
from engine.tools.block.device import DirectBlockHandle
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from sim.trials.inside.logwrites import State
from sim.trials.inside.lvm_repair import repair, unreadable
from sim.trials.inside.media import Parts
from sim.trials.inside.powercut.request import Asked, Result, chosen
from sim.trials.inside.recorder import ROOM, Recording, WriteRecorder, attach, attached
from sim.trials.sequences import volume_groups as micro

HOST = "host-a"
_GROUP = "cut-group"
_PART_BYTES = 96 << 20
_PIECE_BYTES = 1 << 20
_STATES_EACH = 6
"""A workload is recorded for so many states that are asked for."""
_MIXED = 8
"""LVM writes six times between two flushes."""
_AFTER = "after"
_TURNS, _IN_USE = 3, 1
"""In every third state the group is also changed and its volumes are activated."""


class _Done(NamedTuple):
    """A workload that was recorded."""

    name: str
    first: int
    """Number of the mark before its first operation; one more after each."""
    start: int
    """Of its first extent on the device."""
    legal: list[set[micro.Found]]


def compared(asked: Asked) -> Result:
    """Record workloads, each on a device of its own, then compare. All of them, or a few where few states are asked
    for: recording takes its time."""
    count = min(len(micro.WORKLOADS), -(-asked.most_states // _STATES_EACH))
    picked = set(random.Random(asked.seed).sample(sorted(micro.WORKLOADS), count))
    names = [name for name in micro.WORKLOADS if name in picked]
    medium = Parts(names, _PART_BYTES)
    recorder = WriteRecorder(medium, asked.log_disk, asked.room_disk)
    starts = {many: _template(many) for many in {micro.has_many(name) for name in names}}
    for name in names:
        _copy(_template_path(micro.has_many(name)), medium.part(name))
        medium.leave()
    done = [_recorded(recorder, medium, name, starts[micro.has_many(name)], asked.profile) for name in names]
    recorder.mark("the end")
    recording = recorder.finish()
    try:
        return _compare(asked, recording, medium, done)
    finally:
        recording.close()


def _template(many: bool) -> int:
    """The group as workloads find it, in a file: it is made once. Returns where its first extent begins."""
    path = _template_path(many)
    with open(path, "wb") as stream:
        stream.truncate(_PART_BYTES)
    device, descriptor = attach(path)
    try:
        return micro.prepare(LvmVolumeGroups(HOST), _GROUP, device, many)
    finally:
        os.close(descriptor)


def _template_path(many: bool) -> str:
    return f"{ROOM}/{'many' if many else 'few'}"


def _copy(source: str, target: str) -> None:
    """What is not a hole, durable."""
    with open(source, "rb") as stream, open(target, "r+b") as device:
        position = 0
        while True:
            try:
                position = os.lseek(stream.fileno(), position, os.SEEK_DATA)
            except OSError:  # there is no more
                break
            end = min(os.lseek(stream.fileno(), position, os.SEEK_HOLE), position + _PIECE_BYTES)
            os.pwrite(device.fileno(), os.pread(stream.fileno(), end - position, position), position)
            position = end
        os.fsync(device.fileno())


def _recorded(recorder: WriteRecorder, medium: Parts, name: str, start: int, profile: str) -> _Done:
    medium.part(name)
    recorder.mark(f"{name} begins")
    first = len(recorder.marks)
    for _ in micro.WORKLOADS[name](LvmVolumeGroups(HOST), _GROUP):
        recorder.mark(name)
    medium.leave()
    return _Done(name, first, start, micro.legal(name, profile))


def _compare(asked: Asked, recording: Recording, medium: Parts, done: list[_Done]) -> Result:
    first = recording.entry_of_mark(1)
    count, repaired, wrong = 0, 0, list[str]()
    for state in chosen(asked, recording, first, len(recording.entries), _MIXED):
        image = recording.image(state)
        for one in _looked_at(done, state):
            judge = _Judge(one, state)
            try:
                with attached(image, *medium.where(one.name)) as device:
                    wrong += judge.judge(device)
            finally:
                if judge.in_use:
                    medium.leave()
            repaired += judge.repaired
        count += 1
        if len(wrong) >= asked.most_wrong:
            break
    return Result(count, wrong, repaired)


def _looked_at(done: list[_Done], state: State) -> list[_Done]:
    """Return the step that was going on, and by turns one of those before it, which must not have changed."""
    begun = [one for one in done if one.first <= state.marks]
    earlier = begun[:-1]
    if not earlier or state.position % _TURNS:
        return begun[-1:]
    return [begun[-1], earlier[state.position % len(earlier)]]


class _Judge:
    """Compares what is found of a workload in one state."""

    def __init__(self, one: _Done, state: State) -> None:
        self._one = one
        acknowledged = min(state.marks - one.first, len(one.legal) - 1)
        self._allowed = set.union(*one.legal[acknowledged : acknowledged + 2])
        self._where = f"{one.name}, {acknowledged} operations done (entry {state.position}: {state.about})"
        self.in_use = state.position % _TURNS == _IN_USE
        self.repaired = False
        """LVM could not read the group before."""

    def judge(self, device: str) -> list[str]:
        """What is wrong."""
        try:
            wrong = self._problems(device)
        except DiskwrightError as error:
            self.repaired = unreadable(device, _GROUP) and repair(device, _GROUP)
            wrong = self._repaired(device) if self.repaired else [f"{error.code}: {error}"]
        return [f"{self._where}: {text}" for text in wrong]

    def _repaired(self, device: str) -> list[str]:
        try:
            return self._problems(device)
        except DiskwrightError as error:
            return [f"after the repair, {error.code}: {error}"]

    def _problems(self, device: str) -> list[str]:
        groups = LvmVolumeGroups(HOST)
        if not self.in_use:
            groups._commands.know(_GROUP, [device])  # saves LVM a look at all devices
        with DirectBlockHandle(device) as handle:
            found = _found(groups, self._one, handle)
            if found in self._allowed:
                return _goes_on(groups, self._one, handle, found) if self.in_use else []
        allowed = "; ".join(sorted(map(micro.shown, self._allowed)))
        return [f"found {micro.shown(found)}; the model allows {allowed}"]


def _found(groups: LvmVolumeGroups, one: _Done, device: BlockHandle) -> micro.Found:
    return micro.found(groups.report(_GROUP), groups.system_id, one.start, device.read_at)


def _goes_on(groups: LvmVolumeGroups, one: _Done, device: BlockHandle, before: micro.Found) -> list[str]:
    """What was found can be changed and used, and then looks as before and changed."""
    if before.owner not in ("", "this host"):
        return []
    groups.create(_GROUP, _AFTER, micro.EXTENT, [])
    groups.sync(_GROUP)
    after = _found(groups, one, device)
    left = after._replace(volumes=frozenset(volume for volume in after.volumes if volume.name != _AFTER))
    if left != before:
        return [f"found {micro.shown(before)}, and after the next change {micro.shown(left)}"]
    wrong = []
    for volume in sorted(before.volumes):
        with groups.open_device(groups.activate(_GROUP, volume.name)) as handle:
            read = b"".join(handle.read_at(at, micro.SAMPLE_BYTES) for at in range(0, handle.size, micro.EXTENT))
        if read != volume.data:
            wrong.append(f"the device of {volume.name} reads otherwise than the extents that LVM tells")
    return wrong
