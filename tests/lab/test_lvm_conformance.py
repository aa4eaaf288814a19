"""The format on real LVM, in a guest whose kernel has device-mapper."""

from __future__ import annotations

from sim.lab import Guest
from sim.lab.cluster import PRIVATE
from tests.lab.inside import run_tests

CONFORMANCE = "tests/formats/conformance"
FILES = "files=/srv/one.img,/srv/two.img"
PLACE = ("lvm-1.0", "volume_group=images", FILES, "sector_bytes=4096")


def test_logical_volumes_conform_on_real_lvm(host: Guest):
    """The format for volume groups keeps its contract on LVM, device-mapper and a real disk."""
    host.run(["sh", "-c", f"umount -q {PRIVATE}; wipefs -q -a {PRIVATE}"])  # other tests leave file systems there
    counts = run_tests(
        host, [CONFORMANCE], "lvm-1.0 and not shared",
        environment={"DISKWRIGHT_TEST_LVM_DEVICE": PRIVATE},
    )  # fmt: skip
    assert counts.passed > 25


def test_a_repository_on_files_works_by_command_and_leaves_nothing(host: Guest):
    """Create, write, snapshot, prepare, export, disconnect: on loop devices with sectors of 4096 bytes. While it is
    connected only the records are active, afterwards no device is there at all."""

    def run(*words: str) -> str:
        return host.diskwright(*words).stdout.strip()

    def devices() -> list[str]:
        lines = host.run(["dmsetup", "ls"], check=False).stdout.splitlines()
        return [line.split()[0] for line in lines if line.startswith("images-")]

    run("create-repo", *PLACE, f"file_bytes={300 << 20}")
    run("connect", "onfiles", *PLACE)
    try:
        disk = run("create-disk", "onfiles", "5M", "--strategy", "performance")
        run("prepare", "onfiles", disk, "--", "qemu-io", "-f", "raw", "-c", "write -P 9 1M 1M", "{}")
        run("create-snapshot", "onfiles", disk, "--strategy", "space")
        assert devices() == ["images-dw--meta"]
        run("prepare", "onfiles", disk)
        assert len(devices()) == 3
        run("teardown", "onfiles", disk)
        assert devices() == ["images-dw--meta"]
        run("export", "onfiles", disk, "/srv/out.raw", "--format", "raw")
        assert host.run(["stat", "-c", "%s", "/srv/out.raw"]).stdout.strip() == str(5 << 20)
    finally:
        run("disconnect", "onfiles")
    assert devices() == []
    assert "one.img" not in host.run(["losetup", "-l"]).stdout
