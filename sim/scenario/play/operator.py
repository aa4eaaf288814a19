"""What an operator does to the directory of a repository with other tools: copies it, puts a copy back, takes it away.

Everything is durable afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.doors.files import Files, Kind
from sim.scenario.language.model import Step
from sim.scenario.language.patterns import Piece, chunks
from sim.scenario.play.names import Names

_PIECE = 1 << 20


def back_up(names: Names, step: Step) -> None:
    """Copy a repository as it is now, also while it is used."""
    copy_tree(
        names.backend.files, names.backend.root(step.values["repository"]), names.backend.scratch(step.values["as"])
    )


def put_back(names: Names, step: Step) -> None:
    """Have the backup, or one file of it, stand where the repository is."""
    files, values = names.backend.files, step.values
    root, backup = names.backend.root(values["repository"]), names.backend.scratch(values["backup"])
    if "part" in values:
        files.unlink(f"{root}/{values['part']}")
        copy_file(files, f"{backup}/{values['part']}", f"{root}/{values['part']}")
        files.sync_directory(root)
    else:
        remove_tree(files, root)
        copy_tree(files, backup, root)


def unplug(names: Names, step: Step) -> None:
    """Take the storage away."""
    root = names.backend.root(step.values["repository"])
    _rename(names.backend.files, root, f"{root}.away")


def plug_in(names: Names, step: Step) -> None:
    """Have it where it was."""
    root = names.backend.root(step.values["repository"])
    _rename(names.backend.files, f"{root}.away", root)


def write_file(names: Names, step: Step) -> None:
    """Write into an image file of a user's."""
    values = step.values
    piece = Piece(values["pattern"], values.get("at", 0), values["length"], values.get("every", 0),
                  values.get("times", 1))  # fmt: skip
    with names.backend.files.open(names.file(values["file"], step.lines["file"]), writable=True) as handle:
        for start, data in chunks([piece]):
            handle.write_at(start, data)
        handle.sync()


OF_OPERATORS: dict[str, Callable[[Names, Step], None]] = {
    "back_up": back_up, "put_back": put_back, "unplug": unplug, "plug_in": plug_in,
    "write_file": write_file,
}  # fmt: skip


def _rename(files: Files, source: str, target: str) -> None:
    files.rename(source, target)
    files.sync_directory(source.rpartition("/")[0])


def copy_tree(files: Files, source: str, target: str) -> None:
    """Copy a directory with all that is in it to a name that is free: other inodes, equal contents."""
    files.make_directory(target)
    for entry in sorted(files.list_directory(source)):
        if entry.kind is Kind.DIRECTORY:
            copy_tree(files, f"{source}/{entry.name}", f"{target}/{entry.name}")
        elif entry.kind is Kind.FILE:
            copy_file(files, f"{source}/{entry.name}", f"{target}/{entry.name}")
    files.sync_directory(target)
    files.sync_directory(target.rpartition("/")[0])


def copy_file(files: Files, source: str, target: str) -> None:
    """Copy a file to a name that is free; zeros stay holes."""
    with files.open(source) as reader, files.create(target) as writer:
        size = reader.stat().size
        for start in range(0, size, _PIECE):
            data = reader.read_at(start, _PIECE)
            if data.strip(b"\0"):
                writer.write_at(start, data)
        writer.truncate(size)
        writer.sync()


def remove_tree(files: Files, path: str) -> None:
    """Remove a directory with all that is in it."""
    for entry in files.list_directory(path):
        if entry.kind is Kind.DIRECTORY:
            remove_tree(files, f"{path}/{entry.name}")
        else:
            files.unlink(f"{path}/{entry.name}")
    files.remove_directory(path)
    files.sync_directory(path.rpartition("/")[0])
