"""A volume that was just made, written where it lies: LVM need not activate and deactivate it for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from engine.doors.volume_groups import BlockHandle, PhysicalRange, VolumeGroups


class Places:
    """The bytes of a volume that nobody uses yet. Not for one that was ever active: its pages may be cached."""

    def __init__(self, ranges: Sequence[PhysicalRange], devices: dict[str, BlockHandle]) -> None:
        self._ranges = ranges
        self._devices = devices

    def write_at(self, offset: int, data: bytes) -> None:
        """Write as a ``BlockHandle`` does."""

        def write(device: BlockHandle, at: int, start: int, length: int) -> None:
            device.write_at(at, data[start : start + length])

        self._each(offset, len(data), write)

    def zero(self, offset: int, length: int) -> None:
        """Zero as a ``BlockHandle`` does."""
        self._each(offset, length, lambda device, at, start, count: device.zero(at, count))

    def sync(self) -> None:
        """Make what was written durable, on each device."""
        for device in self._devices.values():
            device.sync()

    def _each(self, offset: int, length: int, work: Callable[[BlockHandle, int, int, int], None]) -> None:
        """``work(device, position there, position in what is written, bytes)`` for each piece."""
        begin, done = 0, 0
        for device, at, extent in self._ranges:
            low, high = max(offset, begin), min(offset + length, begin + extent)
            if low < high:
                work(self._devices[device], at + low - begin, low - offset, high - low)
                done += high - low
            begin += extent
        assert done == length, (offset, length, begin)


@contextmanager
def opened(groups: VolumeGroups, ranges: Sequence[PhysicalRange]) -> Iterator[Places]:
    """Open the volume that lies in ``ranges`` for writing. Plain OSError."""
    with ExitStack() as stack:
        names = dict.fromkeys(place.device for place in ranges)
        devices = {name: stack.enter_context(groups.open_device(name, writable=True)) for name in names}
        yield Places(ranges, devices)
