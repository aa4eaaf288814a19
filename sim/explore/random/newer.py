"""A newer program at work beside this one, as far as an older one can meet it: a repository in a format of its own, and
a record of an image in one.

Only the newer program knows what these mean. This one must leave them, and the data that they may speak of, as they
are.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from engine.data.decoding import decode
from engine.data.records import canonical
from engine.errors import DiskwrightError
from engine.formats.files import layout
from sim.disk.files import SimFiles
from sim.explore.cases.case import put_identity

NEEDS = "what-only-a-newer-program-knows"
_RECORD = b"dw2 24\nas a newer program has it"
_MOST_BYTES = 1 << 20


def upgrade(files: SimFiles, root: str) -> bytes:
    """Have a repository need what only a newer program knows; return what it said of itself before."""
    text = files.read_file(f"{root}/{layout.IDENTITY_FILE}", _MOST_BYTES)
    data = json.loads(text)
    identity = data.pop("identity", None) or data.pop("id")
    put_identity(files, root, canonical({**data, "id": identity, "needs": [*data.get("needs", []), NEEDS]}) + b"\n")
    return text


def downgrade(files: SimFiles, root: str, text: bytes) -> None:
    """Undo that."""
    put_identity(files, root, text)


class Written:
    """The record of an image, as a newer program has written it over one of ours."""

    def __init__(self, files: SimFiles, root: str, image: str, generation: int, ours: bytes) -> None:
        """``ours``: the newest record, of the generation before."""
        self._files, self._image, self._generation, self._ours = files, image, generation, ours
        self._folder = f"{root}/{layout.tag_shard(image)}"
        self._path = f"{self._folder}/{layout.tag_name(image, generation)}"
        volumes = decode(ours, image).volumes()
        paths = [f"{root}/{layout.volume_path(volume.id, volume.format)}" for volume in volumes]
        self._volumes = {path: self._content(path) for path in paths}
        self._put(self._path, _RECORD)

    @classmethod
    def over(cls, files: SimFiles, root: str, image: str) -> Written | None:
        """Write it; None when there is no record of the image that can be read."""
        folder = f"{root}/{layout.tag_shard(image)}"
        newest = max(_generations(files, folder, image), default=0)
        try:
            ours = files.read_file(f"{folder}/{layout.tag_name(image, newest)}", _MOST_BYTES)
            return cls(files, root, image, newest + 1, ours)
        except (OSError, DiskwrightError):
            return None

    def harm(self) -> Iterator[str]:
        """What has been done to it."""
        if max(_generations(self._files, self._folder, self._image), default=0) != self._generation:
            yield "its record is not the newest any more"
        elif self._files.read_file(self._path, _MOST_BYTES) != _RECORD:
            yield "its record is changed"
        for path, content in self._volumes.items():
            if self._content(path) != content:
                yield f"its volume {path} was changed"

    def undo(self) -> None:
        """Have ours be the newest again, under the name that it had."""
        for generation in _generations(self._files, self._folder, self._image):
            if generation >= self._generation:
                self._files.unlink(f"{self._folder}/{layout.tag_name(self._image, generation)}")
        before = self._generation - 1
        if before not in _generations(self._files, self._folder, self._image):
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(f"{self._folder}/{layout.tag_name(self._image, before, before=True)}")
            self._put(f"{self._folder}/{layout.tag_name(self._image, before)}", self._ours)
        self._files.sync_directory(self._folder)

    def _put(self, path: str, data: bytes) -> None:
        with self._files.create(path) as handle:
            handle.write_at(0, data)
            handle.sync()
        self._files.sync_directory(self._folder)

    def _content(self, path: str) -> bytes:
        try:
            return self._files.storage.file(path)[1].content.digest
        except OSError:
            return b""


def _generations(files: SimFiles, folder: str, image: str) -> list[int]:
    names = [entry.name.partition(".") for entry in files.list_directory(folder)]
    return [int(generation, 16) for tag, _, generation in names if tag == image and len(generation) == 16]
