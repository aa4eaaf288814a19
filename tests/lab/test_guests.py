"""Hosts of the lab: commands, death, freezing, names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from engine.errors import BadRequest, Refused
from sim.lab import CommandFailed, Disk, Guest, GuestDied, Lab, LabError
from sim.lab.cluster import Cluster
from sim.lab.errors import CommandNotStarted
from sim.lab.sessions import members
from tests.contracts.source import ROOT
from tests.lab.conftest import mounted


def test_a_command_gets_its_input_and_gives_all_its_output(host: Guest):
    """Bytes of any value pass in both directions, more than any buffer holds; output and errors are kept apart."""
    data = os.urandom(400_000)
    assert host.run(["cat"], data=data).output == data
    done = host.run(["sh", "-c", "head -c 3000000 /dev/zero; echo no >&2; exit 3"], check=False)
    assert (done.code, len(done.output), done.stderr) == (3, 3_000_000, "no\n")


def test_many_commands_run_at_once(host: Guest):
    """A hundred commands started together each get their own answer. (This once stalled the serial line.)"""
    running = [host.begin(["echo", str(number)]) for number in range(100)]
    assert [command.checked(60).stdout for command in running] == [f"{number}\n" for number in range(100)]


def test_how_a_command_ends_is_told(host: Guest):
    """Exit codes, signals, what cannot be started, and what takes too long are four different things."""
    with pytest.raises(CommandFailed, match="exit code 4: so it is"):
        host.run(["sh", "-c", "echo so it is; exit 4"])
    assert host.run(["sh", "-c", "kill -9 $$"], check=False).code == -signal.SIGKILL
    with pytest.raises(CommandNotStarted, match="No such file"):
        host.run(["/no/such/program"])
    with pytest.raises(LabError, match=r"did not end in 0\.2 s"):
        host.run(["sleep", "1000"], timeout_s=0.2)


def test_a_daemon_left_behind_does_not_hold_its_command(host: Guest):
    """A command has ended when its own process has, though its child keeps the output open."""
    assert host.run(["sh", "-c", "sleep 1000 & echo $!"], timeout_s=60).stdout.strip().isdigit()


def test_python_in_a_guest_is_a_process_like_any_other(host: Guest):
    """Text and functions run in a fork: exit codes, arguments, environment and exceptions are as of a program."""
    assert host.python("import sys; print(sys.argv[1:]); sys.exit(5)", "a b", check=False) == (5, b"['a b']\n", b"")
    failed = host.python("import os; print(os.getpid() != 1, flush=True); 1 / 0", check=False)
    assert failed.code == 1 and failed.stdout == "True\n" and "ZeroDivisionError" in failed.stderr
    assert "diskwright" in host.diskwright("--version").stdout


def test_each_host_is_somebody(host: Guest, other: Guest):
    """Name, machine id, boot id and address differ; each knows the other's name."""
    script = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id; getent hosts host-a host-b"
    mine, theirs = (guest.run(["sh", "-c", script]).stdout.split("\n") for guest in (host, other))
    assert mine[0] == "host-a" and theirs[0] == "host-b"
    assert mine[1] != theirs[1] and mine[2] != theirs[2] == other.facts["boot_id"]
    assert mine[3:] == theirs[3:] and host.address in mine[3]


def test_the_machine_below_cannot_be_written(host: Guest):
    """Only the private directories and the share can; a file made in the share is seen outside."""
    for place in ("/etc", "/usr", os.path.dirname(sys.executable)):
        assert "Read-only" in host.run(["touch", f"{place}/x"], check=False).stderr
    host.run(["sh", "-c", "echo hello >/run/lab/share/note && touch /tmp/x /run/x /srv/x /mnt/x"])
    with open(f"{host.share}/note", encoding="ascii") as stream:
        assert stream.read() == "hello\n"


def test_the_death_of_a_host_is_told_at_once(cluster: Cluster, host: Guest):
    """Who waits for a command is told when its host is killed, no process of it is left, and it can boot again:
    what was on its disk and synced is there, what was in memory is not."""
    before = host.facts["boot_id"]
    host.run(
        ["sh", "-c", "mkfs.ext4 -qF /dev/ubdb && mount /dev/ubdb /mnt && echo safe >/mnt/x && sync && echo a >/run/a"]
    )
    with open(f"{host.folder}/pid", encoding="ascii") as stream:
        session = int(stream.read())
    command = host.begin(["sleep", "1000"])
    command.wait_started()
    host.kill()
    with pytest.raises(GuestDied):
        command.wait(60)  # the command would take a quarter of an hour
    assert members(session) == [] and host.state == "off"
    with pytest.raises(Refused, match="Boot it"):
        host.run(["true"])
    cluster.boot(host.name)
    found = host.run(["sh", "-c", "mount /dev/ubdb /mnt && cat /mnt/x /run/x; umount /mnt"])
    assert found.stdout == "safe\n" and "/run/x" in found.stderr
    assert host.facts["boot_id"] != before


def test_a_guest_that_panics_is_dead(host: Guest):
    """A crash of the kernel is found without asking, and its console has the reason."""
    command = host.begin(["sh", "-c", "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 1000"])
    with pytest.raises(GuestDied):
        command.wait(60)
    assert host.state == "off" and "sysrq" in host.console().lower()


def test_a_frozen_host_does_nothing_until_it_is_thawed(host: Guest):
    """A command makes no progress while its host is frozen, and goes on afterwards as if nothing had been."""
    command = host.begin(["sh", "-c", "while :; do echo; done"])
    command.wait_started()
    host.freeze()
    with pytest.raises(Refused, match="Thaw"):
        host.run(["true"])
    host.thaw()
    host.run(["true"])
    assert not command.ended
    command.signal(signal.SIGTERM)
    assert command.wait(60).code == -signal.SIGTERM


def test_a_switched_off_host_leaves_its_file_systems_clean(cluster: Cluster, host: Guest):
    """Shutdown unmounts: what was written and not synced is there after the next boot."""
    with mounted(host, "ext4"):
        host.run(["sh", "-c", "echo late >/mnt/x"])
        host.shutdown()
    cluster.boot(host.name)
    assert host.run(["sh", "-c", "dumpe2fs -h /dev/ubdb 2>&1 | grep state"]).stdout.endswith("clean\n")
    assert host.run(["sh", "-c", "mount /dev/ubdb /mnt && cat /mnt/x; umount /mnt"]).stdout == "late\n"


def test_a_shared_disk_is_one_disk(host: Guest, other: Guest):
    """What one host writes past its cache the other reads."""
    host.run(["dd", "of=/dev/ubda", "oflag=direct", "conv=sync", "bs=4096"], data=b"x" * 4096)
    assert other.run(["dd", "if=/dev/ubda", "iflag=direct", "bs=4096", "count=1"]).output == b"x" * 4096


def test_names_that_are_no_names_are_refused(session_cluster: Cluster):
    """Names become paths, options of the kernel and host names."""
    for name in ("", "A", "a b", "../x", "a" * 40, "-a", "ä"):
        with pytest.raises(BadRequest):
            session_cluster.lab.add(name)
        with pytest.raises(BadRequest):
            session_cluster.lab.disk(name, 1 << 20)


def test_a_guest_that_cannot_boot_says_why(tmp_path):
    """The end of its console is in the error."""
    with Lab() as lab, pytest.raises(LabError, match="did not boot; its console ends"):
        lab.boot("host-a", [Disk(str(tmp_path / "missing"), False)], memory="1M")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_process_that_made_a_lab(number: signal.Signals):
    """Its guests, its keeper and its directory are gone when it is killed."""
    script = (
        "import time; from sim.lab import Lab; lab = Lab(); guest = lab.boot('host-a')\n"
        "print(lab.directory, open(f'{guest.folder}/pid').read(), flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    with process.stdout:
        directory, session = process.stdout.readline().decode().split()
    assert len(members(int(session))) > 0
    process.send_signal(number)
    process.wait()
    deadline = time.monotonic() + 60
    while (os.path.exists(directory) or members(int(session))) and time.monotonic() < deadline:
        os.sched_yield()
    assert not os.path.exists(directory) and members(int(session)) == []
