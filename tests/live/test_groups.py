"""Snapshots of two disks of a real machine at one moment: by a qemu-storage-daemon, and by libvirt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.groups import Groups

pytestmark = pytest.mark.slow


def test_rounds_of_two_disks_on_a_real_machine_lose_nothing(tmp_path: Path):
    """Some rounds in which the machine, the verb, or both are killed. A thousand: ``make live``."""
    rounds = Groups(tmp_path, 21)
    assert [problem for _ in range(5) for problem in rounds.play()] == []
