"""What an operator does to the directory of a repository, or to its volume group, with other tools: copies it, puts a
copy back, takes it away.

Everything is durable afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.doors.files import Files
from sim.hosts.trees import copy_file, copy_tree, remove_tree
from sim.scenario.language.model import Step
from sim.scenario.language.patterns import Piece, chunks
from sim.scenario.play.names import Names

METADATA = "metadata"
"""The part of a volume group that LVM itself knows of."""


def back_up(names: Names, step: Step) -> None:
    """Copy a repository as it is now, also while it is used."""
    values, backend = step.values, names.backend
    if group := backend.group(values["repository"]):
        assert backend.groups is not None, f"{backend.name} has no volume groups"
        backend.groups.back_up(step.host, group, values["as"], "part" not in values)
        return
    if "part" in values:
        raise names.impossible(step.line, "a repository that is a directory is copied as a whole")
    copy_tree(
        names.backend.files, names.backend.root(step.values["repository"]), names.backend.scratch(step.values["as"])
    )


def put_back(names: Names, step: Step) -> None:
    """Have the backup, or one file of it, stand where the repository is."""
    values, group = step.values, names.backend.group(step.values["repository"])
    if group:
        assert names.backend.groups is not None, f"{names.backend.name} has no volume groups"
        if values.get("part", METADATA) != METADATA:
            raise names.impossible(step.line, f"of a volume group the part {METADATA} can be put back, or all of it")
        names.backend.groups.put_back(step.host, group, values["backup"], "part" not in values)
        return
    files = names.backend.files
    root, backup = names.backend.root(values["repository"]), names.backend.scratch(values["backup"])
    if "part" in values:
        files.unlink(f"{root}/{values['part']}")
        copy_file(files, f"{backup}/{values['part']}", f"{root}/{values['part']}")
        files.sync_directory(root)
    else:
        files.rename(root, f"{root}.replaced")  # not removed before: what is put back has inodes of its own
        copy_tree(files, backup, root)
        remove_tree(files, f"{root}.replaced")


def unplug(names: Names, step: Step) -> None:
    """Take the storage away."""
    root = names.backend.root(step.values["repository"])
    _rename(names.backend.files, root, f"{root}.away")


def plug_in(names: Names, step: Step) -> None:
    """Have it where it was."""
    root = names.backend.root(step.values["repository"])
    _rename(names.backend.files, f"{root}.away", root)


def swap(names: Names, step: Step) -> None:
    """Have each of two repositories stand where the other was."""
    first, second = (names.backend.root(step.values[which]) for which in ("repository", "with"))
    for source, target in ((first, f"{first}.away"), (second, first), (f"{first}.away", second)):
        _rename(names.backend.files, source, target)


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
    "write_file": write_file, "swap": swap,
}  # fmt: skip


def _rename(files: Files, source: str, target: str) -> None:
    files.rename(source, target)
    files.sync_directory(source.rpartition("/")[0])
