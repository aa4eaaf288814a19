"""Helpers: images made by the real tools, an audit of directories, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from engine.audit.audit import audit
from engine.audit.model import Audited, AuditReport
from engine.tools.local.trees import RealTree
from engine.tools.qemu.images import QemuImageTool
from tests.tools.qcow2_kit import qemu_img

MIB = 1 << 20


def tool(*words: str | Path) -> None:
    done = qemu_img(*words)
    assert done.returncode == 0, done.stderr


def image(path: Path, backing: str = "", size: str = "8M", stated: str = "qcow2") -> Path:
    """Make a qcow2 image; what it stands on need not be there."""
    below = ("-u", "-b", backing, "-F", stated) if backing else ()
    tool("create", "-q", "-f", "qcow2", *below, path, size)
    return path


def raw(path: Path, content: bytes = b"", size: int = 2 * MIB) -> Path:
    with open(path, "wb") as stream:
        stream.write(content)
        stream.truncate(size)
    return path


class Looked:
    """A report, to ask what it says of a file by its path below ``top``."""

    def __init__(self, report: AuditReport, top: Path) -> None:
        self.report, self.top = report, top

    def _name(self, path: str) -> str:
        return path.removeprefix(f"{self.top}/")

    def rules(self, *left_out: str) -> dict[str, set[str]]:
        """The rules of each file that something was found of."""
        found: dict[str, set[str]] = {}
        for one in self.report.findings:
            if one.rule not in left_out:
                found.setdefault(self._name(one.path), set()).add(one.rule)
        return found

    def files(self, rule: str) -> set[str]:
        return {self._name(found.path) for found in self.report.findings if found.rule == rule}

    def reasons(self, path: str) -> list[str]:
        return [found.reason for found in self.report.findings if self._name(found.path) == path]

    def image(self, path: str) -> Audited:
        return next(image for image in self.report.images if self._name(image.path) == path)


def look(
    places: Sequence[Path], vms: Sequence[Path] = (), complete: bool = True, deep: bool = False, top: Path | None = None
) -> Looked:
    with ExitStack() as stack:
        trees = [[stack.enter_context(closing(RealTree(str(path)))) for path in paths] for paths in (places, vms)]
        report = audit(trees[0], trees[1], complete and bool(vms), QemuImageTool() if deep else None)
    return Looked(report, top or places[0])


def domain(path: Path, name: str, inside: str) -> Path:
    """A definition of a machine, as libvirt writes it."""
    path.write_text(
        f"<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{name}</name>"
        f"<devices>{inside}</devices></domain>",
        encoding="utf-8",
    )
    return path


def disk(source: str | Path, format: str = "qcow2") -> str:
    return f"<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{source}'/></disk>"
