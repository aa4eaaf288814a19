"""Copying and removing directories with all that is in them, as an operator's tools do; what is copied is durable."""

from __future__ import annotations

from engine.doors.files import Files, Kind

_PIECE = 1 << 20


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
