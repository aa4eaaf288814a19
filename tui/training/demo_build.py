"""What is in a demo: images in every state that an operator can meet, made by the engine itself.

Nothing is painted. Each image is the work of a verb or a fix; what is unfinished was worked on by
a process that really got a SIGKILL (``sim.hosts.victim``); what is damaged had bytes of its file
overwritten, as a bad disk or a wrong command would. Content is the same in each demo, ids are not.

Three repositories: "demo" is the one to repair, "demo-offsite" has replicas and the source of a
copy, and "demo-archive" is left unconnected, so that a fix can be seen to wait for it.
"""

from __future__ import annotations

import glob
import os
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import StorageError, ToolFailed, ToolMissing
from engine.triage import rules
from sim.hosts.victim import sacrifice

MAIN, OFFSITE, ARCHIVE = "demo", "demo-offsite", "demo-archive"
FOLDERS = {MAIN: "repository", OFFSITE: "offsite", ARCHIVE: "archive"}
STATE, FILES = "building", "files"
"""The notes of the hosts that make the demo; files that imports read."""
KILLED_IMPORT = "mail-spool"
"""The disk whose import was killed, and its file."""
FORMAT = "localfs-1.0"

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

NO_FIX = {"auto_fix": False}
WRITE = "images.open_session.write"

Piece = tuple[int, bytes]
"""(start, data)."""


def parameters(root: str, repository: str) -> dict[str, str]:
    """Connection parameters of one of the demo's repositories."""
    return {"path": f"{root}/{FOLDERS[repository]}"}


def build(root: str, host: str, say: Callable[[str], None]) -> dict[str, str]:
    """Make everything below the directory ``root``, which has nothing of it yet. Returns the names
    of all images by id, hidden data included.

    ``say`` is told each step as it begins. A crash leaves a part of it all; then everything has to
    be taken away before the next call."""
    builder = Builder(root, host)
    try:
        for step in STEPS:
            say(step.text)
            for make in step.makers:
                make(builder)
    finally:
        builder.engine.close()
    return builder.names


class Builder:
    """The hands that make a demo, as a host that has all three repositories connected."""

    def __init__(self, root: str, host: str) -> None:
        self.root = root
        self.state = f"{root}/{STATE}"
        self.engine = Engine(real_doors(host, self.state), self.state)
        self.names: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        """The image that a later step needs, by its name."""
        for folder in (FILES, STATE):
            os.mkdir(f"{root}/{folder}")
        for name in FOLDERS:
            os.mkdir(parameters(root, name)["path"])
            self.engine.create_repository(FORMAT, parameters(root, name))
            self.engine.connect_storage_repository(name, FORMAT, parameters(root, name))

    def known(self, name: str, image: str) -> str:
        """Remember what an image is called."""
        self.names[image] = name
        self.ids[name] = image
        return image

    def file(self, name: str, size: int, pieces: Sequence[Piece]) -> str:
        """A raw image file of a machine, sparse; returns its path."""
        path = f"{self.root}/{FILES}/{name}.raw"
        with open(path, "xb") as stream:
            stream.truncate(size)
            for start, data in pieces:
                stream.seek(start)
                stream.write(data)
        return path

    def disk(
        self, repo: str, name: str, about: str, pieces: Sequence[Piece], size: int, strategy: str = "space"
    ) -> str:
        """A disk with content, imported whole."""
        path = self.file(name, size, pieces)
        options = {**NO_FIX, "strategy": strategy}
        image = self.engine.import_image(repo, path, "raw", data_of(name, about), options)
        self.fix(repo, rules.B_IMPORT, image)
        os.unlink(path)
        return self.known(name, image)

    def on_base(self, name: str, about: str, pieces: Sequence[Piece], strategy: str = "space") -> str:
        """A disk of 10 GiB on base-debian12 in which its machine has written something."""
        options = {"strategy": strategy}
        base = self.ids["base-debian12"]
        image = self.engine.create_virtual_disk(MAIN, 10 * GiB, base, data_of(name, about), options)
        self.guest_writes(image, pieces)
        return self.known(name, image)

    def guest_writes(self, disk: str, pieces: Sequence[Piece], repo: str = MAIN) -> None:
        """Write as the machine would that has the disk: prepared, under its lease."""
        prepared = self.engine.prepare_image(repo, disk)
        try:
            if prepared.format == "raw":
                _write_raw(prepared.path, pieces)
            else:
                self._write_qcow2(prepared.path, pieces)
        finally:
            self.engine.teardown_image(repo, disk)

    def _write_qcow2(self, path: str, pieces: Sequence[Piece]) -> None:
        import subprocess

        commands = []
        for number, (start, data) in enumerate(pieces):
            with open(f"{self.state}/piece-{number}", "wb") as stream:
                stream.write(data)
            commands += ["-c", f"write -q -s piece-{number} {start} {len(data)}"]
        try:
            done = subprocess.run(  # with names from its own directory: the commands know no quotes
                ["qemu-io", "-f", "qcow2", *commands, path], cwd=self.state, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise ToolMissing("qemu-io is not installed", "Install it: it comes with qemu-img (qemu-utils)") from None
        if done.returncode:
            raise ToolFailed(f"qemu-io failed: {(done.stderr or done.stdout).strip()[-300:]}")
        for number in range(len(pieces)):
            os.unlink(f"{self.state}/piece-{number}")

    def fix(self, repo: str, rule: str, image: str) -> None:
        """Run a fix to its end."""
        for fix in self.engine.check_storage_repository(repo):
            if fix.rule == rule and fix.target == image:
                self.engine.run_fix_here(repo, fix)
                return
        raise StorageError(f"check offers no fix {rule} for image {image}, which was to be made for the demo")

    def killed(self, host: str, verb: str, arguments: Mapping[str, Any], kill: Mapping[str, Any]) -> None:
        """Have a verb begun by a host that is killed before it has finished."""
        outcome = sacrifice(host, self.state, verb, arguments, kill)
        if not outcome.killed:
            raise StorageError(f"{verb} had finished before it was to be interrupted: {outcome.effects}")

    def killed_fix(self, host: str, rule: str, image: str, kill: Mapping[str, Any]) -> None:
        """As ``killed``, of a fix."""
        self.killed(host, "run_fix", {"repo_id": MAIN, "rule": rule, "image": image}, kill)


def data_of(name: str, about: str) -> dict[str, str]:
    """User data as a manager of machines would keep it."""
    return {"name": name, "about": about}


def solid(name: str, size: int, start: int = 0) -> list[Piece]:
    """Bytes that belong to ``name``, in one piece."""
    return [(start, random.Random(f"{name} {start}").randbytes(size))]


def scattered(name: str, size: int, count: int, every: int) -> list[Piece]:
    """``count`` pieces of ``size`` bytes, ``every`` so many bytes."""
    return [piece for index in range(count) for piece in solid(name, size, index * every)]


def _write_raw(path: str, pieces: Sequence[Piece]) -> None:
    with open(path, "r+b") as stream:
        for start, data in pieces:
            stream.seek(start)
            stream.write(data)


def _overwrite(path: str, data: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.write(data)


# -- the steps, in order


def _base(builder: Builder) -> None:
    pieces = [*solid("base", 2 * MiB), *solid("base", MiB, GiB)]
    disk = builder.disk(MAIN, "dns-1", "name server, on the golden image", pieces, 2 * GiB)
    about = data_of("base-debian12", "golden image")
    builder.known("base-debian12", builder.engine.create_snapshot(MAIN, disk, about))
    builder.guest_writes(disk, solid("dns-1", 512 * KiB, 64 * MiB))


def _on_base(builder: Builder) -> None:
    builder.on_base("wiki", "an overlay is what was asked for", solid("wiki", MiB, 3 * GiB))
    builder.on_base("web-01", "wants performance, is an overlay", solid("web-01", MiB, 5 * GiB), "performance")
    runner = builder.on_base("ci-runner", "flattening was killed", solid("ci-runner", MiB, 4 * GiB), "performance")
    builder.killed_fix("host-b", rules.O_FLAT, runner, {"before": WRITE, "nth": 3})


def _formats(builder: Builder) -> None:
    pieces = solid("erp-data", 3 * MiB // 2, MiB)
    disk = builder.disk(MAIN, "erp-data", "raw, space is asked for now", pieces, 4 * GiB, "performance")
    builder.engine.set_strategy(MAIN, disk, "space")


def _killed_snapshots(builder: Builder) -> None:
    """Three disks whose snapshot died just before its last step: hidden data below each."""
    for name, about, size in (
        ("git-server", "a snapshot was killed", 2 * MiB),
        ("monitoring", "a merge was killed", 2 * MiB),
        ("build-cache", "a merge was killed at its end", MiB),
    ):
        disk = builder.disk(MAIN, name, about, solid(name, size), 4 * GiB)
        snapshot = {"target_repo_id": MAIN, "base_virtual_disk_id": disk, "user_data": data_of(f"{name}-before", "")}
        builder.killed("host-b", "create_snapshot", snapshot, {"before": "files.link", "nth": 3})
        builder.names[_below(builder, disk)] = f"{name}-before"


def _killed_merges(builder: Builder) -> None:
    disk = builder.ids["monitoring"]
    builder.guest_writes(disk, scattered("monitoring", 128 * KiB, 8, 4 * MiB))
    builder.killed_fix("host-c", rules.M_CHAIN, _below(builder, disk), {"before": WRITE, "nth": 5})
    disk = builder.ids["build-cache"]
    builder.guest_writes(disk, solid("build-cache new", 3 * MiB // 2, 512 * KiB))
    builder.killed_fix("host-c", rules.M_CHAIN, _below(builder, disk), {"before": "images.set_backing"})


def _below(builder: Builder, disk: str) -> str:
    record = builder.engine.context.repository(MAIN).tags.scan()[disk].record
    assert record is not None and record.volume is not None and record.volume.parent
    return record.volume.parent


def _killed_copy(builder: Builder) -> None:
    """40 MiB to be read, of which only 4 KiB in each 64 KiB are data, so that the source is small."""
    source = builder.engine.create_virtual_disk(
        OFFSITE, 40 * MiB, None, data_of("web-db", "the source of a copy"), {"strategy": "performance"}
    )
    builder.guest_writes(source, scattered("web-db", 4 * KiB, 640, 64 * KiB), OFFSITE)
    builder.names[source] = "web-db"
    options = {**NO_FIX, "strategy": "performance"}
    about = data_of("web-db", "its copy from demo-offsite was killed")
    copy = builder.known("web-db", builder.engine.copy_image(MAIN, source, None, about, options))
    # A cursor is kept every 16 MiB: the ninth write of 2 MiB is the first one above it.
    builder.killed_fix("host-b", rules.B_COPY, copy, {"before": WRITE, "nth": 9})


def _killed_import(builder: Builder) -> None:
    path = builder.file(KILLED_IMPORT, 8 * MiB, solid(KILLED_IMPORT, 4 * MiB))
    about = data_of(KILLED_IMPORT, "its import was killed")
    disk = builder.known(KILLED_IMPORT, builder.engine.import_image(MAIN, path, "raw", about, NO_FIX))
    builder.killed_fix("host-c", rules.B_IMPORT, disk, {"before": WRITE, "nth": 2})


def _damaged_snapshot(builder: Builder) -> None:
    disk = builder.disk(OFFSITE, "crm-db", "customers", solid("crm-db", MiB), GiB)
    about = data_of("crm-db-monday", "damaged here, intact in demo-offsite")
    snapshot = builder.known("crm-db-monday", builder.engine.create_snapshot(OFFSITE, disk, about))
    builder.engine.copy_image(MAIN, snapshot, None, about, NO_FIX)
    builder.fix(MAIN, rules.B_COPY, snapshot)
    repository = builder.engine.context.repository(MAIN)
    record = repository.tags.scan()[snapshot].record
    assert record is not None and record.volume is not None
    _overwrite(repository.volumes.layer(record.volume).path, random.Random("damage").randbytes(4 * KiB))


def _waiting(builder: Builder) -> None:
    source = builder.disk(ARCHIVE, "dr-standby", "kept in the archive", solid("dr-standby", 512 * KiB), GiB)
    about = data_of("dr-standby", "its source is not connected")
    copy = builder.known("dr-standby", builder.engine.copy_image(MAIN, source, None, about, NO_FIX))
    builder.killed_fix("host-c", rules.B_COPY, copy, {"before": WRITE})


def _removed(builder: Builder) -> None:
    disk = builder.disk(MAIN, "ci-4411", "removed", solid("ci-4411", 3 * MiB // 2), GiB)
    builder.engine.remove_image(MAIN, disk)
    disk = builder.disk(MAIN, "ci-4410", "removed, half deleted", solid("ci-4410", 3 * MiB // 2), GiB)
    builder.engine.remove_image(MAIN, disk)
    # The fourth name that a clean takes away is the volume's; by then there is no way back.
    builder.killed_fix("host-b", rules.C_REMOVED, disk, {"before": "files.unlink", "nth": 4})


def _unnamed(builder: Builder) -> None:
    """The record of an image was overwritten and then given up; its data is still there."""
    disk = builder.disk(MAIN, "old-ldap", "its record is lost", solid("old-ldap", MiB), GiB)
    for path in glob.glob(f"{glob.escape(parameters(builder.root, MAIN)['path'])}/tags/{disk[:2]}/{disk}.*"):
        _overwrite(path, b"overwritten by something else")
    builder.fix(MAIN, rules.C_RECORD, disk)


class Step(NamedTuple):
    """Some images that are made one after the other."""

    text: str
    makers: tuple[Callable[[Builder], None], ...]


STEPS = (
    Step("a golden image and disks on it; a flatten is killed", (_base, _on_base)),
    Step("a disk whose format is not wanted any more", (_formats,)),
    Step("three snapshots that are killed, then two merges", (_killed_snapshots, _killed_merges)),
    Step("a copy that is killed at 40 %, an import that is killed", (_killed_copy, _killed_import)),
    Step("a snapshot that is damaged, a copy whose source goes away", (_damaged_snapshot, _waiting)),
    Step("removed images, one of them half deleted; data that nothing names", (_removed, _unnamed)),
)
