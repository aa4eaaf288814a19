"""What is wrong with each image, and what follows from that for those that stand on it. No effects."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from engine.audit import rules
from engine.audit.gather import Key, Seen
from engine.audit.model import Finding
from engine.audit.places import Where
from engine.audit.rules import finding
from engine.copying.magic import QCOW2
from engine.data.amounts import human
from engine.data.model import Status
from engine.doors.images import CheckReport
from engine.doors.users import describe_users
from engine.triage.health import MAX_CHAIN, OVERSIZE_FRACTION, OVERSIZE_MIN_BYTES

_TABLES_SHARE = 64
"""Tables of an image take less than this part of what it holds."""

Images = Mapping[Key, Seen]


class Chain(NamedTuple):
    """The images that one stands on, itself first, as far as they are known."""

    keys: tuple[Key, ...]
    circle: bool


def chain_of(images: Images, key: Key) -> Chain:
    """Follow what each image stands on."""
    keys = [key]
    known = {key}
    while (link := images[keys[-1]].backing) is not None and (below := link.key) is not None and below in images:
        if below in known:
            return Chain(tuple(keys), True)
        keys.append(below)
        known.add(below)
    return Chain(tuple(keys), False)


def of_image(images: Images, key: Key, checked: CheckReport | None) -> Iterator[Finding]:
    """Find what is wrong with one image itself."""
    seen = images[key]
    image, path = seen.image, seen.image.path
    if image.unread:
        yield finding(rules.A_READ, path, problem=image.unread)
        return
    yield from _of_use(seen)
    yield from _of_statement(seen)
    if image.problem:
        yield finding(rules.A_DAMAGED, path, problem=image.problem, size_bytes=image.allocated)
    if image.header is None:
        return
    yield from _of_header(seen, checked)
    yield from _of_backing(images, key)
    if seen.data is not None:
        there = seen.data.lead is not None and seen.data.lead.where is Where.FOUND
        gone = seen.data.lead is not None and seen.data.lead.where is Where.MISSING
        yield finding(rules.A_EXTERNAL, path, name=seen.data.told)
        if gone:
            yield finding(rules.A_DATA, path, name=seen.data.name, evidence=_written(path, seen.data.name))
        elif not there:
            yield finding(rules.A_OUTSIDE, path, "place", name=seen.data.told)


def _of_use(seen: Seen) -> Iterator[Finding]:
    users = seen.image.users
    if users:
        yield finding(rules.A_OPEN, seen.image.path, users=describe_users(users))


def _of_statement(seen: Seen) -> Iterator[Finding]:
    """Compare the header with what the metadata says."""
    image, stated = seen.image, seen.candidate.stated
    if stated is None or image.problem:
        return
    path, source = image.path, stated.source
    if stated.format and stated.format != image.format:
        says = f"that it is {stated.format}"
        yield finding(rules.A_DISAGREE, path, "format", format=image.format, source=source, stated=says)
        return
    if image.header is None:
        if 0 <= image.length < stated.size:
            yield finding(rules.A_SHORT, path, "stated", source=source, size=stated.size, length=image.length)
        return
    if stated.size >= 0 and stated.size != image.header.size:
        says = f"{stated.size} bytes"
        yield finding(rules.A_DISAGREE, path, "size", size=image.header.size, source=source, stated=says)
    if stated.parent is not None:
        named = posixpath.basename(seen.backing.name) if seen.backing is not None else ""
        if named != stated.parent:
            says = f"that it stands on {stated.parent}" if stated.parent else "that it stands on nothing"
            evidence = (("in the header", named or "nothing"), (f"in {source}", stated.parent or "nothing"))
            name = named or "nothing"
            yield finding(rules.A_DISAGREE, path, "parent", evidence, name=name, source=source, stated=says)


def _of_header(seen: Seen, checked: CheckReport | None) -> Iterator[Finding]:
    image, header = seen.image, seen.image.header
    assert header is not None
    path = image.path
    if header.unknown_incompatible:
        yield finding(rules.A_FEATURE, path, bits=f"{header.unknown_incompatible:#x}")
    if header.corrupt:
        yield finding(rules.A_CORRUPT, path, "marked")
    if checked is not None and checked.corruptions:
        yield finding(
            rules.A_CORRUPT, path, "checked", (("qemu-img check", checked.detail),), count=checked.corruptions
        )
    if checked is not None and checked.leaked_clusters:
        held = checked.leaked_clusters << header.cluster_bits
        yield finding(rules.A_LEAKS, path, count=checked.leaked_clusters, size_bytes=held)
    if seen.cut is not None:
        yield finding(rules.A_SHORT, path, "tables", offset=seen.cut, length=image.length)
    if header.dirty and not any(user.writes for user in image.users):
        yield finding(rules.A_DIRTY, path)
    if header.encrypted:
        yield finding(rules.A_ENCRYPTED, path)
    if header.internal_snapshots:
        yield finding(rules.A_SNAPSHOTS, path, count=header.internal_snapshots)
    yield from _of_bitmaps(seen)
    fits = header.size + header.size // _TABLES_SHARE
    over = image.allocated - fits
    kept = header.internal_snapshots or header.bitmaps
    if over >= OVERSIZE_MIN_BYTES and over >= fits * OVERSIZE_FRACTION and not kept:
        words: dict[str, Any] = {"over": human(over), "size": human(header.size), "format": QCOW2}
        yield finding(rules.A_OVERSIZE, path, size_bytes=over, **words)


def _of_bitmaps(seen: Seen) -> Iterator[Finding]:
    header, path = seen.image.header, seen.image.path
    assert header is not None
    if seen.bitmaps is None:
        yield finding(rules.A_BITMAPS, path, "unreadable", command=())
    elif header.bitmap_directory is not None and not header.bitmaps_current:
        yield finding(rules.A_BITMAPS, path, "stale")
    elif seen.bitmaps.in_use:
        yield finding(rules.A_BITMAPS, path, "use", count=seen.bitmaps.in_use, total=seen.bitmaps.total)


def _of_backing(images: Images, key: Key) -> Iterator[Finding]:
    seen = images[key]
    link, header, path = seen.backing, seen.image.header, seen.image.path
    if link is None or header is None:
        return
    if link.lead is None:
        yield finding(rules.A_OUTSIDE, path, "network", name=link.told)
        return
    where = link.lead.where
    evidence = (*_written(path, link.name), ("looked for at", link.lead.path))
    if where in (Where.MISSING, Where.CIRCLE):
        yield finding(rules.A_PARENT, path, evidence=evidence, name=link.name)
    elif where is Where.OUTSIDE:
        yield finding(rules.A_OUTSIDE, path, "place", evidence, name=link.name)
    elif where is Where.UNREADABLE:
        yield finding(rules.A_READ, path, evidence=evidence, problem=f"the directory of {link.name} cannot be listed")
    elif (base := link.key) is None or base not in images:
        yield finding(rules.A_PARENT, path, evidence=evidence, name=f"{link.name} (no regular file)")
    else:
        yield from _of_backing_format(images[base], seen)
        if link.name.startswith("/") and posixpath.dirname(link.lead.path) != posixpath.dirname(path):
            yield finding(rules.A_ABSOLUTE, path, evidence=evidence, name=link.name)


def _of_backing_format(base: Seen, seen: Seen) -> Iterator[Finding]:
    """Compare the format that a header gives to what is below with what that begins as."""
    header, path, link = seen.image.header, seen.image.path, seen.backing
    assert header is not None and link is not None
    if not base.image.format:
        return
    words: dict[str, Any] = {"name": link.name, "format": base.image.format, "backing": link.name}
    if header.backing_format is None:
        # What begins as qcow2 and was raw to its maker may be a guest's doing: then nothing is advised.
        says = base.candidate.stated
        doubtful = base.image.format != "raw" and (says is None or says.format != base.image.format)
        yield finding(rules.A_FORMAT, path, "missing", command=() if doubtful else None, **words)
    elif header.backing_format != base.image.format and header.backing_format not in ("file", "host_device"):
        guess = header.backing_format == "raw"
        words["stated"] = header.backing_format
        yield finding(rules.A_FORMAT, path, "wrong", command=() if guess else None, **words)


def _written(path: str, name: str) -> tuple[tuple[str, str], ...]:
    return ((f"in the header of {path}", name),)


def of_chains(images: Images, own: Mapping[Key, Iterable[Finding]]) -> dict[Key, list[Finding]]:
    """Find circles and chains that are too deep, and what images inherit from those below them."""
    found: dict[Key, list[Finding]] = {}
    worst = {key: _worst(own[key]) for key in images}
    for key, seen in images.items():
        path, chain = seen.image.path, chain_of(images, key)
        if chain.circle:
            found[key] = [finding(rules.A_LOOP, path, name=images[chain.keys[-1]].image.path)]
            continue
        found[key] = []
        if len(chain.keys) > MAX_CHAIN:
            words: dict[str, Any] = {"depth": len(chain.keys), "most": MAX_CHAIN, "format": seen.image.format}
            found[key].append(finding(rules.A_DEPTH, path, **words))
        below = [(base, worst[base]) for base in chain.keys[1:]]
        broken = next(((base, why) for base, why in below if why and why.status is Status.BROKEN), None)
        unknown = next(((base, why) for base, why in below if why and why.status is Status.UNKNOWN), None)
        if broken is not None and broken[1] is not None:
            name = images[broken[0]].image.path
            found[key].append(finding(rules.A_BASE, path, name=name, reason=broken[1].reason))
        elif unknown is not None and unknown[1] is not None:
            name = images[unknown[0]].image.path
            found[key].append(finding(rules.A_OUTSIDE, path, "base", name=name, reason=unknown[1].reason))
    return found


def _worst(findings: Iterable[Finding]) -> Finding | None:
    return min(findings, key=lambda found: rules.place(found.rule), default=None)
