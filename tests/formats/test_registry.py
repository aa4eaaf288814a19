"""Creating and opening repositories by the name of their format."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from engine.doors.mounts import Mount
from engine.errors import BadRequest, Conflict, Damaged, DiskwrightError, NotFound, Refused, StorageError
from engine.formats.files import layout
from engine.formats.files.ballast import BALLAST_BYTES
from engine.formats.registry import create_repository, known_formats, open_repository, parse_format
from engine.tools.nfs.mounts import NfsMounts
from tests.formats.kit import LocalStorage, SpyFiles, failing, names_below, once, real_doors, record

FORMAT = "localfs-1.0"


def create(path: object, files: SpyFiles | None = None) -> None:
    create_repository(FORMAT, {"path": path}, real_doors(files=files))


def tree(path: str) -> dict[str, str]:
    """Kind and content of everything below a directory."""
    found = {}
    for folder, folders, files in os.walk(path):
        for name in folders:
            found[os.path.relpath(f"{folder}/{name}", path)] = "directory"
        for name in files:
            with open(f"{folder}/{name}", encoding="latin-1") as file:
                found[os.path.relpath(f"{folder}/{name}", path)] = file.read()
    return found


# -- names


def test_formats_are_parsed():
    """<type>-<major>.<minor>; a newer minor of a known major is known."""
    assert parse_format("localfs-1.0") == ("localfs", 1, 0)
    assert parse_format("localfs-1.17") == ("localfs", 1, 17)
    assert FORMAT in known_formats()


@pytest.mark.parametrize(
    "format",
    [
        "",
        "localfs",
        "localfs-1",
        "localfs-1.0 ",
        "localfs-01.0",
        "LOCALFS-1.0",
        "localfs-1.0\n",
        "zfs-1.0",
        "localfs-2.0",
        7,
    ],
)
def test_unknown_formats_are_refused_and_the_known_ones_named(tmp_path: Path, format: str):
    """Whoever asks for what this program does not know is told what it does know; nothing is touched."""
    for call in (create_repository, open_repository):
        with pytest.raises(BadRequest, match=r"localfs-1\.0"):
            call(format, {"path": str(tmp_path / "r")}, real_doors())
    assert os.listdir(tmp_path) == []


def test_a_newer_minor_cannot_be_created(tmp_path: Path):
    """This program cannot make what it does not know."""
    with pytest.raises(BadRequest, match=r"localfs-1\.0"):
        create_repository("localfs-1.1", {"path": str(tmp_path / "r")}, real_doors())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"path": "/x", "extra": 1},
        {"Path": "/x"},
        {"path": "relative"},
        {"path": ""},
        {"path": "/"},
        {"path": "/a/../b"},
        {"path": "/a/./b"},
        {"path": "/a\0b"},
        {"path": "/a\udcff"},
        {"path": b"/x"},
        {"path": None},
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, object]):
    """Exactly one parameter, path: absolute, plain and UTF-8."""
    for call in (create_repository, open_repository):
        with pytest.raises(BadRequest):
            call(FORMAT, parameters, real_doors())


def test_slashes_too_many_do_not_matter(tmp_path: Path):
    """The place is named one way however it was written."""
    create(f"/{tmp_path}//r/")
    place = open_repository(FORMAT, {"path": f"{tmp_path}/r"}, real_doors()).place
    assert place == f"{tmp_path}/r" == open_repository(FORMAT, {"path": f"{tmp_path}//r//"}, real_doors()).place


# -- create


def test_what_is_created_can_be_opened(tmp_path: Path):
    """repository.json is canonical, names format and identity; directories are there; tmp is empty; room is set apart
    for what frees room."""
    create(f"{tmp_path}/r")
    repository = open_repository(FORMAT, {"path": f"{tmp_path}/r"}, real_doors())
    found = tree(f"{tmp_path}/r")
    identity = found.pop("repository.json")
    assert identity == f'{{"format":"1.0","id":"{repository.identity}","needs":["uses"]}}\n'
    assert layout.decode_copy(found.pop("repository.copy").encode()) == identity.encode()
    assert found.pop("ballast") == "\0" * BALLAST_BYTES
    assert found == dict.fromkeys(layout.DIRECTORIES, "directory") | {"locks": ""}
    assert repository.format == FORMAT


def test_creation_commits_with_its_last_step(tmp_path: Path):
    """Every name is synced before repository.json is linked, and that is synced last. Only its copy and the ballast
    come later: without them it is a repository all the same."""
    spy = SpyFiles(f"{tmp_path}/r")
    create(f"{tmp_path}/r", spy)
    assert spy.log == [
        "make_directory .",
        f"sync_directory {tmp_path}",
        *(f"make_directory {name}" for name in layout.DIRECTORIES),
        "create locks",
        "sync locks",
        "sync_directory .",
        "create tmp/*-repository",
        "write tmp/*-repository",
        "sync tmp/*-repository",
        "link tmp/*-repository repository.json",
        "sync_directory .",
        "unlink tmp/*-repository",
        "create tmp/*-repository",
        "write tmp/*-repository",
        "sync tmp/*-repository",
        "link tmp/*-repository repository.copy",
        "unlink tmp/*-repository",
        "create ballast",
        "write ballast",
        "sync ballast",
    ]


def test_a_creation_that_was_interrupted_anywhere_is_completed(tmp_path: Path):
    """Stop at the n-th effect, for every n: there is no repository then, or a whole one; creating again makes
    it whole, and an interrupted one never counts as one."""
    stopped = 0
    for limit in range(100):
        path = f"{tmp_path}/r{limit}"
        spy = SpyFiles(path)

        def stop(verb: str, name: str, spy: SpyFiles = spy, limit: int = limit) -> None:
            if len(spy.log) >= limit:
                raise KeyboardInterrupt  # nothing is cleaned up afterwards either: unlink stops too

        spy.before = stop
        try:
            create(path, spy)
        except KeyboardInterrupt:
            stopped += 1
        else:
            break
        whole = "repository.json" in (os.listdir(path) if os.path.isdir(path) else [])
        if not whole:
            with pytest.raises(NotFound):
                open_repository(FORMAT, {"path": path}, real_doors())
            create(path)
        else:
            with pytest.raises(Conflict):
                create(path)
        assert open_repository(FORMAT, {"path": path}, real_doors()).scan().tags == {}
    assert stopped == 25


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("verb", ["make_directory", "create", "write", "sync", "link", "sync_directory"])
def test_a_creation_that_fails_says_so(tmp_path: Path, verb: str, number: int):
    """Storage errors are StorageError, and creating again completes it."""
    spy = SpyFiles(f"{tmp_path}/r")
    spy.before = failing(verb, number)
    with pytest.raises(StorageError):
        create(f"{tmp_path}/r", spy)
    create(f"{tmp_path}/r")


def test_of_two_creators_one_wins(tmp_path: Path):
    """Both see an empty directory: the link of repository.json decides, the other is told."""
    spy = SpyFiles(f"{tmp_path}/r")
    spy.before = once("link", lambda: create(f"{tmp_path}/r"))
    with pytest.raises(Conflict):
        create(f"{tmp_path}/r", spy)
    assert os.listdir(f"{tmp_path}/r/tmp") == []
    open_repository(FORMAT, {"path": f"{tmp_path}/r"}, real_doors())


def test_a_lost_reply_to_the_last_step_is_a_success(tmp_path: Path):
    """As on NFS: EEXIST for our own link."""
    spy = SpyFiles(f"{tmp_path}/r")
    spy.after = failing("link", errno.EEXIST)
    create(f"{tmp_path}/r", spy)
    open_repository(FORMAT, {"path": f"{tmp_path}/r"}, real_doors())


def test_an_empty_directory_becomes_a_repository(tmp_path: Path):
    """The directory may be there already when it is empty."""
    (tmp_path / "r").mkdir()
    create(f"{tmp_path}/r")
    open_repository(FORMAT, {"path": f"{tmp_path}/r"}, real_doors())


@pytest.mark.parametrize(
    "name",
    ["notes", "tags", "locks/x", "tags/11/x", "volumes/aa/x", "lost/x", "progress/x", "digests/x", "repository.json"],
)
def test_a_directory_with_other_things_is_left_alone(tmp_path: Path, name: str):
    """Whatever is there and is not the empty beginning of a repository is a Conflict, untouched."""
    file = tmp_path / "r" / name
    file.parent.mkdir(parents=True)
    file.write_text("precious")
    before = tree(f"{tmp_path}/r")
    with pytest.raises(Conflict):
        create(f"{tmp_path}/r")
    assert tree(f"{tmp_path}/r") == before


def test_a_repository_is_not_created_over(local: LocalStorage):
    """Creating where one is: Conflict, and it stays."""
    local.open().tags.publish(record(), 0)
    before = tree(local.path)
    with pytest.raises(Conflict, match="already"):
        create(local.path)
    assert tree(local.path) == before


def test_a_repository_that_lost_its_identity_is_not_created_over(local: LocalStorage):
    """With data and without repository.json: Conflict, because a new identity would disown the data."""
    local.open().tags.publish(record(), 0)
    os.unlink(f"{local.path}/repository.json")
    with pytest.raises(Conflict, match="there is a repository"):
        create(local.path)
    os.unlink(f"{local.path}/repository.copy")
    with pytest.raises(Conflict, match="tags is not empty"):
        create(local.path)
    with pytest.raises(NotFound, match=r"repository\.json"):
        local.open()


def test_the_parent_must_exist(tmp_path: Path):
    """Only one directory is made."""
    with pytest.raises(NotFound, match=f"{tmp_path}/a"):
        create(f"{tmp_path}/a/r")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_a_place_that_is_no_directory_is_refused(tmp_path: Path, kind: str):
    """A file, or a link to a directory, is neither created in nor opened."""
    path = tmp_path / "r"
    if kind == "file":
        path.write_text("")
    else:
        (tmp_path / "d").mkdir()
        path.symlink_to("d")
    with pytest.raises(Conflict):
        create(str(path))
    with pytest.raises(BadRequest):
        open_repository(FORMAT, {"path": str(path)}, real_doors())


# -- open


def test_nothing_there_is_not_found(tmp_path: Path):
    """No directory, or an empty one, is no repository."""
    for path in (f"{tmp_path}/none", str(tmp_path)):
        with pytest.raises(NotFound, match=path):
            open_repository(FORMAT, {"path": path}, real_doors())


def test_opening_changes_nothing(local: LocalStorage, spy: SpyFiles):
    """open has no effect on the storage."""
    local.open(spy).close()
    assert spy.log == []


@pytest.mark.parametrize("name", [*layout.DIRECTORIES, "locks"])
@pytest.mark.parametrize("how", ["symlink", "fifo"])
def test_a_replaced_part_is_named(local: LocalStorage, name: str, how: str):
    """A directory or the lock file that is something else: Damaged with its path."""
    path = f"{local.path}/{name}"
    os.rename(path, f"{local.path}.{name}")
    if how == "symlink":
        os.symlink(f"{local.path}.{name}", path)
    else:
        os.mkfifo(path)
    with pytest.raises(Damaged, match=path):
        local.open()


def test_without_the_records_nothing_is_opened(local: LocalStorage):
    """The directory of all records is named, and never made again."""
    os.rename(f"{local.path}/tags", f"{local.path}.tags")
    with pytest.raises(Damaged, match=f"{local.path}/tags .* held the records of all images"):
        local.open()
    assert not os.path.lexists(f"{local.path}/tags")


@pytest.mark.parametrize("name", ["volumes", "progress", "digests", "tmp", "lost", "locks", "repository.json"])
def test_a_missing_part_is_told_and_made_again(local: LocalStorage, name: str):
    """The repository opens and is the same; the scan names what is missing, and nothing else is changed."""
    identity, before = local.open().identity, tree(local.path)
    (os.rmdir if name in layout.DIRECTORIES else os.unlink)(f"{local.path}/{name}")
    repository = local.open()
    assert repository.identity == identity
    assert [part.name for part in repository.scan().missing] == [name]
    assert not os.path.lexists(f"{local.path}/{name}") and repository.parts is not None
    repository.parts.make(name)
    assert tree(local.path) == before and not repository.scan().missing


@pytest.mark.parametrize("name", ["repository.json", "repository.copy"])
@pytest.mark.parametrize("at", [0, 11, 30, -3])
def test_one_copy_of_the_identity_may_be_damaged_anywhere(local: LocalStorage, name: str, at: int):
    """The other one counts, which is told by its checksum."""
    identity, before = local.open().identity, tree(local.path)
    with open(f"{local.path}/{name}", "r+b") as file:
        raw = bytearray(file.read())
        raw[at] ^= 1
        file.seek(0)
        file.write(raw)
    repository = local.open()
    assert repository.identity == identity and [part.name for part in repository.scan().missing] == [name]
    assert repository.parts is not None
    repository.parts.make(name)
    assert tree(local.path) == before and not repository.scan().missing


def test_a_repository_without_a_copy_gets_one_at_the_first_change(local: LocalStorage):
    """As older programs have made it; nothing is missing before."""
    before = tree(local.path)
    os.unlink(f"{local.path}/repository.copy")
    repository = local.open()
    assert not repository.scan().missing
    repository.tags.publish(record(), 0)
    assert tree(local.path)["repository.copy"] == before["repository.copy"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"7",
        b'{"format":1.0,"identity":"%s"}' % (b"1" * 32),
        b'{"format":"1.0"}',
        b'{"format":"1.0","identity":"../../../../etc/passwd"}',
        b'{"format":"1.0","identity":7}',
        b'{"format":"1","identity":"%s"}' % (b"1" * 32),
        b"[" * 60000,
        b" " * 70000,
    ],
)
def test_a_wild_identity_is_damage(local: LocalStorage, content: bytes):
    """Whatever repository.json holds, the error names it and nothing is written."""
    with open(f"{local.path}/repository.json", "wb") as file:
        file.write(content)
    os.unlink(f"{local.path}/repository.copy")
    before = names_below(local.path)
    with pytest.raises(Damaged, match=r"repository\.json"):
        local.open()
    assert names_below(local.path) == before


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/hostname", path)])
def test_an_identity_that_is_no_file_is_damage(local: LocalStorage, make):
    """A link, FIFO or directory in its place is not followed and does not block."""
    os.unlink(f"{local.path}/repository.json")
    os.unlink(f"{local.path}/repository.copy")
    make(f"{local.path}/repository.json")
    with pytest.raises(Damaged, match=r"repository\.json"):
        local.open()


def _set_format(local: LocalStorage, version: str) -> None:
    with open(f"{local.path}/repository.json", encoding="utf-8") as file:
        data = json.load(file)
    with open(f"{local.path}/repository.json", "w", encoding="utf-8") as file:
        json.dump({**data, "format": version, "comes-later": {"a": 1}}, file)
    os.unlink(f"{local.path}/repository.copy")


def test_a_newer_minor_on_disk_is_accepted_as_it_is(local: LocalStorage):
    """The repository opens, shows the version on disk, and its repository.json stays as it was."""
    _set_format(local, "1.9")
    before = tree(local.path)["repository.json"]
    repository = local.open()
    assert repository.format == "localfs-1.9"
    repository.tags.publish(record(), 0)
    assert tree(local.path)["repository.json"] == before


@pytest.mark.parametrize("version", ["2.0", "0.9", "99.1"])
def test_another_major_on_disk_is_refused_untouched(local: LocalStorage, version: str):
    """Refused with both versions named, and nothing changes."""
    _set_format(local, version)
    before = tree(local.path)
    with pytest.raises(Refused, match=version):
        local.open()
    assert tree(local.path) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("verb", ["list", "read"])
def test_what_cannot_be_read_now_is_a_storage_error(local: LocalStorage, spy: SpyFiles, verb: str, number: int):
    """Unknown is neither damaged nor absent."""
    spy.before = failing(verb, number)
    with pytest.raises(DiskwrightError) as caught:
        local.open(spy)
    assert type(caught.value) is StorageError


# -- on whose file system


class OnType(NfsMounts):
    """Every path is on a file system of that type."""

    def __init__(self, type: str) -> None:
        super().__init__(())
        self.type = type

    def holding(self, path: str) -> Mount | None:
        return Mount("there", "/", self.type, ("rw",))


@pytest.mark.parametrize("type", ["nfs4", "nfs", "cifs", "9p", "virtiofs", "fuse.sshfs", "ceph", "gfs2"])
def test_a_file_system_of_many_hosts_is_refused_as_local(local: LocalStorage, tmp_path: Path, type: str):
    """By its name, for making and for opening; nothing is made. The operator may say that one host alone uses it."""
    doors = real_doors(mounts=OnType(type))
    with pytest.raises(BadRequest, match=f"is on {type} ") as caught:
        open_repository(FORMAT, {"path": local.path}, doors)
    assert "one_host=yes" in caught.value.next_step and ("nfs-1.0" in caught.value.next_step) == (type[:3] == "nfs")
    with pytest.raises(BadRequest, match=f"is on {type} "):
        create_repository(FORMAT, {"path": f"{tmp_path}/new"}, doors)
    assert not os.path.exists(f"{tmp_path}/new")
    create_repository(FORMAT, {"path": f"{tmp_path}/new", "one_host": "yes"}, doors)
    open_repository(FORMAT, {"path": f"{tmp_path}/new", "one_host": "yes"}, doors)
    with pytest.raises(BadRequest, match="one_host"):
        open_repository(FORMAT, {"path": local.path, "one_host": "no"}, doors)


@pytest.mark.parametrize("type", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk"])
def test_a_file_system_of_this_host_is_taken(local: LocalStorage, type: str):
    """Also one behind FUSE that is on a disk of this host."""
    assert open_repository(FORMAT, {"path": local.path}, real_doors(mounts=OnType(type))).tags.scan() == {}
