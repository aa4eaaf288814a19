"""Clock and ids of simulated hosts. Nothing here reads a real clock or real randomness."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from hashlib import blake2b

from engine.formats.lvm.metadata.pages import PREFIX_BYTES, SECTOR_BYTES
from sim.disk.content import Content
from sim.disk.nodes import FileNode
from sim.disk.storage import SimStorage
from sim.hosts.processes import SimProcess
from sim.lvm.volume_groups import METADATA

EPOCH = 1_700_000_000.0
"""Wall time at the beginning of every run."""

_ID = re.compile(rb"[0-9a-f]{32}")
_HEAD = re.compile(rb"DW[RP]1(.{16})", re.DOTALL)
_LARGEST_SEARCHED = 64 * 1024
_found_in: dict[bytes, frozenset[bytes]] = {}
_REMEMBERED = 20_000


class SimClock:
    """Virtual time: it passes when everybody sleeps, and when a fault says so."""

    def __init__(self, process: SimProcess, skew: Callable[[], float]) -> None:
        self._process = process
        self._skew = skew

    def wall(self) -> float:
        """With the error of this host's clock."""
        return EPOCH + self._process.host.world.now + self._skew()

    def monotonic(self) -> float:
        return self._process.host.world.now

    def sleep(self, seconds: float) -> None:
        self._process.enter("clock.sleep", f"{seconds:g}")
        self._process.host.world.executor.sleep(self._process, seconds)


class IdSource:
    """The ids of one host, in an order that depends on its name and the seed only."""

    def __init__(self, host: str, seed: int) -> None:
        self._base = f"{seed}/{host}/"
        self._count = 0

    def next(self) -> str:
        """A fresh id."""
        self._count += 1
        return uuid4(f"{self._base}{self._count}")

    def fork(self) -> IdSource:
        """Return a source that goes on from here by itself."""
        copy = IdSource("", 0)
        copy._base, copy._count = self._base, self._count
        return copy


class LeastUnused:
    """The first id of one fixed sequence that is mentioned nowhere: neither in a name nor in a small file.

    Two runs from equal states make equal ids, however many crashes came before; so the states that
    recovery can reach stay few enough to enumerate. An id that was given out and is forgotten by every
    storage may come again, which real ids never do."""

    def __init__(self, storages: Iterable[SimStorage], seed: int) -> None:
        self._storages = list(storages)
        self._seed = seed
        self._taken: set[bytes] | None = None
        self._count = 0

    def next(self) -> str:
        """A fresh id."""
        if self._taken is None:
            self._taken = set().union(*(mentioned(storage) for storage in self._storages))
        while True:
            self._count += 1
            fresh = uuid4(f"{self._seed}/{self._count}")
            if fresh.encode() not in self._taken:
                return fresh


class SimIds:
    """The id door of one process."""

    def __init__(self, host_id: str, nonce: str, source: IdSource | LeastUnused) -> None:
        self._host_id = host_id
        self._nonce = nonce
        self._source = source

    @property
    def host_id(self) -> str:
        return self._host_id

    @property
    def host_nonce(self) -> str:
        return self._nonce

    def new_id(self) -> str:
        return self._source.next()


def uuid4(text: str) -> str:
    """A version 4 UUID made from a text."""
    raw = bytearray(blake2b(text.encode(), digest_size=16).digest())
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return raw.hex()


def mentioned(storage: SimStorage) -> set[bytes]:
    """All ids in names and in files of up to 64 KiB."""
    found: set[bytes] = set()
    for path, inode, node in storage.walk():
        found |= _ids_in_name(path.rpartition("/")[2])
        if isinstance(node, FileNode) and 0 < node.content.size <= _LARGEST_SEARCHED:
            found |= _ids_in(node.content)
        elif isinstance(node, FileNode) and (path.endswith(f"/{METADATA}") or inode in storage.devices):
            found |= _ids_on_device(node.content)
    return found


@functools.lru_cache(_REMEMBERED)
def _ids_in_name(name: str) -> frozenset[bytes]:
    return frozenset(_ID.findall(name.encode(errors="surrogateescape")))


def _ids_on_device(content: Content) -> set[bytes]:
    """Ids in the records of a device and the names of its volumes: text is cut by what each sector begins with."""
    found: set[bytes] = set()
    for start, end, data, skip in content.runs:
        if isinstance(data, bytes):
            found |= _ids_in_piece(data[skip : skip + end - start])
    return found


@functools.lru_cache(4_000)
def _ids_in_piece(piece: bytes) -> frozenset[bytes]:
    text = b"".join(piece[at + PREFIX_BYTES : at + SECTOR_BYTES] for at in range(0, len(piece), SECTOR_BYTES))
    heads = [match[1].hex().encode() for match in _HEAD.finditer(piece)]
    return frozenset([*_ID.findall(piece), *heads, *_ID.findall(text)])


def _ids_in(content: Content) -> frozenset[bytes]:
    key = content.digest
    known = _found_in.get(key)
    if known is None:
        if len(_found_in) >= _REMEMBERED:
            _found_in.clear()
        known = _found_in[key] = frozenset(_ID.findall(content.read(0, content.size)))
    return known
