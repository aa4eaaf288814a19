"""The audit: list the places, read each image once, judge, and say what nobody refers to.

Read-only: the places are reached through the tree door alone, which cannot write and cannot be led out of them. A deep
audit runs ``qemu-img check`` on one image at a time, which it holds open, with nothing below it, and only where no
program writes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from engine.audit import rules
from engine.audit.chains import Images, chain_of, of_chains, of_image
from engine.audit.definitions import definitions_beside, read_definitions
from engine.audit.gather import Gathered, Key, Link, Seen, key_of
from engine.audit.layouts.registry import layout_of
from engine.audit.layouts.repository import of_repositories
from engine.audit.layouts.volumes import for_volumes
from engine.audit.model import Audited, AuditReport, Candidate, Contents, Finding, Role
from engine.audit.orphans import References, doubts, unneeded
from engine.audit.places import Name, Places
from engine.audit.rules import finding
from engine.copying.magic import QCOW2
from engine.data.model import Status, VolumeFormat
from engine.doors.images import CheckReport, ImageTool, Layer
from engine.doors.trees import Tree
from engine.doors.users import describe_users
from engine.errors import DiskwrightError, StorageError, from_os_error

Progress = Callable[[str, int, int], None]
"""Told what is done, how many of it are done, and of how many (0: not known yet)."""

_FINE = "nothing was found"


def audit(
    places: Sequence[Tree],
    definitions: Sequence[Tree] = (),
    complete: bool = False,
    check: ImageTool | None = None,
    progress: Progress = lambda _what, _done, _of: None,
) -> AuditReport:
    """Look at the images below ``places``; change nothing.

    ``definitions``: where machines are defined, as far as it was given. ``complete``: an operator says that these, and
    what stands among the images, are all that can refer to them; without that no image is called an orphan. ``check``:
    also run ``qemu-img check`` on each qcow2 image. What cannot be read is a finding, never an error.
    """
    listed = Places(places, lambda names: progress("names listed", names, 0))
    contents = [layout_of(listed, root).contents(listed, root) for root in listed.roots]
    candidates: dict[str, Candidate] = {}
    for content in contents:
        candidates.update(content.candidates)
        listed.alias(content.aliases)
    candidates.update(of_repositories(listed))
    gathered = Gathered(listed, candidates, lambda done, of: progress("files read", done, of))
    checks = _checks(gathered, check, progress) if check is not None else {}
    references = References(listed, gathered, [*definitions_beside(listed), *read_definitions(Places(definitions))])
    by_image = _judged(listed, gathered, contents, references, checks)
    loose = [
        found for found in _found(contents) if found.path not in listed.names or _no_image(found, gathered, listed)
    ]
    loose += [found for found in references.findings if found.rule == rules.A_MISSING]
    loose += _remnants(listed, candidates, gathered, loose)
    loose += [finding(rules.A_READ, path, problem=why) for path, why in listed.unreadable.items()]
    certain = complete and bool(definitions)
    for found in unneeded(gathered, references, certain):
        by_image[key_of(listed.names[found.path])].append(found)
    unsure = [f"{found.path}: {found.reason}" for found in doubts(references)]
    if certain:
        loose += doubts(references)
    else:
        unsure.insert(0, "nobody has said that everything that refers to them was given (--vms PATH --complete)")
    every = [*loose, *(found for findings in by_image.values() for found in findings)]
    every = [for_volumes(listed, found) for found in every]
    return AuditReport(
        tuple((root, content.layout) for root, content in zip(listed.roots, contents, strict=True)),
        tuple(_audited(gathered.images, key, by_image[key], references) for key in gathered.images),
        tuple(sorted(every, key=lambda found: (rules.place(found.rule), found.path))),
        {role.value: count for role, count in sorted(gathered.others.items()) if count > 0},
        tuple(unsure),
    )


def _judged(
    listed: Places,
    gathered: Gathered,
    contents: Iterable[Contents],
    references: References,
    checks: Mapping[Key, CheckReport | DiskwrightError],
) -> dict[Key, list[Finding]]:
    """Return what is wrong with each image, without what nobody refers to."""
    images = gathered.images
    own: dict[Key, list[Finding]] = {}
    for key in images:
        checked = checks.get(key)
        own[key] = list(of_image(images, key, None if isinstance(checked, DiskwrightError) else checked))
        if isinstance(checked, DiskwrightError):
            own[key].append(finding(rules.A_READ, images[key].image.path, problem=checked.message))
    told = [found for found in references.findings if found.rule != rules.A_MISSING]
    for found in [*_found(contents), *told]:
        name = listed.names.get(found.path)
        if name is not None and key_of(name) in own:  # of a remnant on which something stands nothing is advised
            needed = found.rule == rules.A_REMNANT
            own[key_of(name)].append(found._replace(command=()) if needed else found)
    chains = of_chains(images, own)
    return {key: _once([*own[key], *chains[key]]) for key in images}


def _once(findings: list[Finding]) -> list[Finding]:
    """Leave out what a file with several names would say several times."""
    return list({(found.rule, found.reason): found for found in findings}.values())


def _found(contents: Iterable[Contents]) -> list[Finding]:
    return [
        finding(found.rule, found.path, found.case, size_bytes=found.size_bytes, **found.words)
        for content in contents
        for found in content.found
    ]


def _no_image(found: Finding, gathered: Gathered, listed: Places) -> bool:
    return key_of(listed.names[found.path]) not in gathered.images


def _remnants(
    listed: Places, candidates: Mapping[str, Candidate], gathered: Gathered, told: Iterable[Finding]
) -> list[Finding]:
    """What single files are left of operations; those in directories that are told as a whole are not told again."""
    known = [one.path for one in told if one.rule == rules.A_REMNANT]
    whole = {*known, *(name.path for path in known for name in listed.files(path))}
    return [
        finding(rules.A_REMNANT, name.path, "partial", size_bytes=name.stat.allocated)
        for name in listed.files()
        if candidates[name.path].role is Role.REMNANT and key_of(name) not in gathered.images and name.path not in whole
    ]


def _checks(gathered: Gathered, tool: ImageTool, progress: Progress) -> dict[Key, CheckReport | DiskwrightError]:
    """Check the qcow2 images that nobody writes to and whose header is in order."""
    whole = [key for key, seen in gathered.images.items() if _can_be_checked(seen)]
    found: dict[Key, CheckReport | DiskwrightError] = {}
    for number, key in enumerate(whole, start=1):
        try:
            found[key] = _check(gathered.names[key][0], key, tool)
        except DiskwrightError as error:
            found[key] = error
        except OSError as error:
            found[key] = from_os_error(error, "open the image to check it")
        progress("images checked", number, len(whole))
    return found


def _check(name: Name, key: Key, tool: ImageTool) -> CheckReport:
    """Check the very file that was looked at: who owns a directory on the way may have swapped it since."""
    with name.tree.hold(name.inside) as held:
        if (held.device, held.inode) != key:
            raise StorageError("another file has taken its name while it was looked at")
        return tool.check(Layer(name.path, VolumeFormat.QCOW2, held.block, held=held.path))


def _can_be_checked(seen: Seen) -> bool:
    image, header = seen.image, seen.image.header
    if image.format != QCOW2 or header is None or any(user.writes for user in image.users):
        return False
    return not (header.unknown_incompatible or header.has_data_file or header.encrypted)


def _audited(images: Images, key: Key, findings: Sequence[Finding], references: References) -> Audited:
    image, chain = images[key].image, chain_of(images, key)
    worst = min(findings, key=lambda found: rules.place(found.rule), default=None)
    status = worst.status if worst is not None else Status.OPTIMIZED
    used_by = [*references.by.get(key, ())]
    if images[key].candidate.needed_by:
        used_by.append(images[key].candidate.needed_by)
    if image.users:
        used_by.append(describe_users(image.users))
    return Audited(
        image.path, image.names, image.format, image.size, image.allocated, _parent(images[key].backing),
        len(chain.keys), status, worst.rule if worst is not None else "", worst.reason if worst is not None else _FINE,
        tuple(used_by),
    )  # fmt: skip


def _parent(link: Link | None) -> str:
    if link is None:
        return ""
    return link.lead.path if link.lead is not None and link.lead.name is not None else link.told
