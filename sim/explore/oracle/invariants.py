"""What must hold in every state that a crash can leave (the numbers are those of the project's list).

``observe`` looks at a storage as a host that has just started does: connect, check, read every
image that is said to be usable. It returns which models fit (I1 durability, I2 atomic visibility, I3
identity, I4 status never better than truth, I6 content), what check offers, and every violation:

* I5 after all fixes there is nothing but images, what they are based on and tombstones (``leftovers``),
  and before them nothing unnamed: a volume that no record names is never made by normal work
* I10 fixes come to an end (``rank`` falls with each one)
* I11 every state can be connected, listed and checked
* I14 every chain can be followed, and every layer is a sound image
* I15 check writes nothing
* I17 who needs a tag, or a volume of another one, is entered there

I9 (the same fix again is refused and changes nothing) and I12, I13 (nothing else is touched) follow
from comparing all images after every fix. I7, I8 and the rest of I16 are for runs of several hosts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from engine.api import Engine
from engine.data.model import Fix, ImageReport, RepositoryReport, Risk, Status, VolumeFormat, WaitKind
from engine.data.records import Record, is_tombstone
from engine.data.uses import follower, named, taken_over, uses
from engine.errors import DiskwrightError
from engine.formats.files import layout
from engine.tags import chains
from engine.triage import rules
from sim.disk.content import Content
from sim.disk.nodes import DirectoryNode, FileNode
from sim.disk.storage import SimStorage
from sim.explore.cases.driver import read
from sim.explore.oracle.reference import USABLE, Found, Key, Model, fitting
from sim.hosts.processes import HOLDER
from sim.hosts.world import REPOSITORIES, World, on_server
from sim.lvm.lvm_view import as_files, disks
from sim.lvm.volume_groups import DEVICE_ROOT

_VOLUME = re.compile(r"volumes/[0-9a-f]{2}/([0-9a-f]{32})\.(?:raw|qcow2)\Z")
_TAG = re.compile(r"tags/[0-9a-f]{2}/([0-9a-f]{32})\.([0-9a-f]{16})(?:\.before)?\Z")
_USE = re.compile(r"tags/[0-9a-f]{2}/use\.([0-9a-f]{32})\.([0-9a-f]{32})\.([0-9a-f]{16})\Z")
_PROGRESS = re.compile(r"progress/([0-9a-f]{32})\.([0-9]+)\Z")
_DIGESTS = re.compile(r"digests/([0-9a-f]{32})\Z")
_REMEMBERED = 20_000
_HIDES = {rules.C_UNNAMED: 1, rules.O_GROWN: 4, rules.O_WRITTEN: 4}
"""So many fixes of the same thing may be offered when one of these has been run."""

Rank = tuple[int, ...]


class Observation(NamedTuple):
    """What a host that has just started finds."""

    models: tuple[Model, ...]
    """Models that fit, all of them when none does."""
    fixes: tuple[tuple[str, Fix], ...]
    """(repository, fix), in the order of check, those that can run now and lose nothing."""
    others: tuple[tuple[str, Fix], ...]
    """(repository, fix) of fixes that wait for something, or lose data: for people to decide."""
    rank: Rank
    problems: tuple[str, ...]
    usable: frozenset[Key] = frozenset()
    """Images, not removed ones, that can be used."""
    there: frozenset[Key] = frozenset()
    """Images, also removed ones that can come back."""


def observe(world: World, engine: Engine, models: Sequence[Model], strangers: bool = False) -> Observation:
    """Look at everything and compare. ``strangers``: volumes that no record names are part of the case.

    Whoever looks is an operator too, who names the files of imports that other hosts began."""
    before = world.storage.sequence
    problems: list[str] = []
    seen: dict[Key, Found] = {}
    runnable: list[tuple[str, Fix]] = []
    others: list[tuple[str, Fix]] = []
    rank = [0, 0, 0, 0, 0]
    for repo in engine.list_repositories():
        try:
            unchanged = world.storage.sequence
            report = engine.inspect_repository(repo)
            if world.sharing and world.storage.sequence != unchanged:
                problems.append("I15 check changed the storage")
            records = {tag: entry.record for tag, entry in engine.context.repository(repo).tags.scan().items()}
        except DiskwrightError as error:
            problems.append(f"I11 {repo} cannot be checked: {error}")
            continue
        problems += _not_entered(world.storage, repo, records)
        for image in report.images:
            record = records.get(image.id)
            if not image.hidden:
                found = seen[repo, image.id] = _found(world, engine, repo, image, record)
                if found.unreadable and not any(_is_destroyed(model, repo, image.id) for model in models):
                    problems.append(
                        f"I14 image {repo}/{image.id} is {image.status} and cannot be read: {found.unreadable}"
                    )
        for fix in report.fixes:
            wanted = not fix.waits_for and fix.risk is not Risk.LOSES_DATA
            (runnable if wanted else others).append((repo, fix))
            if fix.rule == rules.C_UNNAMED and not strangers:
                problems.append(f"I5 normal work left a volume that no record names: {fix.facts[0]}")
        _add_rank(rank, report, records)
    if world.storage.sequence != before and not world.sharing:  # there, who reads an image says so first
        problems.append("I15 check changed the storage")
    if name_files(engine, others):
        return observe(world, engine, models, strangers)
    final = not runnable
    waiting = {(repo, fix.target) for repo, fix in others if fix.waits_for}
    fit, reasons = fitting(models, seen, waiting if final else None)
    problems += [f"I1-I6 {reason}" for reason in reasons]
    problems += _files(world.storage, fit or list(models))
    if final and not strangers:
        for repo in engine.list_repositories():
            named = [fix.target for where, fix in others if where == repo]
            named += [image for (where, image), found in seen.items() if where == repo and found.prepared]
            # What was under way on an image that cannot be used goes on when that is mended, or goes with the image.
            named += [image for (where, image), found in seen.items() if where == repo and found.status not in USABLE]
            problems += [f"I5 after all fixes {text}" for text in leftovers(world.storage, engine, repo, named)]
    usable = frozenset(key for key, image in seen.items() if image.status in USABLE and not image.removed)
    return Observation(
        tuple(fit or models), tuple(runnable), tuple(others), tuple(rank), tuple(problems), usable, frozenset(seen)
    )


def name_files(engine: Engine, others: Sequence[tuple[str, Fix]]) -> bool:
    """Name the files that imports wait for, where they are; whether there was one."""
    named = False
    for repo, fix in others:
        if fix.wait is not None and fix.wait.kind is WaitKind.PATH:
            with contextlib.suppress(DiskwrightError):
                engine.name_import_file(repo, fix.target, fix.wait.subject)
                named = True
    return named


def _is_destroyed(model: Model, repo: str, image: str) -> bool:
    known = model.images.get((repo, image))
    return known is not None and known.destroyed


def _found(world: World, engine: Engine, repo: str, image: ImageReport, record: Record | None) -> Found:
    content, in_use, unreadable = None, False, ""
    if world.image_locks.held and image.status in USABLE and record is not None and record.volume is not None:
        volumes = engine.context.repository(repo).volumes
        in_use = record.mutable and any(user.writes for user in volumes.users(record.volume))
    if image.status in USABLE and not image.removed and record is not None and not in_use:
        try:
            content = _content(world, engine, repo, record)
        except (DiskwrightError, OSError) as error:
            unreadable = str(error)
    return Found(
        image.size_bytes, image.mutable, record.user_data if record else None, image.status, image.removed, content,
        image.lost, in_use, in_use or _is_prepared(world, engine, repo, image), unreadable,
    )  # fmt: skip


def _is_prepared(world: World, engine: Engine, repo: str, image: ImageReport) -> bool:
    """Whether somebody holds the image for a machine."""
    if not any(process.name == HOLDER for host in world.hosts.values() for process in host.processes.values()):
        return False
    return bool(engine.get_image_status(repo, image.id).busy)


_contents: dict[tuple[object, ...], Content | str] = {}


def _content(world: World, engine: Engine, repo: str, record: Record) -> Content:
    """What a session reads, once for each set of equal files; StorageError of the engine when a layer is unsound."""
    repository = engine.context.repository(repo)
    links = chains.load(repository, record)
    files = tuple(_bytes_of(world.storage, repository.volumes.layer(link.volume).path).digest for link in links)
    key = (record.size, files, tuple(link.volume.format for link in links))
    known = _contents.get(key)
    if known is None:
        if len(_contents) > _REMEMBERED:
            _contents.clear()
        known = read(engine, repo, record.id, record.size)
        for link in links:
            if link.volume.format is VolumeFormat.QCOW2:
                report = engine.doors.images.check(repository.volumes.layer(link.volume))
                if report.corruptions:
                    known = f"qemu-img check finds corruptions in {link.volume.id}: {report.detail}"
        _contents[key] = known
    if isinstance(known, str):
        raise OSError(0, known)
    return known


def _bytes_of(storage: SimStorage, path: str) -> Content:
    if not path.startswith(DEVICE_ROOT):
        return storage.file(on_server(path))[1].content
    group, _, name = path.removeprefix(DEVICE_ROOT).partition("/")
    return next(disk.volumes[name] for disk in disks(storage) if disk.group is not None and disk.group.name == group)


def _files(storage: SimStorage, models: Sequence[Model]) -> list[str]:
    """Why what is no image fits none of the models."""
    reasons = []
    for model in models:
        wrong = next(_wrong_files(storage, model), "")
        if not wrong:
            return []
        reasons.append(wrong)
    return reasons[:1]


def _wrong_files(storage: SimStorage, model: Model) -> Iterator[str]:
    for path, content in model.files.items():
        try:
            found = storage.file(path)[1].content
        except OSError as error:
            if content is not None:
                yield f"I1 the exported file {path} is not there: {error}"
            continue
        if content is None:
            yield f"I1 the file {path} was adopted and is there again"
        elif not found.same(content):
            yield f"I6 the exported file {path} has other content"
    if (model.strays or model.kept) and storage.devices:
        storage = as_files(storage)
    for path, content in model.kept.items():
        if not any(isinstance(node, FileNode) and node.content.same(content) for _, _, node in storage.walk()):
            yield f"I1 the file that was {path} has no name any more"
    for volume, wanted in model.strays.items():
        there = [node for path, _, node in storage.walk() if volume in path and isinstance(node, FileNode)]
        if wanted is None and there:
            yield f"I1 the volume {volume} was deleted for good and is back"
        if wanted is not None and not any(node.content.same(wanted) for node in there):
            yield f"I12 the volume {volume}, which no record names, is {'changed' if there else 'gone'}"


def _add_rank(rank: list[int], report: RepositoryReport, records: dict[str, Record | None]) -> None:
    """Broken images, things that are only for the time being, degraded images, litter, fixes."""
    for image in report.images:
        rank[0] += image.status is Status.BROKEN and not image.removed and not image.hidden
        rank[2] += image.status is Status.DEGRADED
    for record in records.values():
        if record is not None:
            rank[1] += (not record.strong) + 2 * (record.operation is not None) + len(record.scrap)
            rank[1] += len(record.evidence) + (not record.whole) + 3 * record.purging
            rank[1] += len(_needed_by(record.id, records)) - 1
    rank[3] += any(fix.rule == rules.C_LITTER for fix in report.fixes)
    rank[4] += sum(_HIDES.get(fix.rule, 0) + 1 for fix in report.fixes)


def leftovers(storage: SimStorage, engine: Engine, repo: str, waiting: Sequence[str] = ()) -> list[str]:
    """What is in a repository and is neither an image's, nor below one, nor a tombstone. Read from the
    names and records themselves, and not from what the engine concludes of them. What belongs to a tag in
    ``waiting`` may stay."""
    root = f"{REPOSITORIES}/{repo}"
    if storage.devices:
        storage = as_files(storage)
    names = [path.removeprefix(root + "/") for path, _, node in storage.walk() if path.startswith(root + "/")
             and not isinstance(node, DirectoryNode)]  # fmt: skip
    repository = engine.context.repository(repo)
    records = {tag: entry.record for tag, entry in repository.tags.scan().items() if entry.record is not None}
    generations: dict[str, list[int]] = {}
    for match in filter(None, map(_TAG.match, names)):
        generations.setdefault(match[1], []).append(int(match[2], 16))
    needed = _needed(records, waiting)
    problems = [f"the hidden tag {tag} needs nothing and nobody needs it" for tag in records if tag not in needed]
    volumes = {
        volume.id
        for tag in needed
        for volume in (records[tag].volumes() if tag in waiting else (records[tag].volume,))
        if tag in records and volume is not None
    }
    for name in names:
        if name in ("repository.json", "repository.copy", "locks", "ballast", "access.json"):
            continue
        if (tag := _TAG.match(name)) and int(tag[2], 16) in _kept(generations[tag[1]]):
            continue
        if (use := _USE.match(name)) and _is_of_use(use[1], use[2], int(use[3], 16), records):
            continue
        if (volume := _VOLUME.match(name) or _DIGESTS.match(name)) and volume[1] in volumes:
            continue
        if (attempt := _PROGRESS.match(name)) and attempt[1] in waiting:
            continue
        problems.append(f"{name} is left over")
    return problems


def _is_of_use(subject: str, user: str, generation: int, records: Mapping[str, Record]) -> bool:
    """Whether a use may stay: a record needs it, or it was entered for whoever stands on a snapshot that is there."""
    record = records.get(user)
    return (record is not None and subject in named(record)) or (not generation and subject in records)


def _not_entered(storage: SimStorage, repo: str, records: Mapping[str, Record | None]) -> list[str]:
    """What records need although nothing says so: whoever deletes that does not find them. A snapshot that only begins
    names itself the disk whose volume it takes over."""
    root = f"{REPOSITORIES}/{repo}/"
    if not _kept_here(storage, root):
        return []
    names = (path.removeprefix(root) for path, _, _ in storage.walk() if path.startswith(root))
    entered = {(use[1], use[2]) for use in map(_USE.match, names) if use}
    return [
        f"I17 {tag} needs {subject}, and nothing says so"
        for tag, record in records.items()
        if record is not None
        for subject in uses(record)
        if (subject, tag) not in entered and not (follower(record) and subject == taken_over(record))
    ]


def _kept_here(storage: SimStorage, root: str) -> bool:
    """Whether the repository says that all is entered: in its copy, and without one in ``repository.json``."""
    for name in (layout.COPY_FILE, layout.IDENTITY_FILE):
        try:
            content = storage.file(root + name)[1].content
            raw: bytes | None = content.read(0, content.size)
            raw = layout.decode_copy(raw or b"") if name == layout.COPY_FILE else raw
            if raw is not None:
                return layout.decode_identity(raw, root).uses
        except (OSError, DiskwrightError):
            continue
    return False


def _kept(generations: list[int]) -> list[int]:
    """The newest generation of a tag, and the one before unless that is a tombstone's."""
    newest = max(generations)
    return sorted(generations)[-1:] if is_tombstone(newest) else sorted(generations)[-2:]


def _needed(records: dict[str, Record], waiting: Sequence[str]) -> set[str]:
    """Images, what is below them, and what waits."""
    roots = [tag for tag, record in records.items() if record.strong or tag in waiting]
    return {tag for root in roots for tag in _needed_by(root, records) if tag in records}


def _needed_by(tag: str, records: Mapping[str, Record | None]) -> set[str]:
    """Return the tag and all that is below it, there or not."""
    found: set[str] = set()
    todo = [tag]
    while todo:
        tag = todo.pop()
        record = records.get(tag)
        if record is not None and tag not in found:
            todo += record.parents()
        found.add(tag)
    return found
