"""What the format ``nfs`` does otherwise than ``localfs``: it locks what it writes, believes no cache, and mounts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.api import Engine
from engine.data.model import VolumeFormat
from engine.doors.mounts import Mount
from engine.errors import (
    BadRequest,
    Conflict,
    DiskwrightError,
    ImageBusy,
    NotFound,
    ReadFailed,
    StorageError,
    Superseded,
)
from engine.formats.files.layout import Identity
from engine.formats.nfs.place import parse
from engine.formats.nfs.repository import NfsRepository
from engine.formats.registry import open_repository
from sim.disk.files import Fault
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape
from sim.hosts.world import World
from tests.formats.kit import (
    SIZE,
    T1,
    V1,
    NfsStorage,
    PretendedMounts,
    SpyFiles,
    failing,
    once,
    raw,
    real_doors,
    record,
)

NFS = "nfs-1.0"
PLACE = {"server": "nas", "export": "/srv/exp", "directory": "main"}


@pytest.fixture
def nfs(tmp_path: Path) -> NfsStorage:
    """An empty repository in a directory that passes for one on NFS."""
    return NfsStorage(tmp_path)


@pytest.fixture
def spy(nfs: NfsStorage) -> SpyFiles:
    """A file door that logs what it does there."""
    return SpyFiles(nfs.path)


# -- who writes has it locked


def test_a_volume_is_locked_then_verified_then_written(nfs: NfsStorage, spy: SpyFiles):
    """In this order, on one descriptor: a host that loses its place after the check loses the lock with it."""
    seen: list[str] = []
    spy.before = lambda verb, name: seen.append(verb) if name.startswith("volumes/aa/") else None
    nfs.open(spy).volumes.make(raw(), SIZE, None, lambda: seen.append("VERIFIED"))
    assert seen == ["create", "lock", "VERIFIED", "truncate", "sync"]
    seen.clear()
    nfs.open(spy).volumes.make(raw(), SIZE, None, lambda: seen.append("VERIFIED"))
    assert seen == ["create", "open", "lock", "VERIFIED", "truncate", "truncate", "sync"]


def test_a_volume_that_is_there_is_never_unlinked(nfs: NfsStorage):
    """A host that wakes up late may only reach what it has locked, and a name cannot be locked."""
    repository = nfs.open()
    repository.volumes.make(raw(), SIZE, None)
    before = os.stat(repository.volumes.layer(raw()).path).st_ino
    repository.volumes.make(raw(), 2 * SIZE, None)
    assert os.stat(repository.volumes.layer(raw()).path).st_ino == before
    assert repository.volumes.facts(V1, VolumeFormat.RAW).length == 2 * SIZE


def test_a_volume_that_is_not_ours_any_more_stays_as_it_is(nfs: NfsStorage):
    """What ``verify`` raises comes through, and the finished volume of another host has its data."""
    repository = nfs.open()
    repository.volumes.make(raw(), SIZE, None)
    path = repository.volumes.layer(raw()).path
    Path(path).write_bytes(b"finished")

    def verify() -> None:
        raise Superseded("taken over")

    with pytest.raises(Superseded):
        repository.volumes.make(raw(), SIZE, None, verify)
    assert Path(path).read_bytes() == b"finished"


def test_a_volume_that_somebody_uses_is_not_made_again(nfs: NfsStorage, spy: SpyFiles):
    """ImageBusy while it is locked, whoever has it; ``verify`` is not even asked."""
    repository = nfs.open(spy)
    repository.volumes.make(raw(), SIZE, None)
    path = repository.volumes.layer(raw()).path
    with spy.open(path, writable=True) as used:
        assert used.lock()
        used.write_at(0, b"in use")
        with pytest.raises(ImageBusy, match=V1):
            repository.volumes.make(raw(), SIZE, None, lambda: pytest.fail("too late to ask"))
    assert Path(path).read_bytes()[:6] == b"in use"


# -- no cache is believed


def test_the_size_of_a_raw_volume_is_asked_of_the_server(nfs: NfsStorage, spy: SpyFiles):
    """It is that of the opened file: the attributes of a name may be remembered from before another host grew it."""
    repository = nfs.open(spy)
    repository.volumes.make(raw(), SIZE, None)
    spy.before = failing("stat", errno.EDEADLK, "volumes/")
    facts = repository.volumes.facts(V1, VolumeFormat.RAW)
    assert (facts.present, facts.length, facts.problem) == (True, SIZE, "")


def test_a_progress_log_that_was_not_there_is_asked_for_again(nfs: NfsStorage, spy: SpyFiles):
    """The client remembers that there was none; a listing makes it forget that."""
    nfs.open().progress.start(T1, 1)
    nfs.open().progress.write(T1, 1, 1, b"{}")
    listed: list[str] = []

    def negative(verb: str, name: str) -> None:
        if verb == "list" and name == "progress":
            listed.append(name)
        if verb == "open" and name.startswith("progress/") and not listed:
            raise FileNotFoundError(errno.ENOENT, "remembered", name)

    spy.before = negative
    assert nfs.open(spy).progress.read(T1, 1) == b"{}"
    assert nfs.open(spy).progress.read(T1, 2) is None


def test_a_record_that_was_replaced_under_our_eyes_is_read_anew(nfs: NfsStorage, spy: SpyFiles):
    """Another host has just removed the generation that was listed: the client says ESTALE, the next listing tells."""
    repository = nfs.open(spy)
    generation = repository.tags.publish(record(), 0)

    def replaced() -> None:
        nfs.open().tags.publish(record(epoch=5), generation)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    for look in (lambda: repository.tags.read(T1), lambda: repository.scan().tags[T1]):
        spy.before = once("read", replaced, "tags/")
        entry = look()
        assert entry is not None and entry.record is not None and entry.record.epoch == 5
        generation = nfs.open().tags.publish(record(), entry.generation)


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.ETIMEDOUT])
def test_a_link_whose_answer_was_lost_counts(nfs: NfsStorage, spy: SpyFiles, number: int):
    """The change is ours if the name has our inode, whatever the client made of the lost answer."""
    spy.after = failing("link", number, "tmp/")
    assert nfs.open(spy).tags.publish(record(epoch=3), 0)
    entry = nfs.open().tags.read(T1)
    assert entry is not None and entry.record == record(epoch=3)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.EIO])
def test_what_the_server_does_not_give_is_unknown(nfs: NfsStorage, spy: SpyFiles, number: int):
    """Records and volumes that cannot be read now are listed as unreadable; nothing is concluded."""
    repository = nfs.open()
    repository.tags.publish(record(volume=raw()), 0)
    repository.volumes.make(raw(), SIZE, None)
    spy.before = lambda verb, name: failing(verb, number, "/")(verb, name) if verb in ("read", "open", "stat") else None
    entry = nfs.open(spy).scan().tags[T1] if number == errno.EIO else nfs.open(spy).tags.read(T1)
    assert entry is not None and entry.unreadable and entry.record is None
    assert nfs.open(spy).volumes.facts(V1, VolumeFormat.RAW).unreadable


@pytest.mark.parametrize("privileged", [True, False])
def test_a_server_that_denies_root_what_is_there_is_named_so(
    nfs: NfsStorage, spy: SpyFiles, monkeypatch: pytest.MonkeyPatch, privileged: bool
):
    """Modes bind no root, so it is the server that denies it; of others nothing of the kind is said."""
    monkeypatch.setattr(spy, "privileged", lambda: privileged)
    spy.before = failing("create", errno.EACCES, "tmp/")
    with pytest.raises(StorageError) as caught:
        nfs.open(spy).tags.publish(record(), 0)
    assert ("root_squash" in caught.value.message, "no_root_squash" in caught.value.next_step) == (privileged,) * 2
    assert "EACCES" in caught.value.message


@pytest.mark.parametrize(("format", "offered"), [("localfs-1.0", True), (NFS, False)])
def test_an_error_of_reading_gives_nothing_up(monkeypatch: pytest.MonkeyPatch, format: str, offered: bool):
    """What cannot be read is unknown, with the error. On a local disk the operator may choose to salvage what can be
    read; over NFS the server may be away, or have taken the lock, and nothing is offered."""

    def unreadable(*_: object) -> None:
        raise ReadFailed("reading 65536 bytes at 0 failed: Input/output error [EIO]")

    world = World(format=format)
    world.create("main")
    engine = world.host("a")
    image = engine.create_snapshot("main", engine.create_virtual_disk("main", SIZE))
    monkeypatch.setattr("engine.survey.deep.compute", unreadable)
    report = engine.inspect_repository("main", {"deep": True})
    assert [fix.rule for fix in report.fixes if fix.target == image] == (["B-SALVAGE"] if offered else [])
    assert "unknown" in [finding.kind for finding in report.findings if "[EIO]" in finding.text]
    assert next(found for found in report.images if found.id == image).status == "unknown"


# -- a mount of the operator's


class OneMount(PretendedMounts):
    """Every path is in this mount; an automounter puts another there when somebody goes in."""

    def __init__(self, *seen: Mount | None) -> None:
        self.seen = list(seen)

    def at(self, path: str) -> Mount | None:
        return self.holding(path)

    def holding(self, path: str) -> Mount | None:
        return self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (None, "not on NFS"),
        (Mount("/dev/sda1", "/", "ext4", ("rw",)), "on ext4, not on NFS"),
        (Mount("nas:/x", "/", "nfs", ("rw", "vers=3", "local_lock=none")), "version 3"),
        (Mount("nas:/x", "/", "nfs4", ("rw", "vers=4.2", "local_lock=all")), "this host only"),
        (Mount("nas:/x", "/", "nfs4", ("rw", "nolock")), "this host only"),
    ],
)
def test_a_mount_that_leases_cannot_be_trusted_on_is_refused(nfs: NfsStorage, mount: Mount | None, words: str):
    """BadRequest that says what is wrong with it and what to mount instead."""
    with pytest.raises(BadRequest, match=words) as caught:
        open_repository(NFS, {"path": nfs.path}, real_doors(mounts=OneMount(mount)))
    assert caught.value.next_step


def test_a_read_only_mount_is_good_enough_for_reading(nfs: NfsStorage):
    """What needs to write says so when it does."""
    mount = Mount("nas:/x", "/", "nfs4", ("ro", "vers=4.2", "local_lock=none"))
    assert open_repository(NFS, {"path": nfs.path}, real_doors(mounts=OneMount(mount))).tags.scan() == {}


@pytest.mark.parametrize(
    ("mounted", "options", "told"),
    [("soft", "", True), ("hard", "hard", False), ("soft", "soft", False), ("soft", None, True), ("hard", None, False)],
)
def test_a_mount_that_is_soft_by_nobodys_choice_is_told(mounted: str, options: str | None, told: bool):
    """What a machine gets when the server is away is chosen: by an option, or by who mounted it (None)."""
    mount = Mount("nas:/srv/exp", "/mnt", "nfs4", ("rw", "vers=4.2", mounted))
    given: dict[str, object] = {"path": "/mnt"} if options is None else {**PLACE, "options": options}
    place = parse(given)
    repository = NfsRepository(real_doors(mounts=OneMount(mount)), place, Identity("1.0", "0" * 32), False, None)
    assert [("hard" in text) for text in repository.warnings()] == [True] * told


def test_an_automounter_is_woken(nfs: NfsStorage):
    """autofs at the path: it is entered once, and then the mount is looked at."""
    good = Mount("nas:/x", "/", "nfs4", ("rw", "vers=4.2"))
    seen = OneMount(Mount("auto", nfs.path, "autofs", ("rw",)), good)
    assert open_repository(NFS, {"path": nfs.path}, real_doors(mounts=seen)).place == nfs.path


# -- mounts of the engine


class Site:
    """A simulated server with one repository, and hosts."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.world.storage.make_directory("/srv/exp")
        self.engine("setup").create_repository(NFS, PLACE)

    def engine(self, host: str = "a") -> Engine:
        """In a process of its own."""
        return self.world.host(host, connect=False)

    def mounted(self, host: str = "a") -> list[str]:
        return sorted(self.world.machine(host).mounts.sources.values())


@pytest.fixture
def site() -> Site:
    return Site()


def test_an_export_is_mounted_while_it_is_connected(site: Site):
    """create-repo leaves no mount; connect makes one, under /run, and disconnect leaves none and no directory."""
    assert site.mounted("setup") == []
    engine = site.engine()
    engine.connect_storage_repository("main", NFS, PLACE)
    assert site.mounted() == ["nas:/srv/exp"]
    disk = engine.create_virtual_disk("main", SIZE)
    assert [image.id for image in engine.list_images("main")] == [disk]
    engine.disconnect_storage_repository("main")
    assert site.mounted() == []
    left = [
        path for path, _, _ in site.world.machine("a").run_storage.walk() if path.startswith("/run/diskwright/nfs/")
    ]
    assert all(path.endswith(".lock") for path in left)


def test_after_a_restart_of_the_host_the_mount_comes_back_by_itself(site: Site):
    """Nothing has to be connected again."""
    site.engine().connect_storage_repository("main", NFS, PLACE)
    site.world.bury("a")
    assert site.mounted() == []
    assert site.engine().list_images("main") == []
    assert site.mounted() == ["nas:/srv/exp"]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (PLACE | {"export": "/srv/none"}, NotFound),
        (PLACE | {"directory": "none"}, NotFound),
        (PLACE | {"directory": ""}, NotFound),
        (PLACE | {"options": "ro"}, BadRequest),
    ],
)
def test_a_connect_that_fails_leaves_no_mount(site: Site, parameters: dict[str, str], error: type[DiskwrightError]):
    """Whatever was wrong; the message names the export and not the mount point."""
    engine = site.engine()
    with pytest.raises(error) as caught:
        engine.connect_storage_repository("main", NFS, parameters)
    assert site.mounted() == [] and engine.list_repositories() == {}
    assert "/run/" not in str(caught.value)


@pytest.mark.parametrize("other", [{}, {"server": "nas.example"}, {"export": "/srv", "directory": "exp/main"}])
def test_the_same_storage_under_another_spelling_is_refused(site: Site, other: dict[str, str]):
    """Conflict naming the handle; its mount stays, that of the refused one goes."""
    engine = site.engine()
    engine.connect_storage_repository("main", NFS, PLACE)
    with pytest.raises(Conflict, match="main"):
        engine.connect_storage_repository("again", NFS, PLACE | other)
    assert site.mounted() == ["nas:/srv/exp"]
    assert engine.list_images("main") == []


def test_disconnecting_waits_for_other_commands(site: Site):
    """A repository that another process of this host has open stays connected and mounted; then it goes."""
    site.engine().connect_storage_repository("main", NFS, PLACE)
    reader, leaver = site.engine(), site.engine()
    assert reader.list_images("main") == []
    with pytest.raises(StorageError, match="another command"):
        leaver.disconnect_storage_repository("main")
    assert site.mounted() == ["nas:/srv/exp"] and "main" in leaver.list_repositories()
    reader.close()
    leaver.disconnect_storage_repository("main")
    assert site.mounted() == []


def test_two_hosts_of_one_machine_do_not_meet(site: Site):
    """Each has a mount of its own: what one disconnects, the other goes on with."""
    one, two = site.engine("a"), site.engine("b")
    for engine in (one, two):
        engine.connect_storage_repository("main", NFS, PLACE)
    disk = one.create_virtual_disk("main", SIZE)
    one.disconnect_storage_repository("main")
    assert [image.id for image in two.list_images("main")] == [disk]


def killed_at(limit: int) -> Callable[[SimProcess, str, str], Fault]:
    """A hook that kills the process at its call number ``limit``."""
    count = 0

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        nonlocal count
        count += 1
        if count > limit:
            process.kill()
        return Fault.NONE

    return hook


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_a_kill_at_any_call_leaves_nothing_that_is_unknown(verb: str):
    """Killed before each call of a door: the repository is connected, or a further connect and disconnect
    finds what is left; at the end nothing is mounted."""
    killed = 0
    for limit in range(200):
        site = Site()
        engine = site.engine()
        if verb == "disconnect":
            engine.connect_storage_repository("main", NFS, PLACE)
        site.world.process_of(engine).hook = killed_at(limit)
        try:
            if verb == "connect":
                engine.connect_storage_repository("main", NFS, PLACE)
            else:
                engine.disconnect_storage_repository("main")
        except Crashed:
            killed += 1
        after = site.engine()
        if "main" not in after.list_repositories():
            after.connect_storage_repository("main", NFS, PLACE)
        assert after.list_images("main") == []
        after.disconnect_storage_repository("main")
        assert site.mounted() == [] and after.list_repositories() == {}
        if killed <= limit:
            break
    assert killed > 10


@pytest.mark.parametrize("seed", range(12))
def test_commands_of_one_host_at_once_do_not_harm_each_other(seed: int):
    """Some work, some connect under another name, one disconnects, all at once: each succeeds or says who is in the
    way; who has the repository open never loses the mount."""
    world = World(Tape.seeded(seed))
    site = Site(world)
    site.engine().connect_storage_repository("main", NFS, PLACE)
    world.bury("a")

    def work(engine: Engine) -> int:
        disk = engine.create_virtual_disk("main", SIZE)
        engine.create_snapshot("main", disk)
        return len(engine.list_images("main"))

    workers = [world.start("a", work) for _ in range(2)]
    world.start("a", lambda engine: engine.connect_storage_repository("two", NFS, PLACE | {"server": "nas.example"}))
    leaver = world.start("a", lambda engine: engine.disconnect_storage_repository("main"))
    world.run()
    for job in workers:
        assert job.result is not None or isinstance(job.error, NotFound), job.error
    assert leaver.error is None or isinstance(leaver.error, StorageError), leaver.error
    last = site.engine()
    for name in last.list_repositories():
        last.disconnect_storage_repository(name)
    assert site.mounted() == []
