"""What ``bench_lvm`` measures, inside a guest: prints JSON. Arguments: what to measure, the device, MiB of data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.data.records import Record

GROUP = "bench"
MiB = 1 << 20
ROUNDS = 3


def run(*words: str) -> str:
    """A command; its output."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{words[:2]}: {done.stderr}"
    return done.stdout


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Bench:
    """A repository on a device, and the commands of LVM by hand on the same group."""

    def __init__(self, device: str) -> None:
        from engine.api import Engine
        from engine.assembly import real_doors
        from engine.tools.lvm.volume_groups import LvmVolumeGroups

        doors = real_doors("bench")
        assert isinstance(doors.volume_groups, LvmVolumeGroups)
        self.device = device
        self.groups = doors.volume_groups
        self.verbs: list[str] = []
        runner = self.groups._commands.runner
        real = runner.run

        def counted(*arguments: Any, **named: Any) -> Any:
            self.verbs.append(arguments[0][1])
            return real(*arguments, **named)

        runner.run = counted  # type: ignore[method-assign]
        self.engine = Engine(doors, "/var/tmp/bench-state")
        place = {"volume_group": GROUP, "devices": [device]}
        self.engine.create_repository("lvm-1.0", place)
        self.engine.connect_storage_repository("r", "lvm-1.0", place)

    def lvm(self, verb: str, *arguments: str) -> None:
        """As an operator would, with the same configuration."""
        configuration = self.groups._commands._configuration(self.groups.system_id)
        run("lvm", verb, "--config", configuration, "--devices", self.device, *arguments)

    def make(self, name: str, mib: int) -> str:
        """An active volume made by hand."""
        quiet = ["-an", "-Zn", "-Wn", "--type", "linear", "-y"]
        self.lvm("lvcreate", *quiet, "-L", f"{mib}m", "-n", name, GROUP)
        self.lvm("lvchange", "-ay", f"{GROUP}/{name}")
        return f"/dev/{GROUP}/{name}"

    def unmake(self, name: str) -> None:
        """Remove it."""
        self.lvm("lvremove", "-f", "-y", f"{GROUP}/{name}")

    def create(self, size: int) -> str:
        """A raw disk, whole; its id."""
        made: str = self.engine.create_virtual_disk("r", size, options={"auto_fix": False, "strategy": "performance"})
        self.finish(made)
        return made

    def volume(self, image: str) -> str:
        """The logical volume of an image."""
        from engine.formats.lvm.metadata.layout import volume_name

        entry = self.engine.context.repository("r").tags.read(image)
        assert entry and entry.record
        (volume,) = entry.record.volumes()
        return volume_name(volume.id)

    def finish(self, image: str) -> None:
        """Run what makes the image usable."""
        from engine.data.model import FixType

        for fix in self.engine.check_storage_repository("r"):
            if fix.target == image and fix.type is FixType.MEND:
                self.engine.run_fix_here("r", fix)
                return
        raise AssertionError(f"no mend for {image}")

    def delete(self, image: str) -> None:
        """Remove an image and give its space back."""
        self.engine.remove_image("r", image)
        for fix in self.engine.check_storage_repository("r"):
            if fix.target == image:
                self.engine.run_fix_here("r", fix)


def copy(bench: Bench, mib: int) -> dict[str, list[Any]]:
    """A whole copy from one raw volume to another, a quarter of it data."""
    disk = bench.create(4 * mib * MiB)
    source = bench.groups.activate(GROUP, bench.volume(disk))
    with bench.groups.open_device(source, writable=True) as handle:
        for piece in range(mib // 16):
            handle.write_at(piece * 64 * MiB, os.urandom(16 * MiB))
        handle.sync()
    result: dict[str, list[Any]] = {"ours": [], "theirs": [], "convert": []}
    for _ in range(ROUNDS):
        made: list[str] = []

        def ours(made: list[str] = made) -> None:
            options = {"auto_fix": False, "digest": False, "strategy": "performance"}
            made.append(bench.engine.copy_image("r", disk, options=options))
            bench.finish(made[0])

        bench.verbs.clear()
        result["ours"].append(timed(ours))
        result["verbs"] = list(bench.verbs)
        bench.delete(made[0])

        def theirs() -> None:
            target = bench.make("theirs", 4 * mib)
            words = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-t", "none", "-T", "none"]
            result["convert"].append(timed(lambda: run(*words, source, target)))
            bench.groups.sync(GROUP)

        bench.groups.activate(GROUP, bench.volume(disk))  # the engine took it away when it was done
        result["theirs"].append(timed(theirs))
        bench.unmake("theirs")
        bench.groups.deactivate(GROUP, bench.volume(disk))  # ours begins as it was left
    return result


def snapshot(bench: Bench, mib: int) -> dict[str, list[Any]]:
    """The verb, against a volume and a qcow2 header over a base, by hand."""
    disk = bench.create(mib * MiB)
    base = bench.make("base", mib)
    result: dict[str, list[Any]] = {"ours": [], "theirs": [], "lvcreate": [], "verbs": []}
    for number in range(ROUNDS + 1):
        bench.verbs.clear()
        ours = timed(lambda: bench.engine.create_snapshot("r", disk))
        used = list(bench.verbs)

        def theirs(number: int = number) -> None:
            name = f"theirs{number}"
            quiet = ["-an", "-Zn", "-Wn", "--type", "linear", "-y", "-L", f"{mib + 8}m"]
            result["lvcreate"].append(timed(lambda: bench.lvm("lvcreate", *quiet, "-n", name, GROUP)))
            bench.lvm("lvchange", "-ay", f"{GROUP}/{name}")
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, f"/dev/{GROUP}/{name}", f"{mib}M")
            bench.groups.sync(GROUP)

        their = timed(theirs)
        if number:  # the first one finds things out that the others know
            result["ours"].append(ours)
            result["theirs"].append(their)
            result["verbs"].append(used)
        else:
            result["lvcreate"].clear()
    return result


def check(bench: Bench, images: int) -> dict[str, list[Any]]:
    """``check`` of few and of many images, each with a volume. Volumes are made in one commit: 500 would take long."""
    result: dict[str, list[Any]] = {"images": [], "seconds": [], "commands": []}
    from engine.tags import changes

    repository = bench.engine.context.repository("r")
    made: list[str] = []
    whole = 0
    for number in range(images):
        options = {"auto_fix": False, "strategy": "performance"}
        made.append(bench.engine.create_virtual_disk("r", 4 * MiB, options=options))
        if number + 1 in (10, images):
            _make_volumes(bench, made)
            for image in made[whole:]:  # only now: nothing is made while a volume is missing
                changes.change(repository, image, _sealed)
            whole = len(made)
            bench.engine.check_storage_repository("r")
            bench.verbs.clear()
            seconds = timed(lambda: bench.engine.check_storage_repository("r"))
            result["images"].append(number + 1)
            result["seconds"].append(seconds)
            result["commands"].append(len(bench.verbs))
    return result


def _sealed(record: Record) -> Record:
    """As its mend would leave it."""
    assert record.operation is not None
    return record._replace(whole=True, volume=record.operation.attempt, operation=None)


def _make_volumes(bench: Bench, images: list[str]) -> None:
    """All volumes that records name and that are missing, through LVM's own restore of edited metadata."""
    from engine.data.model import VolumeFormat
    from engine.formats.lvm.metadata.layout import volume_tags

    backup = "/var/tmp/bench-backup"
    bench.lvm("vgcfgbackup", "-f", backup, GROUP)
    with open(backup, encoding="utf-8") as file:
        text = file.read()
    there = bench.groups.report(GROUP)
    ends = [place.start + place.length for volume in there.volumes.values() for place in volume.ranges]
    first = re.search(r"pe_start = (\d+)", text)
    assert first
    used = (max(ends) - int(first[1]) * 512) // there.extent_bytes
    blocks: list[str] = []
    for image in images:
        name = bench.volume(image)
        if name not in there.volumes:
            tags = ", ".join(f'"{tag}"' for tag in volume_tags(VolumeFormat.RAW, 4 * MiB))
            number = used + len(blocks)
            blocks.append(
                f'{name} {{\nid = "{number:06d}-0000-0000-0000-0000-0000-000000"\nstatus = ["READ", "WRITE", '
                f'"VISIBLE"]\ntags = [{tags}]\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = 1\n'
                f'type = "striped"\nstripe_count = 1\nstripes = [\n"pv0", {number}\n]\n}}\n}}\n'
            )
    text = re.sub(r"(\n\tlogical_volumes \{)", lambda match: match[1] + "\n" + "".join(blocks), text)
    with open(backup, "w", encoding="utf-8") as file:
        file.write(text)
    bench.lvm("vgcfgrestore", "--yes", "--force", "-f", backup, GROUP)


def main() -> None:
    """One measurement."""
    what, device, number = sys.argv[1:]
    work = {"copy": copy, "snapshot": snapshot, "check": check}[what]
    bench = Bench(device)
    print(json.dumps(work(bench, int(number))))


if __name__ == "__main__":
    main()
