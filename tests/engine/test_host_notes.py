"""What a host keeps for itself does not grow for ever."""

from __future__ import annotations

import os

from engine.assembly import real_doors
from engine.host.state import HostState


def test_only_the_newest_logs_of_ended_tasks_are_kept(tmp_path):
    """Two hundred logs stay, the newest ones, and so with specs whose task never came to be."""
    doors = real_doors("host-1")
    state = HostState(doors, str(tmp_path))
    for number in range(230):
        for path in (state.task_log(f"{number:032x}"), str(tmp_path / f"tasks/{number:032x}.spec")):
            with open(path, "w", encoding="utf-8"):
                pass
            os.utime(path, ns=(number, number))
    state.save_spec("f" * 32, {})
    kept = sorted(os.listdir(tmp_path / "tasks"))
    logs = [name for name in kept if name.endswith(".log")]
    assert logs == [f"{number:032x}.log" for number in range(30, 230)]
    assert f"{'f' * 32}.spec" in kept
    assert f"{0:032x}.spec" not in kept
