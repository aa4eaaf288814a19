"""A file domain of VDSM (oVirt): DOMAIN/images/IMAGE/VOLUME, with VOLUME.meta and VOLUME.lease beside it.

A volume of a template is a hard link in each image that was made of it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any

from engine.audit import rules
from engine.audit.layouts.base import plain
from engine.audit.layouts.vdsm.metadata import REMOVED, Metadata, candidate, disagreement, is_uuid, parse
from engine.audit.model import Candidate, Contents, Found, Role
from engine.audit.places import Name, Places
from engine.doors.files import Kind

_META, _LEASE, _META_NEW = ".meta", ".lease", ".meta.new"
_MAX_META_BYTES = 64 << 10


class Vdsm:
    """A directory that is a domain, or has domains."""

    name = "vdsm"

    def recognises(self, places: Places, root: str) -> bool:
        """Look for dom_md beside images."""
        return bool(_domains(places, root))

    def contents(self, places: Places, root: str) -> Contents:
        """Go by the metadata of each volume."""
        candidates = {name.path: Candidate(Role.METADATA) for name in places.files(root)}
        found: list[Found] = []
        for domain in _domains(places, root):
            images = f"{domain}/images"
            for image in places.children.get(images, ()):
                path = f"{images}/{image}"
                if path in places.unreadable or path not in places.children:
                    continue
                if image.startswith(REMOVED):
                    files = list(places.files(path))
                    candidates.update((name.path, Candidate(Role.REMNANT)) for name in files)
                    held = sum(name.stat.allocated for name in files if name.stat.links == 1)
                    found.append(Found(rules.A_REMNANT, path, {}, "removal", held))
                else:
                    folder = _Folder(places, domain, image, path)
                    candidates.update(folder.candidates)
                    found += folder.found
        return Contents(self.name, candidates, tuple(found))


def _domains(places: Places, root: str) -> list[str]:
    """The domains at a directory, or one level below it."""
    below = [f"{root}/{name}" for name in places.children.get(root, ()) if is_uuid(name)]
    return [path for path in (root, *below) if {"dom_md", "images"} <= set(places.children.get(path, ()))]


class _Folder:
    """One image: a directory of volumes."""

    def __init__(self, places: Places, domain: str, image: str, path: str) -> None:
        self.candidates: dict[str, Candidate] = {}
        self.found: list[Found] = []
        self._places, self._domain, self._image, self._path = places, domain, image, path
        files = {
            name: places.names[f"{path}/{name}"]
            for name in places.children[path]
            if places.names[f"{path}/{name}"].stat.kind is Kind.FILE
        }
        volumes = [name for name in files if is_uuid(name)]
        metas = {name: _read(files[name + _META]) for name in volumes if name + _META in files}
        for name, file in files.items():
            if name in volumes:
                self._volume(file, name, metas.get(name))
            else:
                self._other(file, name, volumes)
        if not files:
            self.found.append(Found(rules.A_REMNANT, path, {}, "empty"))
        self.found += self._tops(metas)

    def _volume(self, file: Name, name: str, meta: Metadata | None) -> None:
        domain = posixpath.basename(self._domain)
        if meta is None or meta.problem:
            source = f"{name}{_META}"
            words: dict[str, Any] = {"name": source, "problem": f"{source}: {meta.problem if meta else ''}"}
            case = "unreadable" if meta else "missing"
            self.found.append(Found(rules.A_METADATA, file.path, words, case, file.stat.allocated))
            self.candidates[file.path] = Candidate(Role.IMAGE, (self._image, name))
            return
        self.candidates[file.path] = candidate(meta, f"{name}{_META}", domain, self._image, name)
        if not meta.legal:
            words = {"source": f"{name}{_META}", "domain": domain}
            self.found.append(Found(rules.A_ILLEGAL, file.path, words))

    def _other(self, file: Name, name: str, volumes: list[str]) -> None:
        if name.endswith(_META_NEW):
            self.candidates[file.path] = Candidate(Role.REMNANT)
        elif name.endswith((_META, _LEASE)):
            self.candidates[file.path] = Candidate(Role.METADATA)
            volume = posixpath.splitext(name)[0]
            if name.endswith(_META) and volume not in volumes:
                self.found.append(Found(rules.A_METADATA, file.path, {"name": volume}, "alone"))
        else:
            self.candidates[file.path] = plain(file)

    def _tops(self, metas: dict[str, Metadata]) -> Iterator[Found]:
        """Volumes whose metadata says that they are the top and something stands on them, or the other way round."""
        parents = {meta.parent for meta in metas.values()}
        for name, meta in metas.items():
            if says := disagreement(meta, name in parents):
                words: dict[str, Any] = {"source": f"{name}{_META}", "stated": says}
                yield Found(rules.A_DISAGREE, f"{self._path}/{name}", words, "metadata")


def _read(file: Name) -> Metadata:
    try:
        data = file.tree.read(file.inside, 0, _MAX_META_BYTES + 1)
    except OSError as error:
        return Metadata({}, error.strerror or str(error))
    if len(data) > _MAX_META_BYTES:
        return Metadata({}, f"it is longer than {_MAX_META_BYTES} bytes")
    return parse(data)
