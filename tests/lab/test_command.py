"""``diskwright lab`` with real guests: a lab in the background, from up to down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sim.lab.needs import missing_packages
from tests.contracts.source import ROOT


class Lab:
    """Runs the command as a process, as an operator does."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def __call__(self, *words: str, code: int = 0, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        script = "import sys; from tui.cli.main import main; sys.exit(main())"
        environment = {**os.environ, "DISKWRIGHT_LAB": self.directory, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", script, "lab", *words],
            env=environment, input=data, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done
        assert b"Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self(*words, "--json").stdout)
        return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if missing := missing_packages("lvm", "nfs", "file systems"):
        pytest.skip(f"the lab needs Debian packages: {' '.join(missing)}")
    directory = f"/tmp/diskwright-test-{os.getpid()}"
    lab = Lab(directory)
    lab("up", "--hosts", "1", "--disk", "128M")
    yield lab
    lab("down")
    assert not os.path.exists(directory)
    assert not _processes(directory)


def _processes(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(str(path))
        except OSError:
            continue
    return found


def test_the_status_is_told(lab: Lab):
    """As a table and as data."""
    assert lab("status").stdout.decode().splitlines()[1].split()[:3] == ["host-a", "running", "10.77.0.1"]
    hosts = lab.json("status")["hosts"]
    assert isinstance(hosts, list) and [host["state"] for host in hosts] == ["running"]


def test_a_command_is_run_as_if_it_were_here(lab: Lab):
    """Outputs, input and exit code are its own; 127 when there is none such."""
    done = lab("run", "host-a", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    data = bytes(range(256)) * 500
    assert lab("run", "-i", "host-a", "--", "cat", data=data).stdout == data
    assert b"could not be started" in lab("run", "host-a", "--", "no-such-program", code=127).stderr
    assert lab("run", "host-a", "--", "sh", "-c", "kill -9 $$", code=137).stdout == b""


def test_a_command_without_its_dashes_is_told_how(lab: Lab):
    """Exit code 2, and the line to type."""
    assert b"diskwright lab run host-a -- uname" in lab("run", "host-a", "uname", code=2).stderr
    assert b"one host" in lab("kill", "host-a", "host-b", code=2).stderr


def test_diskwright_runs_on_a_host(lab: Lab):
    """With the host's own name, notes and repositories; what is in ``/run/lab/keep`` survives its death."""
    lab("run", "host-a", "--", "diskwright", "create-repo", "localfs-1.0", "path=/run/lab/keep/images")
    lab("run", "host-a", "--", "diskwright", "connect", "main", "localfs-1.0", "path=/run/lab/keep/images")
    lab("kill", "host-a")
    assert b"is off" in lab("run", "host-a", "--", "true", code=5).stderr
    lab("boot", "host-a")
    assert b"main" in lab("run", "host-a", "--", "diskwright", "repos").stdout


def test_a_host_is_frozen_and_cut_off(lab: Lab):
    """The state says so, and commands are refused meanwhile instead of hanging."""
    lab("freeze", "host-a")
    assert b"frozen" in lab("status").stdout
    assert b"Thaw" in lab("run", "host-a", "--", "true", code=5).stderr
    lab("thaw", "host-a")
    lab("cut", "host-a")
    assert b"running, cut" in lab("status").stdout
    lab("mend", "host-a")
    lab("run", "host-a", "--", "true")


def test_the_console_is_kept(lab: Lab):
    """What the kernel said in all its lives."""
    lab("run", "host-a", "--", "sh", "-c", "echo 'hello console' >/dev/kmsg; echo 8 >/proc/sys/kernel/printk")
    lab("run", "host-a", "--", "sh", "-c", "echo '<1>a second line' >/dev/kmsg")
    assert b"a second line" in lab("console", "host-a").stdout


def test_a_second_lab_in_the_same_place_is_refused(lab: Lab):
    """Exit code 4, and the first goes on."""
    assert b"runs in" in lab("up", code=4).stderr
    lab("run", "host-a", "--", "true")


def test_unknown_hosts_are_told(lab: Lab):
    """Exit code 3 for every action."""
    for action in ("kill", "freeze", "cut", "boot"):
        assert b"no host" in lab(action, "host-z", code=3).stderr
    lab("run", "host-z", "--", "true", code=3)
