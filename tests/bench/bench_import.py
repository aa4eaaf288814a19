"""Imports against ``qemu-img convert`` from the same file: each format that can be taken in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.bench.kit import PIECES, MiB, Setting, Table, command, delete, finish, side_by_side, timed

pytestmark = pytest.mark.bench

GOAL = 1.1


class Kind(NamedTuple):
    """A file to import: how it is stated, what qemu calls it, and how it is made of a raw one."""

    format: str
    driver: str
    make: tuple[str, ...]


def _converted(format: str, driver: str, *options: str) -> Kind:
    return Kind(format, driver, ("qemu-img", "convert", "-f", "raw", "-O", driver, *options))


KINDS = {
    "raw": Kind("raw", "raw", ("cp", "--sparse=always")),
    "qcow2": _converted("qcow2", "qcow2"),
    "qcow2, compressed": _converted("qcow2", "qcow2", "-c", "-o", "compression_type=zstd"),
    "vmdk": _converted("vmdk", "vmdk"),
    "vmdk, stream-optimised": _converted("vmdk", "vmdk", "-o", "subformat=streamOptimized"),
    "vhdx": _converted("vhdx", "vhdx"),
    "vhd": _converted("vhd", "vpc"),
    "vdi": _converted("vdi", "vdi"),
    "raw.gz": Kind("raw.gz", "", ("gzip", "-1", "-c")),
    "raw.xz": Kind("raw.xz", "", ("xz", "-0", "-T2", "-c")),
    "raw.zst": Kind("raw.zst", "", ("zstd", "-1", "-q", "-c")),
}


def made(setting: Setting, name: str) -> Path:
    """The file to import, made of the raw one."""
    kind, target = KINDS[name], setting.root / "in"
    if kind.driver:
        subprocess.run([*kind.make, setting.path, target], check=True)
    else:
        with target.open("wb") as stream:
            subprocess.run([*kind.make, setting.path], check=True, stdout=stream)
    return target


def ours(setting: Setting, file: Path, format: str) -> Callable[[], float]:
    """From the call of the verb to the sealed image; a digest is more than convert does."""

    def run() -> float:
        image: list[str] = []

        def take_in() -> None:
            options = {"auto_fix": False, "digest": False}
            image.append(setting.engine.import_image("b", str(file), format, options=options))
            finish(setting.engine, "b", image[0])

        seconds = timed(take_in)
        delete(setting.engine, "b", image[0])
        return seconds

    return run


def theirs(setting: Setting, file: Path, kind: Kind) -> Callable[[], float]:
    """What is compressed has to be unpacked into a file first."""

    def run() -> float:
        target, plain = setting.root / "converted", setting.root / "plain"
        seconds, source = 0.0, str(file)
        if not kind.driver:
            unpack = f'"$1" -d -c "$2" | dd of="$3" bs={MiB} iflag=fullblock conv=sparse 2>/dev/null'
            seconds, source = command("sh", "-c", unpack, "sh", kind.make[0], source, str(plain)), str(plain)
        driver = kind.driver or "raw"
        cache = ("-t", "none", "-T", "none")
        seconds += command("qemu-img", "convert", "-f", driver, "-O", "qcow2", *cache, source, str(target))
        target.unlink()
        plain.unlink(missing_ok=True)
        return seconds

    return run


@pytest.mark.parametrize("name", KINDS)
def test_import(setting: Setting, table: Table, name: str) -> None:
    """To qcow2, checked before and synced after."""
    file = made(setting, name)
    left, right = side_by_side(ours(setting, file, KINDS[name].format), theirs(setting, file, KINDS[name]))
    against = "convert -t none -T none" if KINDS[name].driver else "unpack, then convert -t none -T none"
    table.compare(f"import {PIECES // 4 * 64} MiB of {name}", left, against, right, GOAL)
    file.unlink()
