"""Give back the room that zeros take in a flat raw volume, in place: they become holes.

Every byte reads the same at every moment, so whatever a crash leaves is the same image, and the work begins again. One
session, which locks the volume against every other tool, looks and punches: nobody writes in between. No room is
needed, so it works on a full storage. What is qcow2 is made anew instead (``rebuild.flatten``), which also leaves out
what its tables hold for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.copying import ranges
from engine.data.digests import data_runs
from engine.data.model import VolumeFormat
from engine.doors.images import Session
from engine.errors import StaleFix
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import chains, changes
from engine.tags.attempt import Attempt
from engine.tags.context import Context

_STEP_BYTES = 64 << 20
"""After so many bytes it is asked whether the work is still ours, and wanted."""


def in_place(context: Context, repository: Repository, tag: str) -> None:
    """Punch holes where the raw volume of an image has nothing but zeros. The caller holds the lease. StaleFix when it
    has another volume by now, ImageBusy while somebody has it open, Refused when others have written to it since: the
    look before this may take hours, and after this the volume is noted as it is."""
    found = changes.read(repository, tag).record
    if found.volume is not None:
        chains.as_recorded(repository, found, found.volume)
    with Attempt(context, repository, tag, "sparsify", ("punch holes",)) as attempt:
        record = attempt.claim()
        volume = record.volume
        if volume is None or volume.parent or volume.format is not VolumeFormat.RAW or record.operation is not None:
            raise StaleFix(f"image {tag} has no flat raw volume any more", "Check again")
        layer = gate.open_layer(repository, tag, volume, Purpose.REWRITE)
        images = context.doors.images
        session = images.open_session([layer], True, repository.constraints().direct_io)
        try:
            attempt.check()  # opened, locked, and only then verified
            wanted = ranges.data_ranges(images.map_layer(layer))
            done = 0
            for start, length, is_data in _runs(session, ranges.merged(wanted, session.size)):
                if not is_data:
                    session.zero(start, length)
                if start + length - done >= _STEP_BYTES:
                    done = start + length
                    session.flush()
                    attempt.checkpoint(done, min(99, done * 100 // session.size))
            session.flush()
        finally:
            session.close()
        attempt.finish(lambda record: record)


def _runs(session: Session, wanted: list[ranges.Range]) -> Iterator[tuple[int, int, bool]]:
    """Yield all of the image in order, as (start, length, is_data): of what is ``wanted`` what is found, and all else
    is zeros."""
    end = 0
    for at, data in session.stream(ranges.pieces(wanted)):
        if end < at:
            yield end, at - end, False
        end = at + len(data)
        for start, length, is_data in data_runs(data, zero_too=True):
            yield at + start, length, is_data
    if end < session.size:
        yield end, session.size - end, False
