"""Verbs beside machines on real NFS and LVM, with kills: a few rounds; many by ``make live FORMAT=nfs`` (``lvm``)."""

from __future__ import annotations

from sim.lab.cluster import Cluster
from tests.lab.live import rounds


def test_no_write_is_lost_beside_a_machine_on_nfs(cluster: Cluster):
    """A snapshot and a merge, each with somebody who may die at a random moment."""
    done = rounds(cluster, "nfs", 2, 21, ["Rounds", "Merges"])
    assert done.code == 0 and "2 rounds, 0 problems" in done.stdout, done


def test_no_write_is_lost_beside_a_machine_on_lvm(cluster: Cluster):
    """A snapshot and a longer disk, each with somebody who may die at a random moment; disks are devices there."""
    done = rounds(cluster, "lvm", 2, 22, ["Rounds", "Resizes"])
    assert done.code == 0 and "2 rounds, 0 problems" in done.stdout, done
