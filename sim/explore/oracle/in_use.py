"""Whether data that a machine has open is still the data of some image, as the records on the storage say it.

What a record has given up is scrap: it can be deleted at any time, and no image shows what is written there. Told from
the records themselves, whatever an engine concludes of them, and whether or not a storage would let anybody delete it.
"""

from __future__ import annotations

import re

from engine.data.decoding import decode
from engine.data.records import Record, is_tombstone
from engine.errors import DiskwrightError
from sim.disk.storage import SimStorage
from sim.explore.oracle.newest import newest
from sim.hosts.world import REPOSITORIES
from sim.lvm.lvm_view import as_files

_ID = re.compile(r"[0-9a-f]{32}")


def given_up(storage: SimStorage, repo: str, path: str) -> bool:
    """Tell whether no image of a repository has the volume at ``path`` as its data any more. False where a record
    cannot be understood, which may be that one."""
    records, volume = _records(storage, repo), _volume_at(path)
    if records is None or not volume:
        return False
    return all(record.volume is None or record.volume.id != volume for record in records)


def has_as_data(storage: SimStorage, repo: str, image: str, path: str) -> bool:
    """Tell whether an image has the volume at ``path`` as its data, and no other one has it too."""
    records, volume = _records(storage, repo), _volume_at(path)
    having = [record.id for record in records or () if record.volume is not None and record.volume.id == volume]
    return having == [image]


def _volume_at(path: str) -> str:
    """The id in the name of a volume; "" where there is none."""
    return next(reversed(_ID.findall(path)), "")


def _records(storage: SimStorage, repo: str) -> list[Record] | None:
    """The newest record of each tag; None where one cannot be understood."""
    storage = as_files(storage) if storage.devices else storage
    there = {tag: found for (root, tag), found in newest(storage).items() if root == f"{REPOSITORIES}/{repo}"}
    try:
        return [
            decode(node.content.read(0, node.content.size), tag)
            for tag, (path, node) in there.items()
            if not is_tombstone(int(path.rpartition(".")[2], 16))
        ]
    except DiskwrightError:
        return None
