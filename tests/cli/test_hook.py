"""The hook of libvirt: what is installed, and what a definition means to it. With a real libvirt: tests/live."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.doors.files import RunPlace
from engine.errors import BadRequest, Conflict, Refused
from engine.tools.local.files import RealFiles
from sim.explore.cases.driver import Driver, MiB
from sim.hosts.world import World
from tui.cli.commands import hook
from tui.work import hooks

DISK = "<domain><devices>{}</devices></domain>"


@pytest.fixture
def driver() -> Driver:
    """A simulated host with a repository."""
    world = World()
    world.create("a")
    return Driver(world)


def installed(hooks_directory: Path) -> Path:
    return hooks_directory / "qemu.d/diskwright"


def test_a_hook_is_installed_again_and_removed_and_one_of_somebody_else_stays(run, tmp_path: Path):
    """Whole and executable; what diskwright did not write it neither replaces nor removes."""
    there = ("--directory", str(tmp_path))
    assert "Installed" in run("hook", "install", *there).err
    script = installed(tmp_path)
    assert script.stat().st_mode & 0o777 == 0o755
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert [entry.name for entry in script.parent.iterdir()] == ["diskwright"]
    assert "there already" in run("hook", "install", *there).err
    script.chmod(0o600)
    assert "Installed" in run("hook", "install", *there, "--uri", "qemu:///session").err
    assert "--uri=qemu:///session" in script.read_text()
    assert json.loads(run("hook", "remove", *there, "--json").out)["changed"] is True
    assert "There is no" in run("hook", "remove", *there).err
    script.write_text("#!/bin/sh\nexit 0\n")
    for action in ("install", "remove"):
        assert "not made by diskwright" in run("hook", action, *there, code=4).err
    assert script.read_text() == "#!/bin/sh\nexit 0\n"
    assert "Install libvirt" in run("hook", "install", "--directory", str(tmp_path / "none"), code=3).err
    run("hook", "install", *there, "--uri", "qemu+ssh://far/system", code=2)


def test_what_was_installed_or_removed_is_so_after_a_loss_of_power(run, tmp_path: Path, monkeypatch):
    """The mode of the script too, without which libvirt does not run it, and each directory that has another entry."""
    synced: dict[str, int] = {}

    def sync(descriptor: int) -> None:
        synced[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_mode & 0o777

    monkeypatch.setattr(os, "fsync", sync)
    script = installed(tmp_path)
    run("hook", "install", "--directory", tmp_path)
    assert synced[str(script)] == 0o755
    assert {str(script.parent), str(tmp_path)} <= synced.keys()
    synced.clear()
    run("hook", "remove", "--directory", tmp_path)
    assert synced.keys() == {str(script.parent)}


def test_what_cannot_be_read_is_not_said_to_be_of_somebody_else(run, tmp_path: Path):
    """Nobody is told to move away what was not seen."""
    (tmp_path / "qemu.d").write_text("a file")
    for action in ("install", "remove"):
        assert "cannot read" in run("hook", action, "--directory", tmp_path, code=6).err


def test_a_domain_of_others_starts_whatever_there_is_to_ours(run, tmp_path: Path):
    """The script as libvirt calls it: for other operations nothing, for a domain without disks of ours nothing either,
    although there is no place for notes; also when its name looks like an option, or the program is gone: Python, or
    what that knew of it (another version came, the package went)."""
    run("hook", "install", "--directory", str(tmp_path), "--state", "/dev/null/notes")
    script = installed(tmp_path)

    def call(*words: str, definition: str = "<domain/>") -> subprocess.CompletedProcess[str]:
        given = [str(script), *words, "-"]
        return subprocess.run(given, input=definition, capture_output=True, text=True, check=False)

    assert call("web", "started", "begin").returncode == 0
    for name in ("--json", "a b"):
        said = call(name, "prepare", "begin", definition=DISK.format("<disk><source file='/srv/x'/></disk>"))
        assert (said.returncode, said.stderr) == (0, "")
    assert call("web", "prepare", "begin", definition="<!DOCTYPE d []><domain/>").returncode != 0
    text = script.read_text()
    for python in ("/nowhere/python", "/bin/false"):
        script.write_text(text.replace(sys.executable, python))
        said = call("web", "prepare", "begin")
        assert (said.returncode, "not where it was" in said.stderr) == (0, True)


def test_only_stable_paths_in_a_definition_are_disks_of_ours():
    """In a source of a disk, below the place of this user; the format is what libvirt opens it as."""
    ours = "/run/diskwright/disks/main/web/disk"
    others = [
        "/run/diskwright/disks/main/web", "/run/diskwright/disks/main/web/x/disk", "/run/diskwright/run/1/2/disk",
        f"/srv{ours}", "", "disk",
    ]  # fmt: skip
    text = "".join(f"<disk><source file='{path}'/></disk>" for path in others)
    text += f"<disk><driver name='qemu' type='qcow2'/><source file='{ours}'/></disk><disk><source dev='{ours}'/></disk>"
    text += (
        f"<hostdev><source file='{ours}'/></hostdev><disk><backingStore><source file='{ours}'/></backingStore></disk>"
    )
    found = hooks.wanted(DISK.format(text).encode(), "/run")
    assert found == [hooks.Wanted(ours, "qcow2", "main", "web"), hooks.Wanted(ours, "raw", "main", "web")]
    assert hooks.wanted(DISK.format(text).encode(), "") == []


@pytest.mark.parametrize("text", [
    b"", b"<domain>", b"\xff\xfe", b"<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>",
    b"<?xml version='1.0' encoding='nonsense'?><domain/>", b"<a>" * 20_000, b" " * (hooks.MOST_BYTES + 1),
])  # fmt: skip
def test_a_definition_that_is_not_understood_is_one_sentence(text: bytes):
    """No entity is expanded, and nothing is read without an end."""
    with pytest.raises(BadRequest, match="definition"):
        hooks.wanted(text, "/run")


def test_a_disk_that_is_not_known_here_keeps_its_domain_from_starting(run, main_repo, monkeypatch):
    """A repository that is not connected, a name that no disk has, a name of two."""
    assert os.geteuid() == 0 or os.environ.get("XDG_RUNTIME_DIR")
    place = "/run" if os.geteuid() == 0 else os.environ["XDG_RUNTIME_DIR"]
    for _ in range(2):
        run("create-disk", main_repo, "1M", "--name", "twin")
    for repository, name, words in (("nowhere", "web", "no repository"), (main_repo, "web", "0 disks"),
                                    (main_repo, "twin", "2 disks")):  # fmt: skip
        text = f"<disk><source file='{place}/diskwright/disks/{repository}/{name}/disk'/></disk>"
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(DISK.format(text).encode())))
        assert words in run("hook", "run", "web", hook.BEGIN, code=3).err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    run("hook", "run", "web", "other", code=2)
    run("hook", "run", "web", hook.END)


def test_where_a_boot_clears_nothing_no_path_of_a_boot_is_named(run, main_repo, monkeypatch, tmp_path: Path):
    """It would lead nowhere after the next one."""
    monkeypatch.setattr(RealFiles, "run_place", lambda self: RunPlace(str(tmp_path), False))
    disk = run.id("create-disk", main_repo, "1M")
    text = f"<disk><source file='{tmp_path}/diskwright/disks/{main_repo}/{disk}/disk'/></disk>"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(DISK.format(text).encode())))
    said = run("hook", "run", "web", hook.BEGIN, code=5).err
    assert "kept in memory" in said
    assert str(tmp_path) not in said
    assert run("tasks", "--json").data["prepared"] == []


def test_all_disks_of_a_domain_are_prepared_or_none_and_torn_down_whoever_died(driver: Driver):
    """One is opened in another format, or by a path that leads elsewhere; what the domain had when it died is prepared
    anew. What others have stays."""
    engine = driver.engine()
    one, two, other = (engine.create_virtual_disk("a", MiB) for _ in range(3))

    def disk(image: str, format: str = "qcow2", folder: str = "") -> hooks.Wanted:
        return hooks.Wanted(f"/run/diskwright/disks/a/{folder or image}/disk", format, "a", image)

    def prepared() -> set[str]:
        return {entry.image for entry in (*engine.list_prepared(), *engine.list_unheld())}

    hooks.prepare(engine, [disk(other)], "libvirt:qemu:///system/other")
    for words, wrong in (("would open", disk(two, "raw")), ("does not lead to", disk(two, folder=one))):
        with pytest.raises(Refused, match=words):
            hooks.prepare(engine, [disk(one), wrong], "libvirt:qemu:///system/web")
        assert prepared() == {other}
    with pytest.raises(Conflict):
        hooks.prepare(engine, [disk(one), disk(other)], "libvirt:qemu:///system/web")
    assert prepared() == {other}
    for _ in range(2):
        hooks.prepare(engine, [disk(one), disk(two)], "libvirt:qemu:///system/web")
        held = {entry.image: entry.process for entry in engine.list_prepared()}
        assert held.keys() == {one, two, other}
        engine.doors.processes.kill(held[two])
    hooks.tear_down(engine, "libvirt:qemu:///system/web")
    assert prepared() == {other}
