"""A repository on a storage that is mounted read-only: what is there can be looked at and taken away."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from engine.data.model import Status
from engine.errors import StorageError
from tests.crash.kit import SIZE, MiB, World, write


@pytest.fixture
def read_only(world: World, monkeypatch: pytest.MonkeyPatch):
    """A call that makes the storage read-only, as the kernel says it of a mount: whoever opens for writing fails."""
    real = {name: getattr(os, name) for name in ("open", "mkdir", "link", "rename", "unlink")}

    def opened(path, flags, *rest, **named):
        if str(path).startswith(str(world.root)) and flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real["open"](path, flags, *rest, **named)

    def refused(name):
        def call(path, *rest, **named):
            if str(path).startswith(str(world.root)):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
            return real[name](path, *rest, **named)

        return call

    def mount():
        monkeypatch.setattr(os, "open", opened)
        for name in ("mkdir", "link", "rename", "unlink"):
            monkeypatch.setattr(os, name, refused(name))

    return mount


def test_reading_needs_no_write(world: World, read_only, tmp_path: Path):
    """check, status and export work; what would change something says that the storage is read-only."""
    with closing(world.engine("host-a")) as engine:
        disk = engine.create_virtual_disk("a", SIZE)
        write(engine, "a", disk, "write -P 5 0 1M")
        snapshot = engine.create_snapshot("a", disk)
    with closing(world.engine("host-a")) as engine:
        read_only()
        assert engine.check_storage_repository("a") == []
        assert engine.get_image_status("a", snapshot).status == Status.OPTIMIZED
        engine.export_image("a", disk, str(tmp_path / "out.raw"), "raw")
        assert (tmp_path / "out.raw").read_bytes()[:MiB] == b"\5" * MiB
        with pytest.raises(StorageError, match="EROFS") as caught:
            engine.create_virtual_disk("a", SIZE)
        assert caught.value.next_step.startswith("Mount it for writing")
