"""Damage to a repository's files, found where ARCHITECTURE.md says that they lie. Nothing is ever judged by them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.adversary.oracle.findings import NotThere


def record_of(root: Path, image: str) -> Path:
    """Return the newest record of an image."""
    found = sorted((root / "tags" / image[:2]).glob(f"{image}.*"))
    if not found:
        raise NotThere(f"no record of {image}")
    return found[-1]


def volume_of(root: Path, image: str) -> Path:
    """Return the volume that the newest record of an image names."""
    try:
        volume = str(json.loads(record_of(root, image).read_bytes().partition(b"\n")[2])["volume"]["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotThere(f"no volume of {image}") from error
    found = list((root / "volumes" / volume[:2]).glob(f"{volume}.*"))
    if not found:
        raise NotThere(f"no file of volume {volume}")
    return found[0]


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[at % len(data)] ^= 1 << (at % 7)
        path.write_bytes(data)


def _shorten(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * (at % 90) // 100)


def _in_digests(root: Path, at: int) -> None:
    for path in sorted((root / "digests").iterdir()):
        _flip(path, at)


def _in_progress(root: Path, at: int) -> None:
    for path in sorted((root / "progress").iterdir()):
        _flip(path, at)


def _directory_gone(root: Path, at: int) -> None:
    shutil.rmtree(root / ("tmp", "lost", "progress", "digests")[at % 4])


# What is hurt: the image whose record it is ("record"), every image that shares its layers ("volume"), or none ("").
DAMAGES: dict[str, tuple[str, Callable[[Path, str, int], None]]] = {
    "record-bit": ("record", lambda root, image, at: _flip(record_of(root, image), at)),
    "record-short": ("record", lambda root, image, at: _shorten(record_of(root, image), at)),
    "volume-short": ("volume", lambda root, image, at: _shorten(volume_of(root, image), at)),
    "volume-gone": ("volume", lambda root, image, _at: volume_of(root, image).unlink()),
    "digests": ("", lambda root, _image, at: _in_digests(root, at)),
    "progress": ("", lambda root, _image, at: _in_progress(root, at)),
    "locks-gone": ("", lambda root, _image, _at: (root / "locks").unlink()),
    "directory-gone": ("", lambda root, _image, at: _directory_gone(root, at)),
}
