"""Files of users: their links are followed, and what fails leaves nothing beside them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from engine.api import Engine
from engine.data.model import Status
from engine.errors import Conflict, DiskwrightError, NoSpace
from engine.verbs import export
from tests.crash.kit import SIZE, MiB, write
from tests.engine.kit import state_of


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory for what is exported."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def disk(engine: Engine) -> str:
    disk = engine.create_virtual_disk("a", SIZE)
    write(engine, "a", disk, "write -P 5 0 1M")
    return disk


@pytest.mark.parametrize(
    "error", [NoSpace("the target is full"), OSError(errno.EIO, "made up"), KeyboardInterrupt()], ids=str
)
def test_an_export_that_fails_leaves_nothing(engine, disk, place, monkeypatch, error):
    """No room, an error of reading, Ctrl-C: all that it wrote is gone, and what others have there stays."""
    strangers = place / "x.raw.partial"
    strangers.write_text("precious")

    def failing(*arguments: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(export, "_fill", failing)
        with pytest.raises((DiskwrightError, KeyboardInterrupt)):
            engine.export_image("a", disk, str(place / "x.raw"), "raw")
    assert os.listdir(place) == ["x.raw.partial"]
    engine.export_image("a", disk, str(place / "x.raw"), "raw")
    assert sorted(os.listdir(place)) == ["x.raw", "x.raw.partial"]
    assert strangers.read_text() == "precious"


def test_what_a_killed_export_left_goes_with_the_next_one(engine, disk, place):
    """Only under the very name that an export gives, and of that target; others' files stay."""
    dead = place / f"x.raw.{'ab' * 16}.partial"
    others = [place / f"y.raw.{'ab' * 16}.partial", place / "x.raw.old.partial"]
    for path in (dead, *others):
        path.write_text("half")
    engine.export_image("a", disk, str(place / "x.raw"), "raw")
    assert sorted(place.iterdir()) == sorted([place / "x.raw", *others])


def test_an_export_into_a_linked_directory(engine, disk, place, tmp_path):
    """The link is followed; the last name must still be free, and a dangling link is not."""
    (tmp_path / "linked").symlink_to("out")
    engine.export_image("a", disk, str(tmp_path / "linked" / "x.raw"), "raw")
    assert (place / "x.raw").read_bytes()[:MiB] == b"\5" * MiB
    (place / "taken").symlink_to("nowhere")
    with pytest.raises(DiskwrightError, match="already"):
        engine.export_image("a", disk, str(place / "taken"), "raw")


@pytest.mark.parametrize("format", ["raw", "qcow2", "vdi"])
def test_an_export_writes_into_no_other_file(engine, disk, place, tmp_path, monkeypatch, format):
    """Who owns the directory can put a link in the place of the unfinished file: nothing is written where it leads,
    and the link does not become the export."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine" * 4096)
    real = export._make_empty

    def swapped(*arguments):
        (partial,) = place.glob("*.partial")
        os.rename(partial, tmp_path / "away")
        os.symlink(victim, partial)
        real(*arguments)

    monkeypatch.setattr(export, "_make_empty", swapped)
    with pytest.raises(Conflict, match="something else took the place"):
        engine.export_image("a", disk, str(place / "x"), format)
    assert victim.read_bytes() == b"mine" * 4096
    assert not list(place.iterdir())


def test_an_export_with_a_very_long_name(engine, disk, place):
    """A name as long as the file system allows has room for no ending."""
    engine.export_image("a", disk, str(place / ("ü" * 127)), "raw")
    assert os.listdir(place) == ["ü" * 127]


def test_an_import_follows_the_link_and_keeps_to_the_file(engine, tmp_path):
    """``latest`` is what it was when the import began, even if it is another file by the time that it goes on."""
    for name, byte in (("monday", b"1"), ("tuesday", b"2")):
        (tmp_path / name).write_bytes(byte * MiB)
    latest = tmp_path / "latest"
    latest.symlink_to("monday")
    image = engine.import_image("a", str(latest), "raw", options={"auto_fix": False})
    latest.unlink()
    latest.symlink_to("tuesday")
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    assert state_of(engine, "a", image) == Status.OPTIMIZED
    engine.export_image("a", image, str(tmp_path / "again"), "raw")
    assert (tmp_path / "again").read_bytes() == b"1" * MiB
