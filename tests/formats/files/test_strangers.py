"""Files of strangers in a repository of files: names, kinds, volumes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from engine.data.model import VolumeFormat
from engine.errors import Damaged
from tests.formats.files.kit import write
from tests.formats.kit import (
    SIZE,
    T1,
    T2,
    V1,
    V2,
    LocalStorage,
    qcow2,
    raw,
)

FOREIGN_NAMES = [
    "notes.txt",
    "tags/notes",
    "tags/zz/x",
    f"tags/11/{T1}",
    f"tags/11/{T1}.{0:016x}",
    f"tags/11/{T1}.{1:015x}",
    f"tags/11/{T1}.{'A' * 16}",
    f"tags/22/{T1}.{1:016x}",
    f"tags/11/{T1}.{1:016x}\n",
    "tags/11/.nfs000000000001",
    "volumes/notes",
    f"volumes/aa/{V1}",
    f"volumes/aa/{V1}.vmdk",
    f"volumes/bb/{V1}.raw",
    "volumes/aa/.nfs000000000001",
    f"progress/{T1}",
    f"progress/{T1}.01",
    f"progress/{T1}.-1",
    "digests/notes",
    f"digests/{V1}.tmp",
    "tmp/notes",
    f"tmp/{T1}",
    "tmp/.nfs000000000001",
    f"lost/{V1}",
    "lost/.nfs000000000001",
]

MAKERS: list[Callable[[str], object]] = [
    os.mkdir,
    os.mkfifo,
    lambda path: os.symlink("/etc/passwd", path),
    lambda path: os.symlink("nowhere", path),
]
MAKER_NAMES = ["directory", "fifo", "symlink", "dangling-symlink"]


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_file_of_a_wrong_name_is_foreign(local: LocalStorage, name: str):
    """It is reported with the room it takes, is nobody's image or volume, and is never removed."""
    repository = local.open()
    write(local, name, b"x" * 5000)
    scan = repository.scan()
    top = "/".join(name.split("/")[:2]) if name.startswith("tags/zz") else name
    assert [(item.kind, item.name) for item in scan.litter] == [("foreign", top)]
    assert scan.litter[0].size >= 4096
    assert not scan.tags and not scan.volumes
    assert repository.litter.remove(scan.litter) == 0
    assert os.path.lexists(f"{local.path}/{name}")


@pytest.mark.parametrize("make", MAKERS, ids=MAKER_NAMES)
@pytest.mark.parametrize(
    "name",
    [
        "locks2",
        "tags/11",
        f"tags/11/{T1}.{1:016x}",
        "volumes/aa",
        f"volumes/aa/{V1}.raw",
        f"progress/{T1}.1",
        f"digests/{V1}",
        f"tmp/{T1}-record",
        f"lost/{V1}.raw",
    ],
)
def test_what_is_no_regular_file_is_foreign(local: LocalStorage, make: Callable[[str], object], name: str):
    """Links, FIFOs and directories under names of ours are neither followed, opened nor offered for removal."""
    repository = local.open()
    os.makedirs(f"{local.path}/{os.path.dirname(name)}", exist_ok=True)
    make(f"{local.path}/{name}")
    is_shard = name in {"tags/11", "volumes/aa"} and make is os.mkdir
    scan = repository.scan()
    assert [(item.kind, item.name) for item in scan.litter] == ([] if is_shard else [("foreign", name)])
    assert not scan.tags and not scan.volumes
    for kind in ("temporary", "old-generation", "progress", "digest", "lost"):
        assert repository.litter.remove([item._replace(kind=kind) for item in scan.litter]) == 0
    assert os.path.lexists(f"{local.path}/{name}")


def test_names_that_are_not_utf8_are_told_in_letters_that_print(local: LocalStorage):
    """A foreign name of wild bytes is shown escaped, so that it can go into JSON."""
    with open(os.fsencode(local.path) + b"/tmp/\xff\xfe\x1b", "wb"):
        pass
    (item,) = local.open().scan().litter
    assert item.kind == "foreign"
    assert json.loads(json.dumps(item.name).encode("utf-8")) == item.name == "tmp/\\xff\\xfe\x1b"
    item.name.encode("utf-8")


def test_of_two_formats_of_one_volume_one_is_foreign(local: LocalStorage):
    """A volume has one format: a second file of that id is not silently merged with the first."""
    repository = local.open()
    repository.volumes.make(raw(V1), SIZE, None)
    repository.volumes.make(qcow2(V1), SIZE, None)
    scan = repository.scan()
    assert len(scan.volumes) == 1
    assert [item.kind for item in scan.litter] == ["foreign"]


@pytest.mark.parametrize("make", MAKERS, ids=MAKER_NAMES)
@pytest.mark.parametrize("format", list(VolumeFormat))
def test_a_volume_that_is_no_regular_file_is_refused(
    local: LocalStorage, make: Callable[[str], object], format: VolumeFormat
):
    """volume_facts tells the problem without following or blocking; layer refuses to hand it to a tool."""
    repository = local.open()
    repository.volumes.make(raw(V2), SIZE, None)
    os.makedirs(f"{local.path}/volumes/aa")
    make(f"{local.path}/volumes/aa/{V1}.{format}")
    facts = repository.volumes.facts(V1, format)
    assert facts.present and "not a file" in facts.problem and not facts.unreadable
    with pytest.raises(Damaged, match="not a file"):
        repository.volumes.layer(raw(V1)._replace(format=format))


@pytest.mark.parametrize("length", [0, 1, 71, 100, 4095, 4096, 5000])
def test_a_short_or_wild_qcow2_header_is_a_problem(local: LocalStorage, length: int):
    """Whatever a qcow2 volume holds, it is a problem in words and not an exception."""
    write(local, f"volumes/aa/{V1}.qcow2", b"QFI\xfb" + b"\xff" * length)
    facts = local.open().volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.present and facts.problem and not facts.unreadable and facts.header is None


def test_a_header_that_needs_more_than_a_page_is_read(local: LocalStorage):
    """A backing name behind the first 4 KiB is legal, so more is read before a verdict."""
    repository = local.open()
    repository.volumes.make(qcow2(V1, T2), SIZE, VolumeFormat.RAW)
    with open(f"{local.path}/volumes/aa/{V1}.qcow2", "r+b") as file:
        file.seek(8)
        file.write((8192).to_bytes(8, "big") + (3).to_bytes(4, "big"))
        file.seek(8192)
        file.write(b"far")
    facts = repository.volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.header is not None and facts.backing_name == "far"
