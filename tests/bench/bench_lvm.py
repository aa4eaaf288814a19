"""A repository on LVM, in a guest of the lab: side by side there, since a guest is slower than its machine."""

from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sim.lab import Guest, Lab
from sim.lab.needs import missing_packages
from tests.bench.kit import SCALE, GiB, Table
from tests.contracts.source import ROOT

pytestmark = pytest.mark.bench

DATA_MIB = max(16, round(256 * SCALE) // 16 * 16)
IMAGES = max(20, round(500 * SCALE))


@pytest.fixture
def guest(place: Path) -> Iterator[Guest]:
    """A fresh host with an empty disk."""
    if missing := missing_packages("lvm"):
        pytest.skip(f"the lab needs Debian packages: {' '.join(missing)}")
    with Lab() as lab:
        yield lab.boot("bench", disks=[lab.disk("disk", 8 * GiB)], memory="2G")


def measure(guest: Guest, what: str, number: int) -> dict[str, list[Any]]:
    """What ``lvm_inside`` says."""
    faulthandler.cancel_dump_traceback_later()  # minutes of work, in another machine
    words = [sys.executable, "-m", "tests.bench.lvm_inside", what, "/dev/ubda", str(number)]
    done = guest.run(words, cwd=str(ROOT), timeout_s=1800)
    result: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_copy(guest: Guest, table: Table) -> None:
    """From the call of the verb to the sealed image, against making a volume and qemu-img convert into it."""
    found = measure(guest, "copy", DATA_MIB)
    work = f"LVM: copy {DATA_MIB} MiB in {4 * DATA_MIB} MiB to a raw volume"
    table.compare(work, found["ours"], "lvcreate, lvchange, convert -n -t none, sync", found["theirs"], 1.05)
    table.compare(work, found["ours"], "convert -n alone, into a volume that is there", found["convert"], None)
    table.state("LVM: commands of that copy", " ".join(found["verbs"]), "", "", "", None)


def test_snapshot(guest: Guest, table: Table) -> None:
    """The verb, against a volume and a header made by hand."""
    found = measure(guest, "snapshot", 256)
    against = "lvcreate, lvchange, qemu-img create, sync"
    table.compare("LVM: create_snapshot", found["ours"], against, found["theirs"], 1.2)
    table.state("LVM: commands of create_snapshot", " ".join(found["verbs"][-1]), "", "", "", None)


def test_check(guest: Guest, table: Table) -> None:
    """The number of commands does not grow with the number of volumes."""
    found = measure(guest, "check", IMAGES)
    few, many = (
        f"{images:.0f} images: {seconds:.2f} s, {commands:.0f} commands of LVM"
        for images, seconds, commands in zip(found["images"], found["seconds"], found["commands"], strict=True)
    )
    same = found["commands"][0] == found["commands"][-1]
    table.state("LVM: check", many, "itself", few, "as many commands", same)
