"""adopt_images: commit that files become images as they are, with their chains, and copy nothing.

First a plan, from the beginnings of the files: what becomes what, and what is refused and why. A file that others stand
on becomes a snapshot, any other one a disk. Formats are stated: of what nothing stands on by the operator, of a base by
what stands on it. A base is looked for only among the files that were given.

Then a record for each file, from the top down, so that whatever a crash leaves waits for its base, and nothing is taken
over before all of a chain is committed; each record names the volume that the file becomes. The work is a fix
(``engine.fixes.adopt``), from the base upwards.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from engine.audit.names import as_bytes, meant
from engine.copying import image_file
from engine.data.adoption import Facts, Plan, Planned
from engine.data.model import Strategy, VolumeFormat, require_path
from engine.data.options import Options
from engine.data.records import Operation, Record, VolumeRef
from engine.doors.users import describe_users
from engine.errors import BadRequest, Damaged, DiskwrightError, NotFound, Refused, from_os_error, from_os_errors
from engine.formats.adoption import Adoption
from engine.formats.base import Repository
from engine.gate import gate
from engine.tags import changes, leasing
from engine.tags.context import Context
from engine.tags.imports import NamedFile
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, Header, parse_header
from engine.triage.health import wanted_format
from engine.verbs.commit import new_disk, require_fits


class _Look(NamedTuple):
    """What the beginning of a file says, before it is known how that is to be understood."""

    header: Header | None
    """As of a qcow2 image, None where it is none."""
    base: str
    """Path of the file that the header means, if that can be said; "" for none."""


# -- the plan


def plan(context: Context, repo_id: str, paths: Iterable[str], format: str) -> Plan:
    """Return what would become of the files that ``paths`` name, and of those in the directories. Nothing is written.
    ``format``: raw or qcow2, of the files that nothing stands on."""
    if format not in list(VolumeFormat):
        raise BadRequest(f"format {format!r:.40} is none of a volume", "State raw or qcow2; import takes others")
    repository = context.repository(repo_id)
    files = gate.adoption(repository)
    looks = {path: _look(files, path) for path in _given(files, paths, VolumeFormat(format))}
    formats, order = _formats(looks, VolumeFormat(format))
    bases = {path: looks[path].base for path in order if formats[path] is VolumeFormat.QCOW2 and looks[path].base}
    found: dict[str, Planned] = {}
    refused = dict.fromkeys(looks.keys() - formats.keys(), "its chain runs in a circle")
    for path in order:
        try:
            size, facts = _require_fit(context, repository, path, formats[path])
            found[path] = Planned(path, formats[path], size, bases.get(path, ""), path not in bases.values(), facts)
            _require_base(looks, formats, found[path])
        except DiskwrightError as error:
            refused[path] = error.message
    for path, base in bases.items():
        if path in found and base in found and found[base].size > found[path].size:
            refused[path] = f"it is smaller than its base {base!r:.200}"
    refused |= _left_behind(files, looks, found)
    _spread(bases, refused)
    return Plan(tuple(found[path] for path in reversed(order) if path not in refused), tuple(sorted(refused.items())))


def _given(files: Adoption, paths: Iterable[str], format: VolumeFormat) -> list[str]:
    """The files that are meant, each once, without links."""
    found: set[str] = set()
    for path in paths:
        try:
            path = files.resolve(require_path(path))
            inside = files.within(path)
            if inside is None:
                found.add(path)
            elif format is VolumeFormat.RAW:
                raise BadRequest(f"{path!r:.200} is a directory, and nothing tells a raw image", "Name each raw file")
            else:
                found.update(inside)
        except FileNotFoundError:
            raise NotFound(f"there is no file {path!r:.200} to adopt", "Give the right path") from None
        except OSError as error:
            raise from_os_error(error, f"look at {path!r:.200}") from error
    return sorted(found)


def _look(files: Adoption, path: str) -> _Look:
    """Read the beginning of a file. What it means is not opened, and its name is compared only."""
    try:
        with files.open(path) as handle:
            header = parse_header(handle.read_at(0, HEADER_READ_BYTES), handle.stat().size)
    except (OSError, Damaged):
        return _Look(None, "")  # whoever takes it for an image finds out why
    if header.backing_name is None:
        return _Look(header, "")
    name = meant(as_bytes(header.backing_name))
    if not name.path or not name.alone:
        return _Look(header, "")
    return _Look(header, files.meant(name.path, path))


def _formats(looks: Mapping[str, _Look], stated: VolumeFormat) -> tuple[dict[str, VolumeFormat], list[str]]:
    """The format of each file, and all of them in an order in which each is before what it stands on. Those that stand
    on themselves are left out. The header of a file counts only where it is known to be a qcow2 image: a guest can
    write one into its raw disk."""
    above: dict[str, list[str]] = {path: [] for path in looks}
    for path, look in looks.items():
        if look.base in above:
            above[look.base].append(path)
    left = {path: len(names) for path, names in above.items()}
    todo = [path for path, number in left.items() if not number]
    formats: dict[str, VolumeFormat] = {}
    while todo:
        path = todo.pop()
        said = [
            header.backing_format
            for child in above[path]
            if formats[child] is VolumeFormat.QCOW2 and (header := looks[child].header) is not None
        ]
        formats[path] = VolumeFormat(said[0]) if said and said[0] in list(VolumeFormat) else stated
        base = looks[path].base
        if base in left:
            left[base] -= 1
            if not left[base]:
                todo.append(base)
    return formats, list(formats)


def _require_fit(context: Context, repository: Repository, path: str, format: VolumeFormat) -> tuple[int, Facts]:
    """Return the size and the facts of a file that can become a volume now; else raise why not."""
    adoption = gate.adoption(repository)
    adoption.require_here(path)
    with from_os_errors(f"read {path!r:.200}"), adoption.open(path) as handle:
        file = image_file.as_volume(handle, path, format)
        if file.ends_early:
            image_file.require_sound(context.doors.images, file)
    if file.facts.links != 1:
        under_way = _begun(repository).get(image_file.known_by(image_file.facts_of(file.facts)))
        if under_way is not None:
            raise Refused(
                f"it is being adopted already, as image {under_way.id}", "Run the fix that check lists for it"
            )
        raise Refused(f"it has {file.facts.links} names", "Remove those that are not needed")
    if users := adoption.users(path):
        raise Refused(f"it is in use by {describe_users(users)}", "Stop that first")
    return require_fits(repository, file.size), image_file.facts_of(file.facts)


def _require_base(looks: Mapping[str, _Look], formats: Mapping[str, VolumeFormat], file: Planned) -> None:
    """Return if the file stands on none, or on one of those that were given, in the format that it says."""
    header = looks[file.path].header
    if file.format is not VolumeFormat.QCOW2 or header is None or header.backing_name is None:
        return
    if file.base not in formats:
        raise Refused(f"it stands on {header.backing_name!r:.200}, which is not among the files given", "Give it too")
    if header.backing_format != formats[file.base]:
        raise Refused(
            f"it says that its base is {header.backing_format or 'of a format that it does not state'}, and it is "
            f"{formats[file.base]}" if header.backing_format else "it does not say which format its base has",
            "State it: qemu-img rebase -u -b BASE -F FORMAT",
        )  # fmt: skip


def _left_behind(files: Adoption, looks: Mapping[str, _Look], found: Mapping[str, Planned]) -> dict[str, str]:
    """Why a file cannot be taken away from beside others: one of those stands on it, and was not given."""
    refused = {}
    for directory in sorted({posixpath.dirname(path) for path in found}):
        with from_os_errors(f"list {directory!r:.200}"):
            beside = [path for path in files.within(directory) or () if path not in looks]
        for other in beside:
            base = _look(files, other).base
            if base in found:
                refused[base] = f"{other!r:.200} stands on it, and was not given"
    return refused


def _spread(bases: Mapping[str, str], refused: dict[str, str]) -> None:
    """Refuse what stands on something that is refused, and what that stands on: no chain is taken apart."""
    todo = True
    while todo:
        todo = False
        for path, base in bases.items():
            if (path in refused) != (base in refused):
                todo = True
                if path in refused:
                    refused[base] = f"{path!r:.200} stands on it, and is not adopted"
                else:
                    refused[path] = f"its base {base!r:.200} is not adopted"


# -- the commit


def commit(context: Context, repo_id: str, wanted: Plan, options: Options) -> dict[str, str]:
    """Commit the adoption of all that a plan has; return the ids of the images by path, bases first. What was committed
    of it before and has not ended counts, and is not committed again. Refused when the plan has nothing."""
    if not wanted.images:
        path, why = wanted.refused[0] if wanted.refused else ("", "no file was found")
        raise Refused(f"nothing can be adopted: {f'{path!r:.200}: ' if path else ''}{why}", "Name other files")
    repository = context.repository(repo_id)
    begun = _begun(repository)
    ids: dict[str, str] = {}
    for item in reversed(wanted.images):
        known = begun.get(image_file.known_by(item.facts))
        if known is not None:
            ids[item.path] = known.id
        ids.setdefault(item.path, context.doors.ids.new_id())
        if known is not None and known.operation is not None and item.base:
            ids.setdefault(item.base, known.operation.base)
    for item in reversed(wanted.images):
        known = begun.get(image_file.known_by(item.facts))
        record = known or _record(context, item, ids, options, gate.adoption(repository).marked)
        facts = record.operation.path_facts if record.operation is not None else item.facts
        with leasing.take(context.doors, repository, [record.id]):
            context.imports.name_file(repository.identity, record.id, NamedFile(item.path, facts))
            if known is None:
                repository.tags.publish(record, 0)
    return {item.path: ids[item.path] for item in wanted.images}


def _begun(repository: Repository) -> dict[Facts, Record]:
    """What is committed and has not ended, by file."""
    records = [entry.record for entry in repository.tags.scan().values() if entry.record is not None]
    return {
        image_file.known_by(record.operation.path_facts): record
        for record in records
        if record.strong and record.operation is not None and record.operation.verb == "adopt"
    }


def _record(context: Context, item: Planned, ids: Mapping[str, str], options: Options, marked: str) -> Record:
    base = ids.get(item.base, "")
    volume = VolumeRef(context.doors.ids.new_id(), item.format, base)
    operation = Operation(
        "adopt", volume, base=base, path=item.path, path_facts=item.facts, source_format=marked, digest=False
    )
    as_it_is = next(one for one in Strategy if wanted_format(one) is item.format)
    name = posixpath.splitext(posixpath.basename(item.path))[0].encode("utf-8", "replace").decode()
    made = new_disk(context, item.size, options.strategy or as_it_is, operation, {"name": name})
    return made._replace(id=ids[item.path], mutable=item.mutable)


def name_file(context: Context, repository: Repository, record: Record, path: str) -> None:
    """Note that this host may take ``path`` over for the unfinished adoption ``record``, or give its file that name
    again, and have the record speak of it. Refused for another file than it began with."""
    operation, files = record.operation, gate.adoption(repository)
    assert operation is not None and operation.attempt is not None
    try:
        path = files.resolve(require_path(path))
        taken = files.taken(operation.attempt)
        facts = operation.path_facts if taken else image_file.identity_of(files.stat(path))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path!r:.200}, which is to be adopted", "Give the right path") from None
    except OSError as error:
        raise from_os_error(error, f"find the file to adopt {path!r:.200}") from error
    if image_file.known_by(facts) != image_file.known_by(operation.path_facts):
        raise Refused(
            f"{path!r:.200} is not the file that the adoption began with, or was written to since",
            "Remove the image and clean it away, which leaves that file where it is; then adopt again",
        )

    def speaks_of_it(now: Record) -> Record | None:
        if now.operation is None or now.operation.verb != "adopt" or now.operation.path == path:
            return None
        return now._replace(operation=now.operation._replace(path=path))

    with leasing.take(context.doors, repository, [record.id]):
        context.imports.name_file(repository.identity, record.id, NamedFile(path, operation.path_facts))
        changes.change(repository, record.id, speaks_of_it)
