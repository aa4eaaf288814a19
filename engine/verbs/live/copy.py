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
from collections.abc import Callable, Iterator
from typing import Any

from engine.data.kept import Kept
from engine.data.model import require_id
from engine.data.options import Options
from engine.data.records import Operation
from engine.doors.images import Data
from engine.errors import ImageBusy
from engine.host import machines
from engine.host.state import HostState, Prepared
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

            snapshot.freeze(context, state, entry, found.repo_id, kept, then)

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
) -> None:
    """Write an image to a new file: of a disk also while its machine runs, where that can be spoken to: then what it
    contained when this was called."""
    export.export(context, _readable(context, state, repo_id, image), path, format, progress)


def stream_of(context: Context, state: HostState, repo_id: str, image: str, write: Callable[[Data], None]) -> None:
    """Give ``write`` all bytes of an image, as ``export_of``."""
    export.stream(context, _readable(context, state, repo_id, image), write)


@contextlib.contextmanager
def _readable(context: Context, state: HostState, repo_id: str, image: str) -> Iterator[export.Readable]:
    """Yield what the image is read by, and keep it until the end of the block."""
    with contextlib.ExitStack() as stack:
        yield _begun(stack, context, state, repo_id, image)


def _begun(
    stack: contextlib.ExitStack, context: Context, state: HostState, repo_id: str, image_id: str
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

    snapshot.freeze(context, state, entry, repo_id, None, then)
    return found[0]


def _machine_of(context: Context, state: HostState, repo_id: str, image: str) -> Prepared | None:
    entry = machines.entry_of(state, context.repository(repo_id), image)
    return entry if entry is not None and entry.monitor else None
