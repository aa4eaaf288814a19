"""The rounds of ``tests.live`` in a lab: ``python -m tests.lab.live --format nfs --rounds 200 --seed 7`` (``make live
FORMAT=nfs``, ``lvm``). One guest is the host; its machine is a qemu-storage-daemon there."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence

from sim.lab import Lab
from sim.lab.channel import Done
from sim.lab.cluster import SHARED, SHARED_TOO, Cluster
from tests.contracts.source import ROOT

_GROUP = "live"
_EMPTY = f"umount -q {SHARED} {SHARED_TOO}; wipefs -qaf {SHARED} {SHARED_TOO}"


def rounds(
    cluster: Cluster,
    format: str,
    number: int,
    seed: int,
    only: Sequence[str] = (),
    hear: Callable[[int, bytes], None] | None = None,
) -> Done:
    """Play rounds on the first host of a cluster, whose disks for groups are empty or free. ``hear`` gets what they
    tell at once."""
    host = cluster.hosts[0]
    if format == "lvm":
        host.run(["sh", "-c", _EMPTY], check=False)
        where = ["--lvm", _GROUP]
    else:
        assert cluster.nfs is not None
        where = ["--nfs", cluster.nfs.guest.address]
    words = [sys.executable, "-m", "tests.live.rounds", "--rounds", str(number), "--seed", str(seed), *where]
    words += ["--only", *only] if only else []
    running = host.begin(words, cwd=str(ROOT), environment={"PYTHONPATH": str(ROOT)}, on_output=hear)
    return running.wait(None)


def _print(kind: int, data: bytes) -> None:
    del kind
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def main() -> int:
    """Play them in a lab of their own; exit code 1: something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.live", description=__doc__)
    parser.add_argument("--format", choices=("nfs", "lvm"), required=True)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=(), metavar="KIND", help="classes of tests.live.rounds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    with Lab() as lab:
        cluster = Cluster(lab, ["host-a"], nfs=given.format == "nfs", disk_bytes=1 << 30, mounted=False)
        cluster.up()
        return rounds(cluster, given.format, given.rounds, given.seed, given.only, _print).code


if __name__ == "__main__":
    sys.exit(main())
