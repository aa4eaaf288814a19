"""A block domain of VDSM (oVirt): a volume group with a logical volume for each volume, named by its id.

Tags of a logical volume say its image (``IU_``), its parent (``PU_``), and the slot of its metadata (``MD_``) in the
logical volume ``metadata``. A template is there once; volumes of other images stand on it. An image whose removal has
begun has that in its tag.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from engine.audit import rules
from engine.audit.layouts.vdsm.metadata import (
    NO_PARENT,
    REMOVED,
    Metadata,
    candidate,
    disagreement,
    is_uuid,
    parse,
)
from engine.audit.layouts.volumes import mentions, volume_candidate
from engine.audit.model import Candidate, Contents, Found, Role
from engine.audit.places import Name, Places
from engine.doors.volume_groups import LogicalVolume, VolumeGroup

_DOMAIN = "RHAT_storage_domain"
_METADATA = "metadata"
_SPECIAL = frozenset({_METADATA, "ids", "leases", "inbox", "outbox", "xleases", "master"})
_IMAGE, _PARENT, _SLOT = "IU_", "PU_", "MD_"
_REMOVALS = (REMOVED, "_REMOVED_")
_UNFINISHED = frozenset({"OVIRT_VOL_INITIALIZING", "OVIRT_VOL_VOLATILE"})
_VERSION, _POOL = "MDT_VERSION=", "MDT_POOL_UUID="
_PLACES = {4: (0, 512), 5: (1 << 20, 8 << 10)}
"""Where the slots begin and how long each is, from that version on."""
_CLEARED = b"NONE="
_MAX_DIGITS = 9


class VdsmGroup:
    """A volume group that is a domain."""

    name = "vdsm"

    def recognises(self, places: Places, root: str) -> bool:
        """Look for the tag of domains, or for the volumes that each has."""
        group = places.groups.get(root)
        if group is None:
            return False
        return any(tag.startswith(_DOMAIN) for tag in group.tags) or {_METADATA, "ids", "leases"} <= set(group.volumes)

    def contents(self, places: Places, root: str) -> Contents:
        """Go by the tags and the metadata of each volume."""
        group = places.groups.get(root)
        if group is None:
            return Contents(self.name, {name.path: Candidate(Role.IMAGE) for name in places.files(root)})
        domain = _Domain(group, root, list(places.files(root)))
        return Contents(self.name, domain.candidates, tuple(domain.found), tuple(domain.aliases()))


class _Domain:
    def __init__(self, group: VolumeGroup, root: str, names: list[Name]) -> None:
        self.candidates: dict[str, Candidate] = {}
        self.found: list[Found] = []
        self._group, self._root = group, root
        self._metadata = next((name for name in names if name.inside == _METADATA), None)
        living = [volume for volume in group.volumes.values() if not _is_removed(volume)]
        self._parents = {parent for volume in living for parent in _tagged(volume, _PARENT)}
        self._slots = Counter(slot for volume in living for slot in _tagged(volume, _SLOT))
        for name in names:
            self._take(name, group.volumes[name.inside])

    def aliases(self) -> list[tuple[str, str]]:
        """The directories in which VDSM has links to the volumes of an image; and what ``../IMAGE/`` leads to."""
        pools = [tag.removeprefix(_POOL) for tag in self._group.tags if tag.startswith(_POOL)]
        domain = self._group.name
        above = [
            f"/rhev/data-center/mnt/blockSD/{domain}/images", f"/run/vdsm/storage/{domain}",
            f"/var/run/vdsm/storage/{domain}", *(f"/rhev/data-center/{pool}/{domain}/images" for pool in pools), "/dev",
        ]  # fmt: skip
        images = {image for volume in self._group.volumes.values() for image in _tagged(volume, _IMAGE)}
        return [(f"{path}/{image}", self._root) for image in sorted(images) if is_uuid(image) for path in above]

    def _take(self, name: Name, volume: LogicalVolume) -> None:
        if volume.name in _SPECIAL:
            self.candidates[name.path] = Candidate(Role.METADATA)
        elif _is_removed(volume):
            self._removed(name, volume)
        elif volume.tags & _UNFINISHED and volume.name not in self._parents:
            self.candidates[name.path] = Candidate(Role.REMNANT)  # which is told as one of an operation
        elif is_uuid(volume.name):
            self._volume(name, volume)
        else:
            self.candidates[name.path] = volume_candidate(self._group, name)

    def _removed(self, name: Name, volume: LogicalVolume) -> None:
        if volume.name in self._parents:
            words = {"source": "a tag", "stated": "that its removal was begun, and another volume stands on it"}
            self.found.append(Found(rules.A_DISAGREE, name.path, words, "metadata"))
            self.candidates[name.path] = Candidate(Role.IMAGE, needed_by="what stands on it")
            return
        self.candidates[name.path] = Candidate(Role.REMNANT)
        self.found.append(Found(rules.A_REMNANT, name.path, {}, "removal", volume.size))

    def _volume(self, name: Name, volume: LogicalVolume) -> None:
        images, parents, slots = (sorted(_tagged(volume, prefix)) for prefix in (_IMAGE, _PARENT, _SLOT))
        words = (*images, volume.name, *mentions(self._group, volume))
        missing = [kind for kind, tags in ((_IMAGE, images), (_PARENT, parents), (_SLOT, slots)) if not tags]
        if missing:
            told: dict[str, Any] = {"name": f"its tag {missing[0]}…"}
            self.found.append(Found(rules.A_METADATA, name.path, told, "missing", volume.size))
            self.candidates[name.path] = Candidate(Role.IMAGE, words)
            return
        source = f"slot {slots[0]} of {_METADATA}"
        meta = Metadata({}, "it has several tags of a kind")
        if len(images) == len(parents) == len(slots) == 1:
            meta = self._read(slots[0], volume)
        if meta.problem:
            told = {"problem": f"{source}: {meta.problem}"}
            self.found.append(Found(rules.A_METADATA, name.path, told, "unreadable", volume.size))
            self.candidates[name.path] = Candidate(Role.IMAGE, words)
            return
        said = candidate(meta, source, self._group.name, images[0], volume.name)
        self.candidates[name.path] = said._replace(mentions=words)
        if not meta.legal:
            told = {"source": source, "domain": self._group.name}
            self.found.append(Found(rules.A_ILLEGAL, name.path, told))
        for says in self._wrong(volume.name, meta, images[0], parents[0], slots[0]):
            self.found.append(Found(rules.A_DISAGREE, name.path, {"source": source, "stated": says}, "metadata"))

    def _wrong(self, volume: str, meta: Metadata, image: str, parent: str, slot: str) -> list[str]:
        """What the metadata says that the tags, or those of others, do not."""
        found = [disagreement(meta, volume in self._parents)]
        if meta.parent != parent:
            found.append(f"that it stands on {_told(meta.parent)}, and its tag says {_told(parent)}")
        if meta.fields.get("IMAGE", image) != image:
            found.append(f"that its image is {meta.fields['IMAGE'][:40]}, and its tag says {image[:40]}")
        if self._slots[slot] > 1:
            found.append("all this of another volume too, which has the same slot")
        return [says for says in found if says]

    def _read(self, slot: str, volume: LogicalVolume) -> Metadata:
        """Read a slot where the version of the domain has it; where that is not known, that of the volume."""
        if not (slot.isascii() and slot.isdigit() and len(slot) <= _MAX_DIGITS):
            return Metadata({}, "its tag is no number")
        if self._metadata is None:
            return Metadata({}, f"the logical volume {_METADATA} is not there")
        versions = [tag.removeprefix(_VERSION) for tag in self._group.tags if tag.startswith(_VERSION)]
        known = [int(version) for version in versions if version in ("2", "3", "4", "5")]
        read = []
        for version in [max(4, known[0])] if len(known) == 1 else (5, 4):
            base, length = _PLACES[version]
            try:
                data = self._metadata.tree.read(self._metadata.inside, base + int(slot) * length, length)
            except OSError as error:
                return Metadata({}, error.strerror or str(error))
            cleared = Metadata({}, "it is cleared, as at the begin of a removal")
            read.append(cleared if data.startswith(_CLEARED) else parse(data))
        images = _tagged(volume, _IMAGE)
        return min(read, key=lambda meta: (meta.fields.get("IMAGE") not in images, bool(meta.problem)))


def _is_removed(volume: LogicalVolume) -> bool:
    return volume.name.startswith(_REMOVALS) or any(image.startswith(_REMOVALS) for image in _tagged(volume, _IMAGE))


def _tagged(volume: LogicalVolume, prefix: str) -> list[str]:
    return [tag.removeprefix(prefix) for tag in volume.tags if tag.startswith(prefix)]


def _told(parent: str) -> str:
    return "nothing" if parent == NO_PARENT else parent[:40]
