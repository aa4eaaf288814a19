"""Bounds of programs that read what strangers have made."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from engine.data.model import VolumeFormat
from engine.doors.images import Layer
from engine.errors import ToolFailed
from engine.tools.local.command import CommandRunner
from engine.tools.local.limits import Limits, of_readers
from engine.tools.qemu import images
from engine.tools.qemu.images import QemuImageTool

MIB = 1 << 20
_AWAIT_THE_LAST = """\
import resource
while resource.getrlimit(resource.RLIMIT_CPU)[1] == resource.RLIM_INFINITY: pass
"""
"""A process has its bounds a moment after it began."""


def test_a_short_file_that_says_to_be_long_does_not_take_the_memory_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Found so: qemu-img check counts references of the whole length of a file, 4 MiB for each GiB with small clusters;
    a few hundred KiB on the storage that were 8 TiB long took 33 GiB of memory. It fails now, and says why."""
    path = tmp_path / "long.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "1M"], check=True)
    os.truncate(path, 100 << 30)
    monkeypatch.setattr(images, "of_readers", lambda: Limits(400 * MIB, 60))
    with pytest.raises(ToolFailed, match=r"Cannot allocate memory.*It may take 400\.0 MiB of memory"):
        QemuImageTool().check(Layer(str(path), VolumeFormat.QCOW2))


def test_what_is_sound_is_read_with_room_to_spare(tmp_path: Path):
    """The bounds are far above what an image of a usual size needs."""
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", path, "64G"], check=True)
    assert not QemuImageTool().check(Layer(str(path), VolumeFormat.QCOW2)).corruptions
    assert 2 << 30 <= of_readers().memory_bytes <= 8 << 30


def test_a_program_that_cannot_be_bounded_does_not_run_on(monkeypatch: pytest.MonkeyPatch):
    """It is ended and reaped, and what was asked for fails."""
    begun = []

    def refuse(pid: int, *given: object) -> None:
        begun.append(pid)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "prlimit", refuse)
    with pytest.raises(ToolFailed, match="cannot run sleep: Operation not permitted"):
        CommandRunner("sleep").run(["sleep", "60"], limits=Limits(600 * MIB, 60))
    with pytest.raises(ProcessLookupError):
        os.kill(begun[0], 0)


@pytest.mark.parametrize(
    "code, limits",
    [
        ("import mmap; mmap.mmap(-1, 1 << 30)", Limits(600 * MIB, 60)),
        (f"open('long', 'wb').write(bytes({2 * MIB}))", Limits(600 * MIB, 60)),
    ],
)
def test_a_program_comes_to_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, limits: Limits):
    """Of memory, and of what it writes."""
    monkeypatch.chdir(tmp_path)
    bounded = _AWAIT_THE_LAST + code
    assert CommandRunner("python3").run([sys.executable, "-c", bounded], limits=limits).exit_code


def test_a_bound_that_the_host_has_set_is_not_raised():
    """What the operator allows diskwright counts for its tools too; time of a processor has one as well."""
    with subprocess.Popen(["sleep", "60"]) as process:
        resource.prlimit(process.pid, resource.RLIMIT_AS, (100 * MIB, 100 * MIB))
        Limits(600 * MIB, 60).confine(process)
        assert resource.prlimit(process.pid, resource.RLIMIT_AS) == (100 * MIB, 100 * MIB)
        assert resource.prlimit(process.pid, resource.RLIMIT_CPU) == (60, 60)
        process.kill()
