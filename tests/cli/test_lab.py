"""``diskwright lab`` where no lab runs: its errors are told as all commands tell theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.lab import needs
from tests.cli.conftest import Command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for a lab; nothing runs there."""
    monkeypatch.setenv("DISKWRIGHT_LAB", str(tmp_path / "lab"))
    return tmp_path / "lab"


@pytest.mark.parametrize(
    "words", [("status",), ("kill", "host-a"), ("boot", "host-a"), ("run", "host-a", "--", "true"), ("down",)]
)
def test_there_is_no_lab(run: Command, place: Path, words: tuple[str, ...]):
    """Exit code 3 and what to do about it; nothing is made."""
    done = run("lab", *words, code=3)
    assert "no lab" in done.err and "diskwright lab up" in done.err and done.out == ""
    assert not place.exists()


def test_the_console_of_an_unknown_host(run: Command, place: Path):
    """Exit code 3, also for names that are paths."""
    for name in ("host-a", "../../etc"):
        assert "has no host" in run("lab", "console", name, code=3).err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "host-a"), "run needs a command"),
        (("kill",), "kill needs a host"),
        (("down", "host-a"), "down is for the whole lab"),
        (("status", "--", "ls"), "only run takes a command"),
        (("fly",), "invalid choice: 'fly'"),
        (("up", "--hosts", "many"), "--hosts"),
        (("torture", "--rounds", "0"), "at least one round"),
        (("torture", "--format", "zfs"), "--format"),
        (("powercut", "--states", "-1"), "at least one state"),
        (("powercut", "--on", "nfs"), "--on: invalid choice: 'nfs' (choose from 'ext4', 'xfs', 'lvm')"),
        (("powercut", "--kind", "torture"), "--kind"),
    ],
)
def test_wrong_usage_is_told(run: Command, place: Path, words: tuple[str, ...], says: str):
    """Exit code 2, one sentence."""
    assert says in run("lab", *words, code=2).err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--hosts", "0"), "1 to"),
        (("--hosts", "99"), "1 to"),
        (("--disk", "1M"), "at least"),
        (("--disk", "x"), "size"),
    ],
)
def test_impossible_labs_are_refused(run: Command, place: Path, options: tuple[str, ...], says: str):
    """Before anything is booted or made."""
    assert says in run("lab", "up", *options, code=2).err
    assert not place.exists()


def test_missing_packages_are_named(run: Command, place: Path, monkeypatch: pytest.MonkeyPatch):
    """Exit code 6, the Debian packages and how to get them; with --json as a document."""
    monkeypatch.setattr(needs, "find", lambda program: None)
    done = run("lab", "up", "--nfs", code=6)
    for package in ("user-mode-linux", "lvm2", "nfs-kernel-server", "apt-get install"):
        assert package in done.err
    assert run.json("lab", "up", code=6)["error"]["code"] == "tool-missing"
    assert not place.exists()


def test_a_lab_needs_a_plain_directory(run: Command, tmp_path: Path):
    """Its name becomes part of kernel command lines."""
    for name in ("with space", "with,comma", "x" * 80):
        assert "cannot hold a lab" in run("lab", "up", "--dir", tmp_path / name, code=2).err
        assert list(tmp_path.iterdir()) == []


def test_help_explains_every_action(run: Command):
    """The command's own help suffices to use it."""
    text = run("lab", "--help").out
    actions = "up status run console kill freeze thaw cut mend boot shutdown down torture powercut"
    for word in f"{actions} --hosts --nfs --disk --seed --on --kind".split():
        assert word in text
