"""Scenarios of the lab, played in threads beside everything else that a session does: many tests mostly wait."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from sim.scenario.backends.real import clusters
from sim.scenario.play.play import play
from sim.scenario.report.outcome import Verdict
from tests.sim.scenario_files import SCENARIOS

_SHOWN_ELSEWHERE = {
    "lab/lvm/create_killed",  # LVM sees nothing of a command before which somebody dies; how it goes on: manager_dies
    "lab/lvm/removed_data_comes_back",  # the same
    "lab/lvm/disk_moves_to_another_host",  # test_moved_disk: by command, with qemu's own program
}
"""They take a fifth of all, and are played in the simulator alone here."""
IN_LAB = sorted({name for name, scenario in SCENARIOS.items() if "lab" in scenario.backends} - _SHOWN_ELSEWHERE)


class Ahead:
    """Begins to play when it is made. Each thread has machines of its own: one those for LVM, one those for what has a
    server, two those that share a volume group, which wait most of their time."""

    def __init__(self, names: Sequence[str]) -> None:
        self._found: dict[str, Future[Verdict]] = {}
        self._pools: list[ThreadPoolExecutor] = []
        shared = [name for name in names if clusters.is_shared(SCENARIOS[name])]
        on_lvm = [name for name in names if _on_lvm(name) and name not in shared]
        others = [name for name in names if not _on_lvm(name)]
        for those in (shared[::2], shared[1::2], on_lvm, others):
            if those:
                pool = ThreadPoolExecutor(1, "scenarios")
                self._pools.append(pool)
                self._found |= {name: pool.submit(play, SCENARIOS[name], "lab", compare=True) for name in those}

    def verdict(self, name: str) -> Verdict:
        """What came of it, as soon as it is known."""
        return self._found[name].result()

    def close(self) -> None:
        """What has not begun is not played; the machines die."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        clusters.close_all()
        for pool in self._pools:
            pool.shutdown()


def _on_lvm(name: str) -> bool:
    return any(plan.format.startswith("lvm") for plan in SCENARIOS[name].repositories)
