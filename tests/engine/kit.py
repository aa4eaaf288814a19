"""What tests of the engine share: fixes by rule, and hosts that are killed at a chosen point."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.api import Engine
from engine.copying import pump
from engine.data.model import Fix
from engine.data.records import Record
from engine.errors import Refused
from engine.tags.attempt import Attempt
from sim.explore.cases.driver import Driver, read
from sim.hosts.crash import Crashed
from tests.crash.kit import MiB, World, as_it_rots, write

NO_FIX = {"auto_fix": False}
FAST = {"strategy": "performance"}


def fixes(engine: Engine, repo: str, rule: str = "", target: str = "", deep: bool = False) -> list[Fix]:
    found = engine.check_storage_repository(repo, {"deep": True} if deep else None)
    return [fix for fix in found if rule in ("", fix.rule) and target in ("", fix.target)]


def run(engine: Engine, repo: str, rule: str, target: str = "", deep: bool = False) -> Fix:
    (fix,) = fixes(engine, repo, rule, target, deep)
    engine.run_fix_here(repo, fix)
    return fix


def shown(driver: Driver, image: str, repo: str = "a") -> bool:
    """Whether an image of a simulated repository reads as the model says, to its last byte."""
    known = driver.image(repo, image)
    return read(driver.engine(), repo, image, known.size).same(known.content)


def copied(engine: Engine, repo: str, image: str, **options: object) -> str:
    """A finished copy in ``repo``."""
    copy = engine.copy_image(repo, image, options={**NO_FIX, **options})
    run(engine, repo, "B-COPY", copy)
    return copy


def state_of(engine: Engine, repo: str, image: str) -> str:
    return str(engine.get_image_status(repo, image).status)


def last_error(engine: Engine, repo: str, image: str) -> str:
    operation = engine.get_image_status(repo, image).operation
    return operation.last_error if operation else ""


def record(engine: Engine, repo: str, image: str) -> Record:
    entry = engine.context.repository(repo).tags.read(image)
    assert entry is not None and entry.record is not None
    return entry.record


def volume_of(world: World, engine: Engine, repo: str, image: str) -> Path:
    volume = record(engine, repo, image).volume
    assert volume is not None
    (path,) = (world.root / repo / "volumes").glob(f"*/{volume.id}.*")
    return path


def snapshotted(engine: Engine, size: int = 8 * MiB, above: str = "write -P 9 0 4M") -> tuple[str, str]:
    """A disk of ones, its snapshot, and what the disk then wrote above it."""
    disk = engine.create_virtual_disk("a", size)
    write(engine, "a", disk, f"write -P 1 0 {size // 2 + MiB}")
    snapshot = engine.create_snapshot("a", disk)
    if above:
        write(engine, "a", disk, above)
    return disk, snapshot


def rot(path: Any) -> None:
    """Another byte in what is, in these images, data."""
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 0xFF
    with as_it_rots(path):
        path.write_bytes(raw)


def commanded(path: Path, *commands: str) -> Path:
    """The qcow2 file ``path`` after commands of qemu-io."""
    words = [word for command in commands for word in ("-c", command)]
    if words:  # else it reads commands from whatever this has as its input
        subprocess.run(["qemu-io", "-f", "qcow2", *words, path], check=True, stdout=subprocess.DEVNULL)
    return path


def dies_at_the_end(patch: pytest.MonkeyPatch) -> None:
    """Whoever runs a fix has done all of it, and dies before the record says so."""

    def finish(*_: object) -> None:
        raise Refused("killed")

    patch.setattr(Attempt, "finish", finish)


class Killer:
    """Hosts that are killed while they run a fix."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self._patch = monkeypatch
        monkeypatch.setattr(pump, "MIN_WINDOW_BYTES", 2 * MiB)

    def at_checkpoint(self, number: int, repo: str, rule: str, target: str = "") -> None:
        """Right after that checkpoint of the copy."""
        original = pump.run

        def counted(job: Any, cursor: int, checkpoint: pump.Checkpoint, *rest: Any) -> int:
            left = number

            def counting(position: int, percent: int) -> None:
                nonlocal left
                checkpoint(position, percent)
                left -= 1
                if not left:
                    self.world.effects.crash()

            return original(job, cursor, counting, *rest)

        with self._killed(pump, "run", counted) as engine:
            run(engine, repo, rule, target)

    def before(self, owner: Any, name: str, act: Callable[[Engine], Any]) -> None:
        """When ``owner.name`` is about to be called."""
        self.instead(owner, name, lambda *arguments, **named: self.world.effects.crash(), act)

    def instead(self, owner: Any, name: str, call: Callable[..., Any], act: Callable[[Engine], Any]) -> None:
        """When ``call``, which stands in for ``owner.name``, ends the host."""
        with self._killed(owner, name, call) as engine:
            act(engine)

    @contextlib.contextmanager
    def _killed(self, owner: Any, name: str, instead: Callable[..., Any]) -> Iterator[Engine]:
        engine = self.world.engine("killed", crash_at=0)
        with self._patch.context() as patch:
            patch.setattr(owner, name, instead)
            with pytest.raises(Crashed):
                yield engine
        self.world.bury()


def once(before: Callable[[], Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """``then``, but the first time it is called something else happens first: another host was quicker."""
    waiting = [before]

    def call(*arguments: Any, **named: Any) -> Any:
        while waiting:
            waiting.pop()()
        return then(*arguments, **named)

    return call
