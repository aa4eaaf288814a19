"""A file domain of VDSM (oVirt): DOMAIN/images/IMAGE/VOLUME, with VOLUME.meta and VOLUME.lease beside it.

Metadata is KEY=VALUE: version 4 has SIZE in blocks of 512 bytes, version 5 has CAP in bytes. A volume of a template is
a hard link in each image that was made of it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.audit import rules
from engine.audit.layouts.base import plain
from engine.audit.model import Candidate, Contents, Found, Role, Stated
from engine.audit.places import Name, Places
from engine.doors.files import Kind

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_NO_PARENT = "00000000-0000-0000-0000-000000000000"
_REMOVED = "_remove_me_"
_META, _LEASE, _META_NEW = ".meta", ".lease", ".meta.new"
_MAX_META_BYTES = 64 << 10
_FORMATS = {"RAW": "raw", "COW": "qcow2"}
_MEMORY = frozenset({"MEMD", "MEMM"})
_BY_ITSELF = {"OVFS": "definitions of machines", "HEVD": "the hosted engine", "HESD": "the hosted engine"}
"""Kinds of disks (DISKTYPE) that no definition of a machine names, and what needs them."""


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
                if image.startswith(_REMOVED):
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
    below = [f"{root}/{name}" for name in places.children.get(root, ()) if _UUID.match(name)]
    return [path for path in (root, *below) if {"dom_md", "images"} <= set(places.children.get(path, ()))]


class _Meta(NamedTuple):
    """Metadata of a volume."""

    fields: dict[str, str]
    problem: str


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
        volumes = [name for name in files if _UUID.match(name)]
        metas = {name: _read(files[name + _META]) for name in volumes if name + _META in files}
        for name, file in files.items():
            if name in volumes:
                self._volume(file, name, metas.get(name))
            else:
                self._other(file, name, volumes)
        if not files:
            self.found.append(Found(rules.A_REMNANT, path, {}, "empty"))
        self.found += self._tops(metas)

    def _volume(self, file: Name, name: str, meta: _Meta | None) -> None:
        mentions = (self._image, name)
        # This volume alone: others of the image may be needed. Unforced it is refused where one stands on it.
        remedy = (
            "vdsm-client", "Volume", "delete", f"volumeID={name}", "storagepoolID=POOL",
            f"storagedomainID={posixpath.basename(self._domain)}", f"imageID={self._image}",
            "postZero=false", "force=false",
        )  # fmt: skip
        if meta is None or meta.problem:
            source = f"{name}{_META}"
            words: dict[str, Any] = {"name": source, "problem": f"{source}: {meta.problem if meta else ''}"}
            case = "unreadable" if meta else "missing"
            self.found.append(Found(rules.A_METADATA, file.path, words, case, file.stat.allocated))
            self.candidates[file.path] = Candidate(Role.IMAGE, mentions)
            return
        fields = meta.fields
        kind = fields.get("DISKTYPE", "")
        needed = _BY_ITSELF.get(kind, "a template" if fields.get("VOLTYPE") == "SHARED" else "")
        role = Role.MEMORY if kind in _MEMORY else Role.IMAGE
        self.candidates[file.path] = Candidate(role, mentions, _stated(name, fields), remedy, needed)
        if fields.get("LEGALITY", "LEGAL") != "LEGAL":
            words = {"source": f"{name}{_META}", "domain": posixpath.basename(self._domain)}
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

    def _tops(self, metas: dict[str, _Meta]) -> Iterator[Found]:
        """Volumes whose metadata says that they are the top and something stands on them, or the other way round."""
        parents = {meta.fields.get("PUUID", _NO_PARENT) for meta in metas.values()}
        for name, meta in metas.items():
            kind = meta.fields.get("VOLTYPE", "")
            says = ""
            if kind == "LEAF" and name in parents:
                says = "that it is the top of its chain (LEAF), and another volume stands on it"
            elif kind == "INTERNAL" and name not in parents:
                says = "that another volume stands on it (INTERNAL), and none does"
            if says:
                words: dict[str, Any] = {"source": f"{name}{_META}", "stated": says}
                yield Found(rules.A_DISAGREE, f"{self._path}/{name}", words, "metadata")


def _read(file: Name) -> _Meta:
    try:
        data = file.tree.read(file.inside, 0, _MAX_META_BYTES + 1)
    except OSError as error:
        return _Meta({}, error.strerror or str(error))
    if len(data) > _MAX_META_BYTES:
        return _Meta({}, f"it is longer than {_MAX_META_BYTES} bytes")
    lines = data.rstrip(b"\0").decode("utf-8", "backslashreplace").split("\n")
    if "EOF" not in lines:
        return _Meta({}, "it does not end with EOF")
    fields: dict[str, str] = {}
    for line in lines[: lines.index("EOF")]:
        key, equals, value = line.partition("=")
        if not equals:
            return _Meta({}, f"the line {line[:60]!r} is not KEY=VALUE")
        fields[key.strip()] = value.strip()
    wrong = [key for key in ("FORMAT", "PUUID") if key not in fields]
    if fields.get("FORMAT", "RAW") not in _FORMATS:
        return _Meta({}, f"FORMAT is {fields['FORMAT'][:20]!r}")
    if not _UUID.match(fields.get("PUUID", _NO_PARENT)):
        return _Meta({}, f"PUUID is {fields['PUUID'][:40]!r}, which is no id")
    if _size(fields) < 0:
        wrong.append("CAP")
    return _Meta(fields, f"{' and '.join(wrong)} is missing or no number" if wrong else "")


def _size(fields: dict[str, str]) -> int:
    """The virtual size in bytes, -1 where it is not said."""
    for key, unit in (("CAP", 1), ("SIZE", 512)):
        text = fields.get(key, "")
        if text.isascii() and text.isdigit() and len(text) < 20:
            return int(text) * unit
    return -1


def _stated(name: str, fields: dict[str, str]) -> Stated:
    parent = fields["PUUID"]
    return Stated(f"{name}{_META}", _FORMATS[fields["FORMAT"]], _size(fields), "" if parent == _NO_PARENT else parent)
