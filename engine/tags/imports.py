"""Which files of this host the operator has named to be imported: no record makes a host read one of its files.

A record can come from a stranger, and all that it holds can be made up. What stands here was noted by this host when
somebody gave the path to it, and goes when the import is done. The notes are kept by ``engine.host.state``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.data.records import Operation, Record
from engine.errors import Refused


class NamedFile(NamedTuple):
    """A file that is to be imported, as it was when it was named."""

    path: str
    facts: tuple[int, ...]
    """As the record has them (``Operation.path_facts``)."""


class ImportNotes(Protocol):
    """What this host was told, by the identity of the repository and the id of the image."""

    def named_file(self, repository: str, image: str) -> NamedFile | None:
        """Return the file that was named here for that image, None when none was."""

    def name_file(self, repository: str, image: str, file: NamedFile) -> None:
        """Note the file; durable on return."""

    def forget_file(self, repository: str, image: str) -> None:
        """The import is done; idempotent."""


def is_named(notes: ImportNotes, repository: str, record: Record) -> bool:
    """Whether the file that the unfinished import ``record`` speaks of was named on this host."""
    assert record.operation is not None
    return notes.named_file(repository, record.id) == _spoken_of(record.operation)


def require_named(notes: ImportNotes, repository: str, tag: str, operation: Operation) -> NamedFile:
    """Return the file to read for the import of ``tag``. Refused where it was not named on this host."""
    file = notes.named_file(repository, tag)
    if file is None or file != _spoken_of(operation):
        raise Refused(
            f"this host does not read {operation.path!r:.200} for the import of {tag}: nobody named that file here",
            "Run the fix where the import was begun, or give the path: diskwright fix REPO FIX --path FILE",
        )
    return file


def _spoken_of(operation: Operation) -> NamedFile:
    return NamedFile(operation.path, operation.path_facts)
