"""How many commands of LVM each verb runs: each takes a good part of a second, so they are most of what a short verb
takes. Counted at the door of a simulated host, as the real one runs them (``engine.tools.lvm``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from engine.data.model import FixType
from engine.tags import changes
from sim.explore.cases.driver import Driver, MiB
from sim.hosts.world import LVM, World
from sim.lvm.volume_groups import SimVolumeGroups

_ONE_EACH = "create resize change_tags rename remove deactivate".split()


class Commands:
    """What LVM was asked for since it was cleared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run: Counter[str] = Counter()
        self._seen: dict[int, object] = {}
        for name in _ONE_EACH:
            monkeypatch.setattr(SimVolumeGroups, name, self._counting(name, getattr(SimVolumeGroups, name)))
        each = self._counting("deactivate", SimVolumeGroups.deactivate_each)  # one for all, as long as none is open
        monkeypatch.setattr(SimVolumeGroups, "deactivate_each", each)
        report, activate = SimVolumeGroups.report, SimVolumeGroups.activate

        def counted_report(groups: SimVolumeGroups, group: str) -> Any:
            found = groups._find(group)[1]
            if self._seen.get(id(groups)) != found:  # the real door runs no command while nobody has changed it
                self._seen[id(groups)] = found
                self.run["report"] += 1
            return report(groups, group)

        def counted_activate(groups: SimVolumeGroups, group: str, name: str) -> str:
            if groups._find(group)[1].volume(name).uuid not in groups._active:
                self.run["activate"] += 1
            return activate(groups, group, name)

        monkeypatch.setattr(SimVolumeGroups, "report", counted_report)
        monkeypatch.setattr(SimVolumeGroups, "activate", counted_activate)

    def _counting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(groups: SimVolumeGroups, *arguments: Any, **named: Any) -> Any:
            self.run[name] += 1
            return call(groups, *arguments, **named)

        return counted

    def of(self, work: Callable[[], Any]) -> dict[str, int]:
        """What the work runs."""
        self.run.clear()
        work()
        return dict(self.run)


@pytest.fixture
def driver() -> Driver:
    """A host with a repository on a volume group."""
    world = World(format=LVM)
    world.create("a")
    world.host("one")
    return Driver(world)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def finish(driver: Driver, image: str, kind: FixType) -> None:
    engine = driver.engine()
    fix = next(fix for fix in engine.check_storage_repository("a") if (fix.target, fix.type) == (image, kind))
    engine.run_fix_here("a", fix)


def test_what_each_verb_asks_of_lvm(driver: Driver, commands: Commands):
    """A volume that is made is one commit; what was active goes by one command, however much it was. A disk that is not
    active is sealed as it lies. Whoever comes after a change asks for one report."""
    engine = driver.engine()
    disk = driver.create("a", 6 * MiB)
    made: list[str] = []
    never = {"auto_fix": False}

    def copied() -> None:
        made.append(engine.copy_image("a", disk, options={**never, "strategy": "performance"}))
        finish(driver, made[-1], FixType.MEND)

    def snapshot() -> None:
        made.append(engine.create_snapshot("a", disk))

    def cleaned() -> None:
        engine.remove_image("a", made[0])
        finish(driver, made[0], FixType.CLEAN)

    engine.check_storage_repository("a")
    found = {
        "check": commands.of(lambda: engine.check_storage_repository("a")),
        "status": commands.of(lambda: engine.get_image_status("a", disk)),
        "user data": commands.of(lambda: engine.set_user_data("a", disk, {"name": "x"})),
        "copy": commands.of(copied),
        "snapshot": commands.of(snapshot),
        "remove and clean": commands.of(cleaned),
    }
    assert found == {
        "check": {},
        "status": {},
        "user data": {},
        "copy": {"create": 1, "report": 1, "activate": 2, "deactivate": 1},
        "snapshot": {"create": 1},
        "remove and clean": {"report": 1, "remove": 1},
    }


def test_a_chain_goes_by_one_command(driver: Driver, commands: Commands):
    """However deep the image is that was read."""
    engine = driver.engine()
    driver.world.storage.make_directory("/files")
    disk = driver.create("a", 6 * MiB)
    for _ in range(4):
        driver.snapshot("a", disk)
    assert len(changes.read(engine.context.repository("a"), disk).record.parents()) == 1
    engine.check_storage_repository("a")
    found = commands.of(lambda: engine.export_image("a", disk, "/files/out", "raw"))
    assert found == {"activate": 5, "deactivate": 1}


def test_what_is_open_elsewhere_keeps_nothing_else_active(driver: Driver):
    """The one command for all fails then; each is told by itself, and so is the one that stays."""
    driver.write("a", driver.create("a", 6 * MiB), 0, b"x")
    activation = driver.engine().context.repository("a").activation
    assert activation is not None
    host, groups = driver.world.machine("one"), driver.engine().doors.volume_groups
    driver.snapshot("a", driver.create("a", 6 * MiB))
    names = [name for name in groups.report("a").volumes if name.startswith("dwv-")]
    assert len(names) > 2
    for name in names:
        groups.activate("a", name)
    path = groups.activate("a", names[0])
    with groups.open_device(path):  # by a program that knows nothing of our locks
        assert activation.deactivate(every=True) == names[:1]
        assert len(host.active & {groups.report("a").volumes[name].uuid for name in names}) == 1
    assert activation.deactivate(every=True) == []
