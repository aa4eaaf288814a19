"""The hook of libvirt, called by a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.source import ROOT
from tests.live.domain import LIVE, PATIENCE_S, PAUSED, Daemon, binding, guest, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason="there is no libvirt or qemu here"),
    pytest.mark.skipif(os.getuid() != 0, reason="a hook of the system's libvirt works as root"),
]


class Hooked:
    """A libvirt that calls a hook, and the command of a host where it runs."""

    def __init__(self, folder: Path) -> None:
        self.daemon = Daemon(memory=True)
        self._notes = str(folder / "state")
        self._cwd = str(folder)

    def run(self, *words: str) -> Any:
        """The JSON document of a command."""
        command = [sys.executable, "-P", "-m", "tui.cli.main", *words, "--json", "--state", self._notes, "--host", "a"]
        path = {**os.environ, "PYTHONPATH": str(ROOT)}
        return json.loads(subprocess.check_output(self.daemon.inside(*command), cwd=self._cwd, env=path))

    def prepared(self) -> int:
        """How many disks are."""
        return len(self.run("tasks")["prepared"])

    def domain(self, name: str) -> Any:
        return self.daemon.domain(name)


@pytest.fixture
def hooked(tmp_path: Path) -> Iterator[Hooked]:
    found = Hooked(tmp_path)
    try:
        found.run("hook", "install", "--uri", found.daemon.uri)
        found.daemon.restart()
        yield found
        found.daemon.end_domains()
        assert found.run("hook", "remove")["changed"]
    finally:
        found.daemon.end()


def test_the_hook_prepares_the_disk_of_a_domain_and_tears_it_down(hooked: Hooked, tmp_path: Path):
    """Whatever was done while it ran, and whoever died; also of one that was attached later. No domain is started on a
    disk that another has, or with a format that it has not."""
    for command in ("create-repo", "connect"):
        given = ["main"] if command == "connect" else []
        hooked.run(command, *given, "localfs-1.0", f"path={tmp_path}/images")
    hooked.run("create-disk", "main", "1M", "--name", "web", "--strategy", "space")
    element = (
        "<disk type='file' device='disk'><driver name='qemu' type='{}'/><source file='/run/diskwright/disks/main/web/"
        "disk'><seclabel model='dac' relabel='no'/></source><target dev='vda' bus='virtio'/></disk>"
    )
    for name, format in (("web", "qcow2"), ("other", "qcow2"), ("wrong", "raw")):
        hooked.daemon.define(name, element.format(format))
    with pytest.raises(binding().libvirtError, match="is qcow2, and the domain would open"):
        hooked.domain("wrong").createWithFlags(PAUSED)
    assert hooked.prepared() == 0
    hooked.domain("web").createWithFlags(PAUSED)
    guest(hooked.domain("web"), "write -P 1 0 64k")
    with pytest.raises(binding().libvirtError, match="is prepared on this host already"):
        hooked.domain("other").createWithFlags(PAUSED)
    hooked.run("create-snapshot", "main", "web")
    guest(hooked.domain("web"), "write -P 2 64k 64k")
    hooked.domain("web").destroy()
    assert hooked.prepared() == 0
    hooked.daemon.define("bare").createWithFlags(PAUSED)
    monitor = f"libvirt:{hooked.daemon.uri}/bare"
    element = hooked.run("prepare", "main", "web", "--monitor", monitor, "--print", "libvirt")["print"]
    hooked.domain("bare").attachDeviceFlags(element, LIVE)
    for number in range(2):
        guest(hooked.domain("bare"), f"read -P {number + 1} {number * 64}k 64k")
    hooked.daemon.stop()
    hooked.daemon.kill_machine("bare")
    hooked.daemon.start()
    deadline = time.monotonic() + PATIENCE_S
    while hooked.prepared():  # it finds that the domain has ended while others ask
        assert time.monotonic() < deadline
