"""Raw images on block devices, read and written without a server."""

from __future__ import annotations

import errno
import random
import subprocess
from pathlib import Path

import pytest

from engine.data.model import VolumeFormat
from engine.doors.images import Layer
from engine.errors import BadRequest, NoSpace, ReadFailed, ToolFailed
from engine.tools.block.device import DirectBlockHandle
from engine.tools.block.session import BlockSession
from engine.tools.local.leases import OfdLeases
from engine.tools.local.lending import PIECE_BYTES
from engine.tools.qemu.images import QemuImageTool

MIB = 1 << 20
SIZE = 9 * MIB + 4096


@pytest.fixture
def device(loop_device):
    """A device and the file under it, a little longer than the image on it."""
    path, file = loop_device(10 * MIB)
    return Layer(path, VolumeFormat.RAW, True, SIZE), Path(file)


def content(seed: int = 1) -> bytes:
    data = bytearray(random.Random(seed).randbytes(SIZE))
    data[3 * MIB : 6 * MIB] = bytes(3 * MIB)
    return bytes(data)


def on(file: Path) -> bytes:
    return file.read_bytes()[:SIZE]


def test_a_raw_device_needs_no_server_and_other_chains_do(device, tmp_path):
    """The tool decides; the callers see one kind of session."""
    layer, _ = device
    tool = QemuImageTool()
    (tmp_path / "file").write_bytes(bytes(MIB))
    for chain, kind in (([layer], BlockSession), ([Layer(str(tmp_path / "file"), VolumeFormat.RAW)], object)):
        session = tool.open_session(chain, writable=True, direct=False)
        assert isinstance(session, kind)
        assert isinstance(session, BlockSession) == chain[0].device
        session.close()


def test_what_is_written_is_read_again_whatever_the_ranges(device):
    """Data, zeros, ends inside a block; nothing beyond them changes."""
    layer, file = device
    expected = bytearray(content())
    file.write_bytes(bytes(expected) + b"beyond".ljust(10 * MIB - SIZE, b"."))
    session = BlockSession(layer, writable=True)
    assert session.size == SIZE
    numbers = random.Random(2)
    for number in range(60):
        start = numbers.randrange(SIZE)
        length = min(SIZE - start, numbers.choice([1, 511, 4096, 70000, 3 * MIB]))
        if number % 3:
            data = numbers.randbytes(length)
            session.write(start, data)
            expected[start : start + length] = data
        else:
            session.zero(start, length)
            expected[start : start + length] = bytes(length)
        if number % 7 == 0:
            assert session.read(start, length) == expected[start : start + length]
    session.flush()
    assert b"".join(data for _, data in session.stream([(0, SIZE)])) == expected
    session.close()
    assert on(file) == expected
    assert file.read_bytes()[SIZE:].startswith(b"beyond...")


def test_pieces_come_in_order_and_a_stream_may_be_abandoned(device):
    """Several ranges, each cut where multiples of a piece are."""
    layer, file = device
    file.write_bytes(content().ljust(10 * MIB, b"\0"))
    session = BlockSession(layer, writable=False)
    ranges = [(4096, 5 * MIB), (7 * MIB + 512, 513)]
    found = list(session.stream(ranges))
    assert [start for start, _ in found] == [4096, PIECE_BYTES, 2 * PIECE_BYTES, 7 * MIB + 512]
    assert b"".join(data for _, data in found) == b"".join(content()[start : start + n] for start, n in ranges)
    for _ in session.stream([(0, SIZE)]):
        break
    assert session.read(0, 4096) == content()[:4096]
    session.close()


def test_calls_take_effect_in_the_order_made(device):
    """A write that overlaps what is under way comes after it, reads too."""
    layer, _ = device
    session = BlockSession(layer, writable=True)
    for number in range(40):
        data = bytes([number + 1]) * MIB
        session.write(number * 1000, data)
        stream = session.stream([(number * 1000, MIB), (5 * MIB, MIB)])
        first = next(stream)
        session.zero(number * 1000, MIB)
        assert first == (number * 1000, data)
        assert session.read(number * 1000, MIB) == bytes(MIB)
    session.flush()
    session.close()


def test_a_piece_stays_as_it_is_while_somebody_has_it(device):
    """Its memory is used again, but not before: pieces and parts of pieces of a stream that is long over."""
    layer, file = device
    file.write_bytes(content().ljust(10 * MIB, b"\0"))
    session = BlockSession(layer, writable=False)
    pieces = list(session.stream([(0, SIZE)]))
    parts = [(start + 4096, data[4096:8192]) for start, data in session.stream([(0, SIZE)])]
    for _ in range(4):
        list(session.stream([(0, SIZE)]))
    session.close()
    assert b"".join(data for _, data in pieces) == content()
    assert all(bytes(data) == content()[start : start + len(data)] for start, data in parts)


def test_what_was_read_is_written_elsewhere_without_a_copy_or_with_one(loop_device, device):
    """Pieces that follow each other are one request; what begins inside a block is moved to another place in memory."""
    layer, file = device
    file.write_bytes(content().ljust(10 * MIB, b"\0"))
    path, copy = loop_device(10 * MIB)
    for shift in (0, 4096, 512):
        source = BlockSession(layer, writable=False)
        target = BlockSession(Layer(path, VolumeFormat.RAW, True), writable=True)
        for start, data in source.stream([(0, SIZE)]):
            target.write(start + shift, data)
        target.flush()
        assert target.read(shift, SIZE) == content()
        source.close()
        target.close()
        assert Path(copy).read_bytes()[shift : shift + SIZE] == content()


def test_what_follows_each_other_is_one_request(device, monkeypatch):
    """Read and written, up to the largest one."""
    layer, _ = device
    requests = []
    for name in ("read_into", "write_from"):
        real = getattr(DirectBlockHandle, name)

        def noted(handle, offset, views, name=name, real=real):
            requests.append((name, offset, sum(len(view) for view in views)))
            real(handle, offset, views)

        monkeypatch.setattr(DirectBlockHandle, name, noted)
    session = BlockSession(layer, writable=True)
    for start in range(0, 6 * MIB, MIB):
        session.write(start, b"x" * MIB)
    session.write(8 * MIB, b"y" * 4096)
    session.flush()
    assert requests == [("write_from", 0, 4 * MIB), ("write_from", 4 * MIB, 2 * MIB), ("write_from", 8 * MIB, 4096)]
    requests.clear()
    assert [start for start, _ in session.stream([(0, 2 * MIB), (2 * MIB, 4 * MIB), (8 * MIB, 4096)])][2:] == [
        4 * MIB,
        8 * MIB,
    ]
    wanted = [("read_into", 0, 4 * MIB), ("read_into", 4 * MIB, 2 * MIB), ("read_into", 8 * MIB, 4096)]
    assert sorted(requests, key=lambda request: request[1]) == wanted
    session.close()


def test_of_a_request_that_fails_what_can_be_read_is_given(device, monkeypatch):
    """And the error names the piece that could not be read."""
    layer, file = device
    file.write_bytes(content().ljust(10 * MIB, b"\0"))
    real = DirectBlockHandle.read_into

    def bad_at_7_mib(handle, offset, views):
        if offset <= 7 * MIB < offset + sum(len(view) for view in views):
            raise OSError(errno.EIO, "")
        real(handle, offset, views)

    monkeypatch.setattr(DirectBlockHandle, "read_into", bad_at_7_mib)
    session = BlockSession(layer, writable=False)
    found = []
    with pytest.raises(ReadFailed, match=f"reading {2 * MIB} bytes at {6 * MIB}"):
        for start, data in session.stream([(0, SIZE)]):
            found.append((start, bytes(data)))
    assert [start for start, _ in found] == [0, 2 * MIB, 4 * MIB]
    assert b"".join(data for _, data in found) == content()[: 6 * MIB]
    session.close()


def failing(monkeypatch, name, code, count=1):
    left = [count]
    real = getattr(DirectBlockHandle, name)

    def fail(*arguments):
        if left[0]:
            left[0] -= 1
            raise OSError(code, "")
        return real(*arguments)

    monkeypatch.setattr(DirectBlockHandle, name, fail)


@pytest.mark.parametrize(
    ("name", "code", "kind"),
    [("write_from", errno.EIO, ToolFailed), ("zero", errno.ENOSPC, NoSpace), ("sync", errno.EIO, ToolFailed)],
)
def test_no_flush_succeeds_after_a_failure(device, monkeypatch, name, code, kind):
    """What was lost cannot be made good by trying again."""
    failing(monkeypatch, name, code)
    session = BlockSession(device[0], writable=True)
    with pytest.raises(kind):
        (session.zero if name == "zero" else session.write)(*((0, MIB) if name == "zero" else (0, b"x" * MIB)))
        session.flush()
    for again in (session.flush, lambda: session.write(0, b"y"), lambda: session.zero(0, 1)):
        with pytest.raises(kind):
            again()
    session.close()


def test_a_failed_read_concerns_that_read_only(device, monkeypatch):
    """It names its range."""
    failing(monkeypatch, "read_into", errno.EIO)
    session = BlockSession(device[0], writable=False)
    with pytest.raises(ReadFailed, match="reading 4096 bytes at 8192"):
        session.read(8192, 4096)
    assert session.read(8192, 4096) == bytes(4096)
    session.close()


def test_a_writer_keeps_other_writers_and_machines_away(device):
    """By qemu's own locks: neither of us begins while the other writes."""
    layer, _ = device
    write = ["qemu-io", "-f", "raw", "-c", "write 0 4k", layer.path]
    session = BlockSession(layer, writable=True)
    with pytest.raises(ToolFailed, match="in use"):
        BlockSession(layer, writable=True)
    assert "lock" in subprocess.run(write, capture_output=True, text=True, check=False).stderr
    BlockSession(layer, writable=False).close()
    session.close()
    subprocess.run(write, check=True, capture_output=True)
    BlockSession(layer, writable=True).close()


def test_ranges_outside_of_the_image_are_refused(device):
    """The device is longer; that is nobody's."""
    session = BlockSession(device[0], writable=True)
    for call in (
        lambda: session.read(SIZE - 1, 2),
        lambda: session.write(SIZE, b"x"),
        lambda: session.zero(-1, 1),
        lambda: list(session.stream([(0, SIZE + 1)])),
    ):
        with pytest.raises(BadRequest, match="not inside"):
            call()
    session.close()


def test_a_closed_session_does_nothing_more(device):
    """Closing again is a success."""
    session = BlockSession(device[0], writable=True)
    session.close()
    session.close()
    with pytest.raises(ToolFailed, match="is over"):
        session.write(0, b"x")


def test_what_cannot_be_opened_is_an_error_with_its_name(device, tmp_path):
    """No device, a file, a device that is shorter than its image."""
    layer, file = device
    for path, length in (("/dev/nothing-here", 0), (str(file), 0), (layer.path, 11 * MIB)):
        with pytest.raises(ToolFailed, match=path):
            BlockSession(Layer(path, VolumeFormat.RAW, True, length), writable=False)


def test_a_device_that_is_shut_is_opened_by_no_qemu_for_writing(loop_device, tmp_path: Path):
    """By whatever name: a machine that is started anew on the volume that it has left is refused. Who reads is not."""
    device, _ = loop_device(MIB)
    (tmp_path / "disk").symlink_to(device)

    def opened(*more: str) -> bool:
        words = ["qemu-io", *more, "-f", "raw", "-c", "read 0 512", str(tmp_path / "disk")]
        return not subprocess.run(words, check=False, capture_output=True).returncode

    assert opened()
    lease = OfdLeases().guard(device, writable=False, device=True)
    assert lease is not None and not opened() and opened("-r")
    lease.release()
    assert opened()
