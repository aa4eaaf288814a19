"""What the tests of NFS run inside a guest: ``python -m tests.lab.guest_nfs WHAT …``; it answers in JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.assembly import real_doors
from engine.data.model import VolumeFormat
from engine.data.records import Record
from engine.doors.images import Layer
from engine.errors import DiskwrightError, OutcomeUnknown, Overtaken
from engine.formats.registry import open_repository
from engine.tags.changes import change
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
from engine.tools.qemu.images import QemuImageTool

KEY = (1 << 60) - 1  # the highest lease there is
BLOCK = 64 * 1024


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def outcome(*calls: Callable[[], Any]) -> str:
    """What the first call that fails raises, "" for none."""
    try:
        for call in calls:
            call()
    except (OSError, DiskwrightError) as error:
        return str(error)
    return ""


def hold(directory: str) -> None:
    """Have everything open and locked as the engine has it, and one file not locked; when told, write to all."""
    files, leases, images = RealFiles(), OfdLeases(), QemuImageTool()
    with contextlib.ExitStack() as stack:
        assert leases.try_acquire(f"{directory}/locks", KEY, shared=False)
        locked = stack.enter_context(files.open(f"{directory}/locked", writable=True))
        assert locked.lock()
        free = stack.enter_context(files.open(f"{directory}/free", writable=True))
        sessions = {
            format: images.open_session([Layer(f"{directory}/image.{format}", format)], writable=True, direct=True)
            for format in VolumeFormat
        }
        for handle in (locked, free):
            handle.write_at(0, b"a" * BLOCK)
            handle.sync()
        for session in sessions.values():
            session.write(0, b"a" * BLOCK)
            session.flush()
        say("ready")
        sys.stdin.readline()
        told = {}
        for name, handle in (("free", free), ("locked", locked)):
            told[name] = outcome(partial(handle.write_at, 0, b"z" * BLOCK), handle.sync)
        for format, session in sessions.items():
            told[format] = outcome(partial(session.write, 0, b"z" * BLOCK), session.flush)
            told[f"{format} read"] = outcome(partial(session.read, 0, BLOCK))
            session.close()
        say(told)


def take(directory: str) -> None:
    """Wait for the lease, then write to the same files, opened and locked anew."""
    files, leases, images = RealFiles(), OfdLeases(), QemuImageTool()
    while leases.try_acquire(f"{directory}/locks", KEY, shared=False) is None:
        assert leases.held(f"{directory}/locks", KEY)
    for name in ("locked", "free"):
        with files.open(f"{directory}/{name}", writable=True) as handle:
            assert name == "free" or handle.lock()
            handle.write_at(0, b"b" * BLOCK)
            handle.sync()
    for format in VolumeFormat:
        session = images.open_session([Layer(f"{directory}/image.{format}", format)], writable=True, direct=True)
        session.write(0, b"b" * BLOCK)
        session.flush()
        session.close()
    say("taken")


def read(directory: str) -> None:
    """The letter that each file begins with."""
    files, images = RealFiles(), QemuImageTool()
    found = {name: files.read_file(f"{directory}/{name}", BLOCK)[:1].decode() for name in ("locked", "free")}
    for format in VolumeFormat:
        session = images.open_session([Layer(f"{directory}/image.{format}", format)], writable=False, direct=True)
        found[format] = session.read(0, 1).decode()
        session.close()
    say(found)


def add(host: str, parameters: str, tag: str, times: str) -> None:
    """Count an image's user data up, beginning when told; how often it was done, and how often nobody knows."""
    repository = open_repository("nfs-1.0", json.loads(parameters), real_doors(host))
    done = unknown = 0

    def more(record: Record) -> Record:
        return record._replace(user_data=record.user_data + 1)

    say("ready")
    sys.stdin.readline()
    while done + unknown < int(times):
        try:
            change(repository, tag, more)
        except OutcomeUnknown:
            unknown += 1
        except Overtaken:
            continue  # the other host was quicker sixteen times: it has not been done
        else:
            done += 1
    say([done, unknown])


def seen(host: str, parameters: str, tag: str) -> None:
    """The user data of an image now, listed and read once before and once for each line of input."""
    repository = open_repository("nfs-1.0", json.loads(parameters), real_doors(host))
    while True:
        entry = repository.tags.read(tag)
        assert entry is not None and entry.record is not None, entry
        say(entry.record.user_data)
        if not sys.stdin.readline():
            return


TASKS: dict[str, Callable[..., None]] = {"hold": hold, "take": take, "read": read, "add": add, "seen": seen}

if __name__ == "__main__":
    TASKS[sys.argv[1]](*sys.argv[2:])
