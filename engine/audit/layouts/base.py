"""What a layout must supply, and what names of files tell in all of them."""

from __future__ import annotations

import posixpath
from typing import Protocol

from engine.audit.model import Candidate, Contents, Role, Stated
from engine.audit.places import Name, Places

IMAGE_ENDS = (".qcow2", ".qcow", ".qed", ".img", ".raw", ".dsk", ".vmdk", ".vdi", ".vhd", ".vhdx")
_STATED = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx", ".qed": "qed", ".raw": "raw"}
_METADATA_ENDS = (
    ".xml",
    ".ovf",
    ".conf",
    ".cfg",
    ".vmx",
    ".vbox",
    ".json",
    ".meta",
    ".lease",
    ".notes",
    ".log",
    ".txt",
)
_REMNANT_ENDS = (".partial", ".part", ".tmp", ".filepart", ".crdownload")
_BACKUP_ENDS = (".vma", ".xz", ".gz", ".zst", ".lzo", ".bz2", ".tar", ".ova", ".zip")


class Layout(Protocol):
    """One way to lay out images. Looks at names, and reads no more than small files of metadata."""

    @property
    def name(self) -> str:
        """How people know it."""

    def recognises(self, places: Places, root: str) -> bool:
        """Tell whether the directory ``root`` is laid out in this way."""

    def contents(self, places: Places, root: str) -> Contents:
        """Return what each regular file below ``root`` is. Every one is among the candidates; what the layout does not
        know may be an image. Never raises for what it finds there."""


def plain(name: Name, remedy: tuple[str, ...] = ()) -> Candidate:
    """Return what a file is by its name alone."""
    base = posixpath.basename(name.path)
    lower = base.lower()
    stated = next((Stated("its name", format) for end, format in _STATED.items() if lower.endswith(end)), None)
    if "/nvram/" in name.path or lower.endswith((".nvram", "_vars.fd")) or "_vars." in lower:
        return Candidate(Role.NVRAM)
    if "/swtpm/" in name.path or "permall" in lower or lower.endswith(".tpmstate"):
        return Candidate(Role.TPM)
    if lower.endswith(_REMNANT_ENDS):
        return Candidate(Role.REMNANT)
    if lower.endswith(_METADATA_ENDS):
        return Candidate(Role.METADATA)
    if lower.endswith(_BACKUP_ENDS):
        return Candidate(Role.BACKUP)
    if lower.endswith(".iso"):
        return Candidate(Role.MEDIUM)
    return Candidate(Role.IMAGE, stated=stated, remedy=remedy)
