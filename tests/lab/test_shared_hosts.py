"""One volume group, three hosts: real LVM, sanlock's own daemons, hosts that die and freeze."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from sim.lab import Guest, Lab
from sim.lab.needs import missing_packages
from tests.contracts.source import ROOT

DEAD_AFTER_S = 8 * 1 + 60
"""sanlock's rule for an I/O timeout of 1 s: by then the watchdog of a host has reset it."""
PATIENCE_S = 240.0
DATA_BYTES = 40 << 20

_COMMON = """
import hashlib, json, os, signal, sys, time
from engine import changes
from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import DiskwrightError
from engine.tools.sanlock import SanlockLeases
from tui.session import host_name, state_directory
doors = real_doors(host_name(None))
doors = doors._replace(shared_leases=SanlockLeases(doors.leases.descriptors, 1))
engine = Engine(doors, state_directory(None, host_name(None)))

def the_fix(rule):
    return next(fix for fix in engine.check_storage_repository("san") if fix.rule == rule)

def record(image):
    return changes.read(engine.context.repository("san"), image).record

def refused(call):
    try:
        call()
    except DiskwrightError as error:
        return f"{error.code}: {error}"
    return ""
"""
_MAKE = """
made = {"volume_group": "san", "devices": ["/dev/ubda"], "shared": True, "hosts": 4}
engine.create_repository("lvm-1.0", made)
"""
_CONNECT = """
engine.connect_storage_repository("san", "lvm-1.0", {"volume_group": "san"})
print(json.dumps(engine.host_warnings("san")))
"""
_COMMIT = """
data = os.urandom(int(sys.argv[1]))
with open("/tmp/data", "wb") as file:
    file.write(data)
disk = engine.import_image("san", "/tmp/data", "raw", None, {"auto_fix": False})
engine.run_fix_here("san", the_fix("B-IMPORT"))
copy = engine.copy_image("san", disk, None, None, {"auto_fix": False})
print(json.dumps([copy, record(copy).operation.attempt.id, hashlib.sha256(data).hexdigest()]))
"""
_FILL_AND_DIE = """
fix, repository = the_fix("B-COPY"), engine.context.repository("san")
assert not fix.needs_srm
write = repository.write_progress

def written(tag, epoch, sequence, line):
    write(tag, epoch, sequence, line)
    if json.loads(line)["cursor"]:
        os.kill(os.getpid(), signal.SIGKILL)

repository.write_progress = written
engine.run_fix_here("san", fix)
"""
_GO_ON = """
fix = the_fix("B-COPY")
engine.run_fix_here("san", fix)
engine.export_image("san", sys.argv[1], "/tmp/out", "raw")
with open("/tmp/out", "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
refusal = refused(lambda: engine.create_virtual_disk("san", 1 << 20))
print(json.dumps([fix.needs_srm, fix.why, record(sys.argv[1]).volume.id, digest, refusal]))
"""
_HOLD = """
lease = engine.context.repository("san").try_lease(engine.list_images("san")[0].id)
print("held" if lease else "refused", flush=True)
signal.pause()
"""
_TAKE_OVER = """
repository, start, found = engine.context.repository("san"), time.monotonic(), {}
image = engine.list_images("san")[0].id
first = [refused(lambda: engine.take_srm("san")), repository.lease_held(image)]
while len(found) < 2:
    if "role" not in found and not refused(lambda: repository.take_management("")):
        found["role"] = time.monotonic() - start
    if "lease" not in found and repository.try_lease(image) is not None:
        found["lease"] = time.monotonic() - start
    assert time.monotonic() < start + float(sys.argv[1]), found
    time.sleep(0.2)
disk = engine.create_virtual_disk("san", 1 << 20)
print(json.dumps([first, found, record(disk).whole]))
"""
_WHO = """
print(json.dumps([engine.get_srm("san"), refused(lambda: engine.create_virtual_disk("san", 1 << 20))]))
"""


def tell(guest: Guest, source: str, *arguments: object) -> Any:
    """What Python in a guest prints as JSON."""
    return json.loads(guest.python(_COMMON + source, *map(str, arguments), timeout_s=PATIENCE_S).stdout)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Guest]]:
    """Three that share a group; the first manages it."""
    if missing := missing_packages("lvm", "file systems"):
        pytest.skip(f"the lab needs Debian packages: {' '.join(missing)}")
    with Lab() as lab:
        disk = lab.disk("shared", 1 << 30, shared=True)
        guests = [lab.add(f"host-{letter}", [disk]) for letter in "abc"]
        lab.boot_all(guests)
        for guest in guests:
            begin_sanlock(guest)
        guests[0].python(_COMMON + _MAKE, timeout_s=PATIENCE_S)
        for guest in guests:
            assert any("watchdog" in text for text in tell(guest, _CONNECT))
        yield guests


def begin_sanlock(guest: Guest) -> None:
    """Its daemon, without a watchdog: a host that freezes goes on."""
    words = ["sanlock", "daemon", "-w", "0", "-o", "1", "-h", "0", "-l", "0", "-U", "root", "-G", "root"]
    guest.run([*words, "-e", guest.name])


def test_what_the_manager_commits_is_filled_by_any_host_and_finished_by_another(hosts: list[Guest]):
    """A copy is committed on the manager, which makes its volume. The second host fills it and is killed, the third
    goes on at the cursor in the same volume; it makes none itself."""
    first, second, third = hosts
    copy, volume, digest = tell(first, _COMMIT, DATA_BYTES)
    died = second.python(_COMMON + _FILL_AND_DIE, check=False, timeout_s=PATIENCE_S)
    assert died.code == -signal.SIGKILL, died
    needs_srm, why, filled, found, refusal = tell(third, _GO_ON, copy)
    assert not needs_srm and "it goes on at byte" in why
    assert (filled, found) == (volume, digest)
    assert refusal.startswith("refused: ") and "host-a" in refusal


def test_who_died_or_froze_is_replaced_when_that_is_proven_and_not_before(hosts: list[Guest]):
    """The manager dies, and a host that holds the lease of an image freezes. Another gets the role and the lease when
    their watchdogs would have fired. The process that had the lease is killed when its host goes on; neither that
    host nor the old manager, when it is back, manages anything."""
    first, second, third = hosts
    said = Queue[bytes]()
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}){_COMMON}{_HOLD}"
    words = [sys.executable, "-c", program]
    holding = third.begin(words, on_output=lambda kind, data: said.put(data))
    assert said.get(timeout=PATIENCE_S) == b"held\n"
    third.freeze()
    first.kill()
    (refusal, held), found, whole = tell(second, _TAKE_OVER, PATIENCE_S - 30)
    assert refusal.startswith("refused: ") and "host-a" in refusal and held
    assert min(found.values()) > DEAD_AFTER_S - 15, found
    assert whole
    third.thaw()
    assert holding.wait(60).code == -signal.SIGKILL
    first.boot()
    begin_sanlock(first)
    for guest in (first, third):
        manager, refusal = tell(guest, _WHO)
        assert manager == "host-b" and refusal.startswith("refused: ") and "host-b" in refusal, refusal
