"""copy_image and export_image of a disk whose machine runs: a backup, which its guest never waits for.

(1) A hidden snapshot, taken as any other beside the machine; its record says for which copy it is kept. (2) *The record
of the copy*, which names it as the source: the seal. Both under the leases of the snapshot. (3) The copy, as any other:
any host goes on with it. (4) What is finished needs no source: hidden data below the disk, which becomes one with it
(M-CHAIN) beside the machine or without it.

After (1) it is hidden data that nothing needs, after (2) it is kept until the copy is finished or deleted
(``engine.survey.kept``). An export has no record: what it reads is kept by its lease, as long as it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.copying import pace
from engine.data.kept import Kept
from engine.data.model import require_id
from engine.data.options import Options, parse
from engine.data.records import Operation
from engine.doors.images import Data
from engine.errors import DiskwrightError, ImageBusy
from engine.host import machines
from engine.host.state import EXPORT, HostState, Prepared, Task
from engine.tags import changes, sources
from engine.tags.context import Context, Found
from engine.verbs import copy, export
from engine.verbs.live import snapshot


def image(
    context: Context,
    state: HostState,
    repo_id: str,
    image_id: str,
    base: str | None,
    user_data: Any,
    options: Options,
) -> str:
    """Commit a copy of an image and return its id: of a disk also while its machine runs, where that can be spoken
    to."""

    def beside(found: Found) -> copy.Freeze | None:
        entry = _machine_of(context, state, found.repo_id, found.record.id)
        if entry is None:
            return None

        def freeze(kept: Kept, commit: Callable[[sources.Source], None]) -> None:
            def then(frozen: str) -> None:
                operation = Operation("copy", source=frozen, source_repository=found.repository.identity)
                commit(sources.locate(context, operation))

            snapshot.freeze(context, state, entry, found.repo_id, kept, then, options.quiesce)

        return freeze

    return copy.image(context, repo_id, image_id, base, user_data, options, beside)


def export_of(
    context: Context,
    state: HostState,
    repo_id: str,
    image: str,
    path: str,
    format: str,
    progress: Callable[[int], None],
    options: Mapping[str, Any] | None,
) -> None:
    """Write an image to a new file: of a disk also while its machine runs, where that can be spoken to: then what it
    contained when this was called."""
    parsed = parse("export_image", options)
    with _exporting(context, state, repo_id, image, _rate(parsed, options)) as rate:
        source = _readable(context, state, repo_id, image, parsed.quiesce)
        export.export(context, source, path, format, progress, rate)


def stream_of(
    context: Context,
    state: HostState,
    repo_id: str,
    image: str,
    write: Callable[[Data], None],
    options: Mapping[str, Any] | None,
) -> None:
    """Give ``write`` all bytes of an image, as ``export_of``."""
    parsed = parse("stream_image", options)
    with _exporting(context, state, repo_id, image, _rate(parsed, options)) as rate:
        export.stream(context, _readable(context, state, repo_id, image, parsed.quiesce), write, rate)


def _rate(parsed: Options, options: Mapping[str, Any] | None) -> int | None:
    """Return the rate that was asked for; None where none was, not even that there is no limit."""
    return parsed.rate if options is not None and "rate" in options else None


@contextlib.contextmanager
def _exporting(
    context: Context, state: HostState, repo_id: str, image: str, rate: int | None
) -> Iterator[Callable[[], int]]:
    """Yield what tells how many bytes per second an export in this process may move now. Until the end of the block
    ``tasks.limit`` finds it, as far as it can be noted. None: no limit, and nothing is noted."""
    if rate is None:
        yield lambda: 0
        return
    doors, identity = context.doors, context.repository(repo_id).identity
    own, now = doors.processes.own(), doors.clock.wall()
    note = Task(doors.ids.new_id(), own, identity, repo_id, image, EXPORT, "", now, "", (image,), (), rate)
    try:
        with contextlib.suppress(DiskwrightError):  # the data counts; it goes on at the rate that it was begun with
            state.save_task(note)
        yield pace.noted(doors.clock, lambda: state.rate(note.id), rate)
    finally:
        state.forget_task(note)


@contextlib.contextmanager
def _readable(context: Context, state: HostState, repo_id: str, image: str, quiesce: bool) -> Iterator[export.Readable]:
    """Yield what the image is read by, and keep it until the end of the block."""
    with contextlib.ExitStack() as stack:
        yield _begun(stack, context, state, repo_id, image, quiesce)


def _begun(
    stack: contextlib.ExitStack, context: Context, state: HostState, repo_id: str, image_id: str, quiesce: bool
) -> export.Readable:
    record = context.visible(repo_id, require_id(image_id, "image_id"))
    try:
        return stack.enter_context(export.reading(context, repo_id, record))
    except ImageBusy:
        entry = _machine_of(context, state, repo_id, image_id) if record.mutable else None
        if entry is None:
            raise
    found: list[export.Readable] = []

    def then(frozen: str) -> None:
        now = changes.read(context.repository(repo_id), frozen).record
        found.append(stack.enter_context(export.reading(context, repo_id, now)))

    snapshot.freeze(context, state, entry, repo_id, None, then, quiesce)
    return found[0]


def _machine_of(context: Context, state: HostState, repo_id: str, image: str) -> Prepared | None:
    entry = machines.entry_of(context, state, context.repository(repo_id), image)
    return entry if entry is not None and entry.monitor else None
