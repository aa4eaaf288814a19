"""What strangers, failing storage and wrong arguments once did: tracebacks, lost leases, files of the host opened."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from engine.assembly import real_doors
from engine.data.model import MAX_USER_DATA_BYTES, Fix, Status
from engine.data.records import MAX_USER_DATA_DEPTH
from engine.errors import BadRequest, Damaged, DiskwrightError, ImageBusy, ReadFailed, ToolFailed
from engine.formats.files import layout
from engine.formats.files.localfs import LocalRepository
from engine.survey import survey
from engine.tools.local.files import RealFiles
from engine.tools.qemu import nbd
from engine.triage.judge import judge
from tests.crash.kit import MiB, settle
from tests.engine.kit import FAST, NO_FIX, copied, fixes, record, run, snapshotted, state_of, volume_of


def record_file(world: Any, repo: str, image: str) -> Path:
    return Path(max((world.root / repo / "tags").glob(f"*/{image}.*")))


def rewrite(world: Any, image: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change fields of a record as a stranger would: the checksum is right."""
    path = record_file(world, "a", image)
    data = json.loads(path.read_bytes().split(b"\n", 1)[1])
    change(data)
    body = json.dumps(data).replace('"INFINITE"', "1e999").encode()
    path.write_bytes(b"dw1 %d %s\n%s\n" % (len(body), blake2b(body, digest_size=16).hexdigest().encode(), body))


# -- prepare


def test_an_image_that_names_a_data_file_is_not_prepared(engine, world, tmp_path):
    """qemu would open whatever file of the host its header names, and write into it."""
    disk = engine.create_virtual_disk("a", MiB)
    secret, hostile = tmp_path / "secret", tmp_path / "hostile.qcow2"
    options = f"data_file={secret},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(hostile), "1M"], check=True)
    volume_of(world, engine, "a", disk).write_bytes(hostile.read_bytes())
    with pytest.raises(Damaged, match="data file"):
        engine.prepare_image("a", disk)
    assert not engine.context.repository("a").leases.held(disk)


def test_a_short_volume_is_not_prepared_above_or_alone(engine, world):
    """Each layer is looked at, not only the first."""
    disk = engine.create_virtual_disk("a", 8 * MiB, options=FAST)
    snapshot = engine.create_snapshot("a", disk)
    os.truncate(volume_of(world, engine, "a", snapshot), MiB)
    for image, writable in ((disk, True), (disk, False), (snapshot, False)):
        with pytest.raises(Damaged, match="1048576 of 8388608"):
            engine.prepare_image("a", image, writable)


def test_a_size_that_no_file_can_have_is_refused_before_anything_is_committed(engine):
    """The limit is the repository's."""
    with pytest.raises(BadRequest, match="over the"):
        engine.create_virtual_disk("a", 1 << 52)
    assert engine.list_images("a") == []


def test_an_import_and_a_copy_larger_than_the_repository_can_hold_are_refused(engine, monkeypatch, tmp_path):
    """As a new disk of that size is: nothing could ever finish them."""
    disk = engine.create_virtual_disk("a", 2 * MiB)
    (tmp_path / "x.raw").write_bytes(bytes(2 * MiB))
    can = engine.context.repository("b").constraints()
    monkeypatch.setattr(LocalRepository, "constraints", lambda self: can._replace(max_image_bytes=MiB))
    with pytest.raises(BadRequest, match="over the 1048576"):
        engine.copy_image("b", disk)
    with pytest.raises(BadRequest, match="over the 1048576"):
        engine.import_image("b", str(tmp_path / "x.raw"), "raw")
    assert engine.list_images("b") == []


# -- edited fixes


def test_an_edited_fix_does_not_run_without_the_leases_it_needs(engine):
    """Its identity is right, but it no longer says which image it is about."""
    disk = engine.create_virtual_disk("a", 4 * MiB)
    prepared = engine.prepare_image("a", disk)
    engine.set_strategy("a", disk, "performance")
    view = survey.look(engine.context, engine.context.repository("a"))
    (honest,) = (fix for fix in judge(view).fixes if fix.rule == "O-FORMAT")
    with pytest.raises(ImageBusy):
        engine.run_fix_here("a", honest)
    for edit in ({"target": "", "images": []}, {"plan": {"keep": 1}}, {"rule": "C-LITTER", "target": "", "images": []}):
        with pytest.raises(DiskwrightError):
            engine.run_fix_here("a", Fix.from_json(honest.to_json() | edit))
    assert os.path.exists(os.path.realpath(prepared.path))
    engine.teardown_image("a", disk)


# -- records that are none, and directories that cannot be listed


@pytest.mark.parametrize("stray", ["tombstone", "generation"])
def test_a_stray_file_among_the_records_stops_no_clean(engine, world, stray):
    """Bytes in a tombstone mean nothing; a generation that nobody can have written is foreign."""
    gone, other = (engine.create_virtual_disk("a", MiB) for _ in range(2))
    for disk in (gone, other):
        engine.remove_image("a", disk)
    run(engine, "a", "C-REMOVED", gone)
    if stray == "tombstone":
        record_file(world, "a", gone).write_bytes(b"x")
    else:
        shard = world.root / "a" / "tags" / "ab"
        shard.mkdir(exist_ok=True)
        (shard / f"{'ab' * 16}.ffffffffffffffff").write_bytes(b"x")
    run(engine, "a", "C-REMOVED", other)
    assert fixes(engine, "a") == []


def test_no_volume_is_called_unnamed_while_a_record_cannot_be_understood(engine, world, monkeypatch):
    """It may be that record which names it. Nor is anything deleted that it may need, or begun to be."""
    first = engine.create_virtual_disk("a", MiB)
    removed = engine.create_snapshot("a", first)
    disk = engine.create_virtual_disk("a", MiB, removed)
    engine.remove_image("a", first)
    run(engine, "a", "C-REMOVED", first)
    engine.remove_image("a", removed)
    path = record_file(world, "a", disk)
    raw = path.read_bytes()
    path.write_bytes(raw[:-5] + b"?" + raw[-4:])
    assert {fix.rule for fix in fixes(engine, "a")} == {"B-RECORD", "C-REMOVED"}
    (clean,) = fixes(engine, "a", "C-REMOVED")
    assert disk in clean.waits_for
    with pytest.raises(DiskwrightError):
        engine.run_fix_here("a", clean)
    engine.restore_image("a", removed)
    path.write_bytes(raw)
    original = RealFiles.read_file

    def unreadable(files: RealFiles, path: str, limit: int) -> bytes:
        if f"/tags/{disk[:2]}/" in path:
            raise OSError(errno.EIO, "bad", path)
        return original(files, path, limit)

    monkeypatch.setattr(RealFiles, "read_file", unreadable)
    report = engine.inspect_repository("a")
    assert {image.id: image.status for image in report.images}[disk] == Status.UNKNOWN
    assert report.fixes == ()


@pytest.mark.parametrize("kind", ["tags", "volumes"])
def test_a_directory_that_cannot_be_listed_hides_only_what_is_in_it(engine, monkeypatch, kind):
    """It is named as unknown, what stands on it is unknown, the rest is judged and mended, nothing is deleted."""
    disk, snapshot = snapshotted(engine, 2 * MiB, above="")
    removed = engine.create_virtual_disk("a", MiB)
    engine.remove_image("a", removed)
    waiting = engine.create_virtual_disk("a", MiB, options=NO_FIX)
    while waiting[:2] == snapshot[:2] or disk[:2] == snapshot[:2]:
        disk, snapshot = snapshotted(engine, 2 * MiB, above="")
    volume = record(engine, "a", snapshot).volume
    assert volume is not None
    shard = f"{kind}/{snapshot[:2] if kind == 'tags' else volume.id[:2]}"
    original = RealFiles.list_directory

    def listed(files: RealFiles, path: str, having: str = "") -> Any:
        if path.endswith(f"/a/{shard}"):
            raise OSError(errno.EIO, "bad", path)
        return original(files, path, having)

    with monkeypatch.context() as patch:
        patch.setattr(RealFiles, "list_directory", listed)
        report = engine.inspect_repository("a")
        assert [(f.kind, f.subject) for f in report.findings if f.subject == shard] == [("unknown", shard)]
        assert [(fix.rule, fix.target) for fix in report.fixes] == [("B-CREATE", waiting)]
        found = {image.id: image.status for image in report.images}
        assert found[disk] == (Status.UNKNOWN if kind == "tags" else Status.OPTIMIZED)
        if kind == "tags":
            assert found[snapshot] == Status.UNKNOWN, "it has not vanished: the disk is based on it"
            assert "EIO" in engine.get_image_status("a", snapshot).reason
        run(engine, "a", "B-CREATE")
        assert state_of(engine, "a", waiting) == Status.OPTIMIZED
    settle(engine, "a")
    assert state_of(engine, "a", disk) == Status.OPTIMIZED


# -- tools that cannot start, and servers that are short of something


def test_a_tool_that_cannot_start_makes_nothing_broken(engine, monkeypatch):
    """A deep check says that it could not look; no mend is offered on that."""
    _, snapshot = snapshotted(engine, 2 * MiB, above="")
    copied(engine, "b", snapshot)
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    report = engine.inspect_repository("a", {"deep": True})
    assert {image.status for image in report.images} == {Status.OPTIMIZED}
    assert report.fixes == ()
    assert [finding.subject for finding in report.findings if "more deeply" in finding.text] == [snapshot]


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, ReadFailed), (errno.ENOMEM, ToolFailed), (errno.ESHUTDOWN, ToolFailed)]
)
def test_only_what_is_about_the_data_counts_as_unreadable_data(code, kind):
    """A server without memory has not lost a byte: salvage would call everything behind it lost."""
    session = nbd.NbdSession.__new__(nbd.NbdSession)
    session._label, session._unanswered = "x", False
    error = session._failure(nbd._Request(nbd._Kind.READ, 0, 512), code)
    assert type(error) is kind


# -- no tracebacks

CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "infinite range": lambda data: data.update(lost=[["INFINITE", 1]]),
    "no attempt": lambda data: data["operation"].update(attempt=None),
    "raw on a base": lambda data: data["operation"]["attempt"].update(format="raw", parent="a" * 32),
    "no size": lambda data: data.update(size=0),
    "largest size": lambda data: data.update(size=1 << 53),
    "digest of nothing": lambda data: data.update(size=1 << 53, mutable=False, digest="aa", whole=True, operation=None),
    "no file": lambda data: data["operation"].update(verb="import", path="/tmp/\0x", source_format="raw"),
    "no format": lambda data: data["operation"].update(verb="import", path="/tmp", source_format="odd"),
    "its own base": lambda data: data["operation"].update(base=data["id"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_record_however_odd_causes_anything_but_our_errors(engine, world, name):
    """Neither a check, also a deep one, nor the fixes that it offers."""
    disk = engine.create_virtual_disk("a", MiB, options=NO_FIX)
    rewrite(world, disk, CHANGES[name])
    for is_deep in (False, True):
        assert [image.id for image in engine.inspect_repository("a", {"deep": is_deep}).images] == [disk]
    for fix in fixes(engine, "a"):
        try:
            engine.run_fix_here("a", fix)
        except DiskwrightError as error:
            assert error.message


def test_a_progress_line_with_an_infinite_number_is_no_progress(engine, world):
    """It came from JSON, so it may hold one."""
    disk = engine.create_virtual_disk("a", MiB, options=NO_FIX)
    status = {"verb": "x", "host": "h", "stage": 1, "stages": 1, "percent": 1, "last_error": "", "when": 1, "cursor": 0}
    line = json.dumps({**status, "process": ["b", "INFINITE", 1]}).replace('"INFINITE"', "1e999").encode()
    path = world.root / "a" / "progress" / f"{disk}.{record(engine, 'a', disk).epoch}"
    path.write_bytes(layout.encode_slot(32, line))
    assert state_of(engine, "a", disk) == Status.BROKEN


@pytest.mark.parametrize("path", ["/tmp/x\0y", "/tmp/\udcffx", "relative", None, 7])
def test_a_path_that_no_file_has_is_a_bad_request(engine, path):
    """To export to and to import from."""
    disk = engine.create_virtual_disk("a", MiB)
    with pytest.raises(BadRequest):
        engine.export_image("a", disk, path, "raw")
    with pytest.raises(BadRequest):
        engine.import_image("a", path, "raw")


@pytest.mark.parametrize("host", ["h" * 65, "\U0001d525" * 17, "a/b", "a\nb"])
def test_a_host_name_that_fits_into_no_progress_line_is_refused(host):
    """At the start, not in the middle of a copy."""
    with pytest.raises(BadRequest, match="host"):
        real_doors(host)


def test_user_data_is_refused_by_depth_and_what_is_accepted_can_be_read_from_any_stack(engine):
    """A reader sixty calls deeper must not take the record for damaged."""

    def nested(levels: int) -> list[Any]:
        data: list[Any] = []
        for _ in range(levels - 1):
            data = [data]
        return data

    def deeper(levels: int) -> Any:
        return engine.get_user_data("a", disk) if not levels else deeper(levels - 1)

    disk = engine.create_virtual_disk("a", MiB)
    engine.set_user_data("a", disk, nested(MAX_USER_DATA_DEPTH))
    assert deeper(600) == nested(MAX_USER_DATA_DEPTH)
    for bad in (nested(MAX_USER_DATA_DEPTH + 1), nested(900), "x" * MAX_USER_DATA_BYTES):
        with pytest.raises(BadRequest):
            engine.set_user_data("a", disk, bad)
