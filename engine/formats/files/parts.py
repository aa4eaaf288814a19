"""What a repository of files has beside its images: the directories, the lock file, and who it is.

While one is missing, what needs it says so; the rest goes on. Made again is what holds nothing (an empty directory, the
lock file), and ``repository.json``, of which there is a copy with a checksum. Never ``tags``, which held every record.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from engine.data.model import VolumeFormat
from engine.doors.files import Kind
from engine.errors import Damaged, DiskwrightError, ImageBusy, Refused, StorageError, from_os_error
from engine.formats.base import Missing
from engine.formats.files import layout
from engine.formats.files.tree import Tree, is_gone

_HELD = {
    layout.LOCKS_FILE: "leases",
    layout.IDENTITY_FILE: "identity",
    "volumes": "volumes",
    **dict.fromkeys(("progress", "digests", "tmp", "lost"), "nothing"),
}
"""Parts that are told when they are missing, and what they held. The copy is made at the first change."""


_MOST_NAMED = 8
"""Volumes in one message."""

USES = "uses"
"""Told by a scan of the tags when one is missing, or when there are none because the repository is from before."""


class Parts:
    """The parts of one repository."""

    def __init__(
        self, tree: Tree, identity: str, text: Callable[[], bytes], enter_uses: Callable[[], None] = lambda: None
    ) -> None:
        """``text``: what ``repository.json`` of the repository with that identity says, or said. ``enter_uses`` makes
        missing ones again; there are none where there are no records yet."""
        self._enter_uses = enter_uses
        self._tree = tree
        self._files = tree.files
        self._identity = identity
        self._text = text

    def look(self) -> tuple[list[Missing], list[str]]:
        """Return the parts that ``make`` can make again and that are not as they must be; and the names at the top
        that are no part of a repository. Nothing when it cannot be listed."""
        try:
            entries = self._files.list_directory(self._tree.root)
        except OSError:
            return [], []  # it was listed when the repository was opened
        names = {entry.name for entry in entries}
        missing = [Missing(name, held) for name, held in _HELD.items() if name not in names]
        for name, wanted in self._texts().items():
            if name in names and self._says(name, wanted) is False:
                missing.append(Missing(name, "identity"))
        return missing, sorted(names - layout.PARTS)

    def make(self, name: str) -> None:
        """Make a part again: what says who the repository is from its other copy, the rest empty. Durable; success when
        it is there as it must be."""
        if name == USES:
            self._enter_uses()
            return
        with self._tree.from_os_errors(f"make {name} of the repository again"):
            if name in self._texts():
                self._write_alone(name)
            elif name == layout.LOCKS_FILE:
                with contextlib.suppress(FileExistsError), self._files.create(self._tree.path(name)) as handle:
                    handle.sync()
            elif name in _HELD:
                with contextlib.suppress(FileExistsError):
                    self._files.make_directory(self._tree.path(name))
                if name == "volumes" and self._tree.access is not None:
                    self._files.let_pass(self._tree.path(name))
            else:
                raise Damaged(f"{name!r:.80} is nothing that can be made again", "Restore it from a backup")
            self._files.sync_directory(self._tree.root)

    def require_unlocked(self, volumes: Mapping[str, VolumeFormat]) -> None:
        """Try the lock of a writer, which keeps away and is kept away by all others."""
        unasked = {}
        for volume, format in sorted(volumes.items()):
            try:
                if not self._is_free(layout.volume_path(volume, format)):
                    raise ImageBusy(
                        f"volume {volume} is in use by somebody, whose lease is of the lock file before",
                        "Tear its image down, or stop the work on it, on the host where that runs; then try again",
                    )
            except OSError as error:
                unasked[volume] = from_os_error(error, "open it").message
        if unasked:
            named = "; ".join(f"{volume}: {why}" for volume, why in list(unasked.items())[:_MOST_NAMED])
            raise Refused(
                f"who uses {len(unasked)} of the {len(volumes)} volumes cannot be asked; nobody has the rest ({named})",
                "Repair them and try again. If no host uses them for certain, make an empty file "
                f"{layout.LOCKS_FILE} in {self._tree.root} by hand, and connect the repository with --accept-moved",
            )

    def _is_free(self, path: str) -> bool:
        with contextlib.suppress(FileNotFoundError), self._files.open(self._tree.path(path), writable=True) as handle:
            return handle.lock()
        return True

    def keep_copy(self) -> None:
        """Write the copy where there is none: repositories that were made before have none. Never raises for the
        storage."""
        try:
            self._files.stat(self._tree.path(layout.COPY_FILE))
        except FileNotFoundError:
            with contextlib.suppress(OSError, DiskwrightError):
                self._add(layout.COPY_FILE, layout.encode_copy(self._text()))
        except OSError:
            pass

    def say(self, text: bytes, *names: str) -> None:
        """Have these files, of the two that tell who the repository is, say that, one after the other. Durable. A file
        that cannot be read may say something else to others, so it is written."""
        for name, content in ((name, _both(text)[name]) for name in names):
            if not self._says(name, content):
                self._write(name, content)
            self._files.sync_directory(self._tree.root)

    def _texts(self) -> dict[str, bytes]:
        return _both(self._text())

    def _says(self, name: str, wanted: bytes) -> bool | None:
        """Whether a file says that; None where it cannot be read."""
        try:
            return self._files.read_file(self._tree.path(name), layout.MAX_IDENTITY_BYTES) == wanted
        except OSError as error:
            return False if is_gone(error) or layout.is_no_small_file(error) else None

    def _write_alone(self, name: str) -> None:
        """Write it while nobody changes what it has to say."""
        lease = self._tree.leases.try_acquire(self._identity)
        if lease is None:
            raise ImageBusy(f"somebody else writes {name}", "Wait for it, and check again")
        try:
            content = self._texts()[name]
            self._files.sync_directory(self._tree.root)  # what the other one says was seen, and may not be durable
            if self._says(name, content) is False:
                self._write(name, content)
        finally:
            lease.release()

    def _write(self, name: str, content: bytes) -> None:
        """Put a whole file in the place of whatever is there."""
        temporary = self._tree.write_temporary("repository", content)
        try:
            self._files.rename(temporary.path, self._tree.path(name))
        finally:
            self._tree.discard(temporary)

    def _add(self, name: str, content: bytes) -> None:
        """Put a whole file where there is none."""
        temporary = self._tree.write_temporary("repository", content)
        try:
            with contextlib.suppress(FileExistsError):
                self._files.link(temporary.path, self._tree.path(name))
        finally:
            self._tree.discard(temporary)


def _both(text: bytes) -> dict[str, bytes]:
    return {layout.IDENTITY_FILE: text, layout.COPY_FILE: layout.encode_copy(text)}


class Said:
    """What a repository says of itself, as far as it was looked at. No state comes after one that is behind it."""

    def __init__(self, tree: Tree, found: layout.Identity) -> None:
        self._tree = tree
        self.found = found

    def again(self) -> layout.Identity:
        """Read it afresh, where it may have changed. Raises plain ``OSError``, Damaged, StorageError."""
        if not self.found.uses:
            kinds = {entry.name: entry.kind for entry in self._tree.files.list_directory(self._tree.root)}
            now = read_identity(self._tree, kinds)
            if now is None or now.identity != self.found.identity:
                raise StorageError(f"what stands at {self._tree.root} is another repository now", "Connect it again")
            if now.enters:
                self.found = now._replace(access=self.found.access, unclear=self.found.unclear)
        return self.found

    def text(self) -> bytes:
        """Return what both files are to say; what was known where neither can be read."""
        try:
            return self.again().text
        except (OSError, Damaged, StorageError):
            return self.found.text


def read_identity(tree: Tree, kinds: dict[str, Kind]) -> layout.Identity | None:
    """Return who the repository is: as the copy says, whose checksum is right; without one as ``repository.json`` does;
    None when neither is there. ``kinds``: what is at the top. Damaged, Refused for a newer major version,
    StorageError."""
    copied = _read(tree, layout.COPY_FILE) if layout.COPY_FILE in kinds else None
    text = layout.decode_copy(copied) if isinstance(copied, bytes) else None
    if text is not None:
        return layout.decode_identity(text, tree.root)
    if layout.IDENTITY_FILE not in kinds:
        return None
    said, path = _read(tree, layout.IDENTITY_FILE), tree.path(layout.IDENTITY_FILE)
    if not isinstance(said, OSError):
        return layout.decode_identity(said, tree.root)
    if layout.is_no_small_file(said):
        raise Damaged(f"{path} is not a small regular file", "Restore it from a backup")
    raise from_os_error(said, f"read {path}") from said


def _read(tree: Tree, name: str) -> bytes | OSError:
    try:
        return tree.files.read_file(tree.path(name), layout.MAX_IDENTITY_BYTES)
    except OSError as error:
        return error
