"""A process of a host that shares a repository: real leases of sanlock, and a volume group whose volumes are files.

``python -m tests.formats.lvm.sanlock_worker HOST DIRECTORY``: what to do comes as JSON lines, as to the workers of
``tests.tools.sanlock_kit``; the volumes and what is known of the group stand in DIRECTORY.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

from engine.doors.leases import Lease
from engine.errors import DiskwrightError
from engine.formats.lvm import group as lvm_group
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.repository import LvmRepository, create, detach
from engine.formats.lvm.repository import open as open_lvm
from engine.tools.sanlock.shared_leases import SanlockLeases
from tests.formats.kit import T1, V1, real_doors, record
from tests.formats.lvm.kit import FileGroups, GroupState

GROUP: dict[str, object] = {"volume_group": "dwtest"}


class Groups(FileGroups):
    """Only the leases lie on a device: that is what sanlock takes."""

    def __init__(self, state: GroupState, host: str, device: str) -> None:
        super().__init__(state, host)
        self._device = device

    def activate(self, group: str, name: str) -> str:
        path = super().activate(group, name)
        return self._device if name == layout.LEASES else path


class Worker:
    """What the host can be asked to do."""

    def __init__(self, host: str, directory: Path, device: str) -> None:
        self._known = directory / "group"
        self._state = GroupState(directory)
        if self._known.exists():
            self._state.group = pickle.loads(self._known.read_bytes())
        shared = SanlockLeases(io_timeout_s=1)
        self._doors = real_doors(host, groups=Groups(self._state, host, device), shared=shared)
        self._repository: LvmRepository | None = None
        self._lease: Lease | None = None

    @property
    def repository(self) -> LvmRepository:
        assert self._repository is not None
        return self._repository

    def create(self) -> None:
        create(self._doors, {**GROUP, "devices": ["/dev/one"], "shared": True, "hosts": 2})
        self._known.write_bytes(pickle.dumps(self._state.group))

    def open(self) -> str:
        self._repository = open_lvm(self._doors, GROUP, True)
        return self._repository.manager.host()

    def publish(self, epoch: int) -> int:
        entry = self.repository.tags.read(T1)
        return self.repository.tags.publish(record(epoch=epoch), entry.generation if entry else 0)

    def epoch(self) -> int:
        entry = self.repository.tags.read(T1)
        assert entry is not None and entry.record is not None, entry
        return entry.record.epoch

    def lease(self) -> bool:
        self._lease = self.repository.leases.try_acquire(T1)
        return self._lease is not None

    def held(self) -> bool:
        return self.repository.leases.held(T1)

    def release(self) -> None:
        assert self._lease is not None
        self._lease.release()

    def note(self) -> None:
        self.repository._guard.note(V1)

    def writer(self) -> str:
        return self.repository._guard.may_be_written(V1)

    def take(self) -> str:
        self.repository.manager.take("")
        return self.repository.manager.host()

    def leave(self) -> None:
        self.repository.close()
        detach(self._doors, GROUP)


def main(host: str, directory: str) -> None:
    """Do what is asked for."""
    lvm_group.RUN_DIRECTORY = f"{directory}/run-{host}"
    os.makedirs(lvm_group.RUN_DIRECTORY, exist_ok=True)
    worker: Worker | None = None
    for line in sys.stdin:
        verb, (_, device), arguments = json.loads(line)
        worker = worker or Worker(host, Path(directory), device)
        answer: Any
        try:
            answer = getattr(worker, verb)(*arguments)
        except DiskwrightError as error:
            answer = {"error": error.code, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
