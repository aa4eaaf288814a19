"""The header of a repository on LVM: one page of the two may be lost, and what newer programs wrote stays."""

from __future__ import annotations

import json
from typing import cast

import pytest

from engine.errors import Refused, StorageError
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.pages import PAGE_BYTES, Stamp, seal
from engine.formats.lvm.repository import LvmRepository
from tests.formats.kit import T1, LvmStorage, record
from tests.formats.lvm.kit import FileHandle


@pytest.fixture
def lvm(tmp_path) -> LvmStorage:
    """A repository on a group of files, made and managed by host-1, with a header on both pages."""
    storage = LvmStorage(tmp_path)
    repository = on(storage)
    repository._meta.write_header(repository._meta.header())
    repository.tags.publish(record(), 0)
    repository.close()
    return storage


def on(lvm: LvmStorage) -> LvmRepository:
    return cast(LvmRepository, lvm.open())


def path(lvm: LvmStorage) -> str:
    return lvm.state.path(lvm.state.named("dwtest").volumes[layout.META].uuid)


def pages(lvm: LvmStorage) -> bytes:
    with open(path(lvm), "rb") as file:
        return file.read(2 * PAGE_BYTES)


def write(lvm: LvmStorage, offset: int, data: bytes) -> None:
    with open(path(lvm), "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.fixture
def bad_sectors(monkeypatch) -> set[int]:
    """Pages of the device that cannot be read."""
    bad: set[int] = set()
    real = FileHandle.read_at

    def read_at(handle: FileHandle, offset: int, length: int) -> bytes:
        if any(offset <= page * PAGE_BYTES < offset + length for page in bad):
            raise OSError(5, "Input/output error")
        return real(handle, offset, length)

    monkeypatch.setattr(FileHandle, "read_at", read_at)
    return bad


@pytest.mark.parametrize("page", [0, 1])
def test_a_header_page_that_cannot_be_read_is_done_without(lvm, bad_sectors, page):
    """The other one has the same content; check says that one is bad, and a new one is written on both."""
    bad_sectors.add(page)
    repository = on(lvm)
    assert set(repository.tags.scan()) == {T1}
    (litter,) = repository.scan().litter
    assert (litter.kind, litter.name) == ("temporary", f"dw-meta: damaged header page {page}")


def test_without_any_header_page_it_is_the_storage_that_fails(lvm, bad_sectors):
    """Not damage: nothing is known of it. Sectors that hold nothing do no harm."""
    bad_sectors |= {6, 7}
    assert on(lvm).manager.host() == "host-1"
    bad_sectors |= {0, 1}
    with pytest.raises(StorageError, match="Input/output"):
        on(lvm)


@pytest.mark.parametrize("page", [0, 1])
def test_a_damaged_header_page_is_told_and_mended_by_clean(lvm, page):
    """What it says is not lost with the other one then."""
    write(lvm, page * PAGE_BYTES, b"?" * 512)
    repository = on(lvm)
    (litter,) = repository.scan().litter
    repository.litter.remove([litter])
    assert repository.scan().litter == []
    assert repository.litter.remove([litter]) == 0
    for other in (0, 1):
        kept = pages(lvm)
        write(lvm, other * PAGE_BYTES, b"?" * 512)
        assert on(lvm).identity == repository.identity
        write(lvm, 0, kept)


def test_what_a_newer_minor_wrote_is_kept(lvm):
    """Also when this program writes the header; what would not fit any more is refused before anything is written."""
    header = on(lvm)._meta.header()
    data = json.loads(layout.encode_header(header)) | {"format": "1.7", "colour": {"of": ["the", "cover"]}}
    payload = json.dumps(data).encode()
    for page in (0, 1):
        write(lvm, page * PAGE_BYTES, seal(Stamp(header.term, 98 + page, bytes(8)), payload))
    repository = on(lvm)
    repository._guard.renew_header()
    (first, second) = (json.loads(pages(lvm)[at : at + 512][32:].rstrip(b"\0")) for at in (0, PAGE_BYTES))
    assert first == second == data
    before = pages(lvm)
    with pytest.raises(Refused, match="no room"):
        repository._meta.write_header(repository._meta.header()._replace(manager="m" * 400))
    assert pages(lvm) == before


def test_what_needs_more_than_this_program_knows_is_refused(lvm):
    """By the name of what it needs, as on files; nothing is changed."""
    header = on(lvm)._meta.header()
    payload = json.dumps(json.loads(layout.encode_header(header)) | {"needs": ["wings"]}).encode()
    for page in (0, 1):
        write(lvm, page * PAGE_BYTES, seal(Stamp(header.term, 98 + page, bytes(8)), payload))
    before = pages(lvm)
    with pytest.raises(Refused, match="needs wings, this program knows"):
        on(lvm)
    assert pages(lvm) == before
