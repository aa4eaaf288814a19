"""The audit as an operator types it: what is said, in words and as JSON, and by the exit code."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.audit.groups_kit import Lvm
from tests.audit.kit import disk, domain, image, raw
from tests.cli.conftest import Command
from tui.text.printable import typed


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A pool with one machine, a lost overlay and an orphan."""
    for path in ("pool", "etc", "state"):
        (tmp_path / path).mkdir()
    image(tmp_path / "pool" / "web.qcow2")
    image(tmp_path / "pool" / "lost.qcow2", "gone.qcow2")
    image(tmp_path / "pool" / "two\nlines.qcow2")
    raw(tmp_path / "pool" / "web_VARS.fd")
    domain(tmp_path / "etc" / "web.xml", "web", disk(tmp_path / "pool" / "web.qcow2"))
    return tmp_path


def state_of(top: Path) -> dict[str, tuple[int, ...]]:
    return {
        str(path): (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_atime_ns)
        for path in [top, *top.rglob("*")]
        if (s := os.lstat(path))
    }


def test_an_audit_tells_and_changes_nothing(run: Command, pool: Path):
    """Findings by rule with what to type and what is to be heeded before; orphans only with --complete, a name with a
    newline as the shell takes it; not one time of the files changes, and no repository or state is needed."""
    image_path = pool / "pool"
    before = state_of(image_path)
    done = run("audit", image_path, "--vms", pool / "etc", "--state", pool / "state")
    assert "BROKEN  A-PARENT: 1 file" in done.out and "gone.qcow2" in done.out
    assert "A-ORPHAN" not in done.out and "No image is called an orphan: nobody has said" in done.out
    assert "Other files: 1 nvram" in done.out
    done = run("audit", image_path, "--vms", pool / "etc", "--complete")
    assert "A-ORPHAN: 2 files" in done.out
    there = f"{image_path}/two\\x0alines.qcow2"
    assert f"there: rm -- $'{there}'" in done.out.partition("Look at it once more before you remove it")[2]
    assert state_of(image_path) == before and not list((pool / "state").iterdir())


def test_the_exit_code_and_the_json_say_the_same(run: Command, pool: Path):
    """12 while something is broken, 10 with orphans alone, 0 with nothing; the findings are those of the table."""
    place, vms = pool / "pool", ("--vms", pool / "etc", "--complete")
    found = run.json("audit", place, *vms, "--exit-code", code=12)
    assert [(one["rule"], one["status"]) for one in found["findings"]] == [
        ("A-PARENT", "broken"), ("A-ORPHAN", "optimized"), ("A-ORPHAN", "optimized"),
    ]  # fmt: skip
    assert found["findings"][1]["command"][:2] == ["rm", "--"] and found["others"] == {"nvram": 1}
    assert next(one for one in found["images"] if one["path"].endswith("web.qcow2"))["used_by"] == ["web"]
    (place / "lost.qcow2").unlink()
    run("audit", place, *vms, "--exit-code", code=10)
    (place / "two\nlines.qcow2").unlink()
    assert "Nothing was found." in run("audit", place, *vms, "--exit-code", code=0).out


def test_what_cannot_be_audited_is_one_sentence(run: Command, pool: Path):
    """A path that is not there, a file, --complete without --vms."""
    assert "no directory" in run("audit", pool / "none", code=3).err
    assert "is no directory" in run("audit", pool / "pool" / "web.qcow2", code=2).err
    assert "Give --vms PATH too" in run("audit", pool / "pool", "--complete", code=2).err
    assert "A-PARENT" in run("why", "a-parent").out


def test_a_volume_group_is_named_as_such_or_by_its_directory(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """vg:NAME always means one; /dev/NAME does where LVM knows it, else the directory; a group that is not there, or no
    LVM, is one sentence."""
    lvm = Lvm()
    lvm.image("lost", "/dev/vg/gone")
    monkeypatch.setattr("engine.tools.lvm.volume_groups.LvmVolumeGroups", lambda host: lvm)
    for name in ("vg:vg", "/dev/vg", "/dev/vg/"):
        assert run.json("audit", name)["places"] == [{"path": "/dev/vg", "layout": "lvm"}]
    done = run("audit", "vg:vg", tmp_path)
    assert "/dev/vg: lvm" in done.out and "BROKEN  A-PARENT: 1 file" in done.out
    assert "no volume group none" in run("audit", "vg:none", code=3).err
    assert "no directory '/dev/none'" in run("audit", "/dev/none", code=3).err
    assert run.json("audit", "/dev/shm")["places"][0]["layout"] == "directory"
    (tmp_path / "vg:vg").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run.json("audit", "./vg:vg")["places"][0]["path"] == f"{tmp_path}/vg:vg"


def test_what_is_to_be_typed_is_what_the_shell_takes():
    """Words come back from the shell as they were, with newlines, quotes, escapes and bytes that are no text."""
    words = ["a b", "two\nlines", "it's \x1b[0m", "\\\n", os.fsdecode(b"\xff\x0a1"), "", "é"]
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {typed(words)}"], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
    assert typed(words).isprintable() and shlex.split(typed(["a b"])) == ["a b"]
