"""Small repairs in place that change no content: a derived header, leaked clusters."""

from __future__ import annotations

from engine import chains, changes, deep, leasing
from engine.attempt import Attempt
from engine.context import Context
from engine.errors import DiskwrightError, Refused
from engine.fixes.merge import rewrite_header
from engine.formats.base import Repository


def header(context: Context, repository: Repository, tag: str) -> None:
    """Make the qcow2 header of an image's volume say what its record says. The lease is held."""
    attempt = Attempt(context, repository, tag, "rewrite header", ("rewrite header",))
    try:
        record = attempt.claim()
        if record.volume is not None:
            rewrite_header(context, repository, record.volume)
        attempt.finish(lambda record: record)
    except DiskwrightError as error:
        attempt.fail(error)
        raise


def leaks(context: Context, repository: Repository, tag: str) -> None:
    """Give leaked clusters back (``qemu-img check -r leaks``), nothing else. The lease is held."""
    attempt = Attempt(context, repository, tag, "repair leaks", ("repair leaks",))
    try:
        record = attempt.claim()
        assert record.volume is not None
        context.doors.images.repair_leaks(repository.layer(record.volume))
        attempt.finish(lambda record: record)
    except DiskwrightError as error:
        attempt.fail(error)
        raise


def accept_losses(repository: Repository, tag: str) -> None:
    """Take the zeros that stand for lost ranges as the image's content. The lease is held."""
    changes.change(repository, tag, lambda record: record._replace(lost=(), digest=""))


def record_digest(context: Context, repository: Repository, tag: str) -> str:
    """Compute and record the content digest of a snapshot, under shared leases of its chain."""
    record = changes.read(repository, tag).record
    links = chains.usable(repository, record)
    if chains.lost(links):
        raise Refused(f"image {tag} has lost ranges", "A digest of the zeros in their place would hide that")
    with leasing.take(context.doors, repository, [], [link.tag for link in links]):
        chains.unchanged(repository, links)
        found = deep.compute(context, repository, record)
        repository.write_digests(links[0].volume.id, found.to_bytes())
    root = found.root()

    changes.change(
        repository,
        tag,
        lambda now: (
            now._replace(digest=root, digest_write_epoch=now.write_epoch)
            if now.volume == record.volume and now.write_epoch == record.write_epoch
            else None
        ),
    )
    return root
