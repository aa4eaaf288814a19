"""The image tool with the real qemu-img and qemu-nbd."""

from __future__ import annotations

import itertools
import os
import random
import struct
from pathlib import Path

import pytest

from engine.data.model import VolumeFormat
from engine.doors.images import CheckReport, Extent
from engine.errors import BadRequest, NoSpace, ToolFailed, ToolMissing
from engine.tools.local.command import Result, failure, shortened
from engine.tools.qemu.images import QemuImageTool
from tests.tools.qcow2_kit import MIB, header_of, info, make, patch, qcow2, qemu_img, raw

CLUSTER = 65536
REFCOUNTS = 2 * CLUSTER  # where fresh images have their reference counts,
L2 = 4 * CLUSTER  # and their first L2 table once they hold data


@pytest.fixture
def tool() -> QemuImageTool:
    return QemuImageTool()


def fill(tool: QemuImageTool, path: Path, start: int, data: bytes) -> None:
    session = tool.open_session([qcow2(path)], writable=True, direct=False)
    # Whole clusters: what a cluster's end holds in the file is the file system's to say, and map tells it.
    session.write(start, data.ljust(CLUSTER, b"."))
    session.flush()
    session.close()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("format", list(VolumeFormat))
def test_a_copy_through_two_sessions_is_exact(
    tool: QemuImageTool, tmp_path: Path, direct: bool, format: VolumeFormat
) -> None:
    """Data, holes and odd ends that are streamed from one session and written to another compare equal."""
    content = random.Random(1).randbytes(9 * MIB + 4096)
    (tmp_path / "source").write_bytes(content[: 5 * MIB] + bytes(2 * MIB) + content[7 * MIB :])
    target = make(tmp_path / "target", len(content))
    if format is VolumeFormat.RAW:
        target.write_bytes(b"stale" * (len(content) // 5) + b"stale"[: len(content) % 5])
    layer = qcow2(target) if format is VolumeFormat.QCOW2 else raw(target)
    reader = tool.open_session([raw(tmp_path / "source")], writable=False, direct=direct)
    writer = tool.open_session([layer], writable=True, direct=direct)
    assert reader.size == writer.size == len(content)
    for start, data in reader.stream([(0, 5 * MIB), (7 * MIB, len(content) - 7 * MIB)]):
        writer.write(start, data)
    writer.zero(5 * MIB, 2 * MIB)
    writer.flush()
    reader.close()
    writer.close()
    done = qemu_img("compare", "-f", "raw", "-F", format.value, tmp_path / "source", target)
    assert done.returncode == 0, done.stdout


def test_zeroing_hides_what_is_below_and_takes_no_room(tool: QemuImageTool, tmp_path: Path) -> None:
    """Zeros over a range of the base read as zeros and are present in the overlay without data."""
    base, top = make(tmp_path / "base", MIB), make(tmp_path / "top", MIB)
    fill(tool, base, 0, b"b" * MIB)
    session = tool.open_session([qcow2(top), qcow2(base)], writable=True, direct=True)
    session.zero(CLUSTER, CLUSTER)
    session.flush()
    assert session.read(CLUSTER - 1, CLUSTER + 2) == b"b" + bytes(CLUSTER) + b"b"
    session.close()
    assert tool.map_layer(qcow2(top)) == [
        Extent(0, CLUSTER, present=False, zero=True, data=False),
        Extent(CLUSTER, CLUSTER, present=True, zero=True, data=False),
        Extent(2 * CLUSTER, MIB - 2 * CLUSTER, present=False, zero=True, data=False),
    ]
    assert [extent.data for extent in tool.map_chain([qcow2(top), qcow2(base)])] == [True, False, True]


def test_zeroing_a_raw_file_gives_its_room_back(tool: QemuImageTool, tmp_path: Path) -> None:
    """Zeroed ranges become holes."""
    path = tmp_path / "raw"
    path.write_bytes(b"x" * 4 * MIB)
    session = tool.open_session([raw(path)], writable=True, direct=False)
    session.zero(MIB, 3 * MIB)
    session.flush()
    session.close()
    assert path.stat().st_blocks * 512 < 2 * MIB
    assert path.read_bytes() == b"x" * MIB + bytes(3 * MIB)


def test_maps_cover_the_whole_size(tool: QemuImageTool, tmp_path: Path) -> None:
    """Extents are gapless from 0 to the virtual size, and tell where data is."""
    path = make(tmp_path / "image", 10 * MIB)
    fill(tool, path, 3 * MIB, b"data" * 1024)
    extents = tool.map_layer(qcow2(path))
    assert [(extent.start, extent.length, extent.present) for extent in extents] == [
        (0, 3 * MIB, False),
        (3 * MIB, CLUSTER, True),
        (3 * MIB + CLUSTER, 7 * MIB - CLUSTER, False),
    ]
    assert extents[1].offset is not None
    assert path.read_bytes()[extents[1].offset :].startswith(b"data" * 1024)


def test_a_deep_chain_is_read_through(tool: QemuImageTool, tmp_path: Path) -> None:
    """Forty layers, each with one cluster of its own, are described, mapped and read."""
    paths = [make(tmp_path / f"layer {index}", 4 * MIB) for index in range(40)]
    fill(tool, paths[-1], 0, b"deepest")
    fill(tool, paths[0], MIB, b"top")
    chain = [qcow2(path) for path in paths]
    session = tool.open_session(chain, writable=False, direct=False)
    assert (session.read(0, 7), session.read(MIB, 3)) == (b"deepest", b"top")
    session.close()
    assert [extent.start for extent in tool.map_chain(chain) if extent.data] == [0, MIB]


def test_a_read_only_session_changes_nothing(tool: QemuImageTool, tmp_path: Path) -> None:
    """Writing through it fails and the file stays as it was."""
    path = make(tmp_path / "image", MIB)
    before = path.read_bytes()
    session = tool.open_session([qcow2(path)], writable=False, direct=False)
    with pytest.raises(ToolFailed):
        session.write(0, b"data")
        session.flush()
    session.close()
    assert path.read_bytes() == before


def test_a_writable_session_locks_its_layer(tool: QemuImageTool, tmp_path: Path) -> None:
    """A second writer, and a reader, are refused with qemu's words while the first is open, and admitted later."""
    layer = qcow2(make(tmp_path / "image", MIB))
    first = tool.open_session([layer], writable=True, direct=False)
    for writable in (True, False):
        with pytest.raises(ToolFailed, match="lock"):
            tool.open_session([layer], writable=writable, direct=False)
    first.close()
    tool.open_session([layer], writable=True, direct=False).close()


def test_a_failed_open_says_why_in_short(tool: QemuImageTool, tmp_path: Path) -> None:
    """The message has the path and the tool's reason, and not the description given to the tool."""
    path = tmp_path / "image"
    path.write_bytes(bytes(CLUSTER))
    with pytest.raises(ToolFailed) as caught:
        tool.open_session([qcow2(path)], writable=False, direct=False)
    assert str(path) in caught.value.message
    assert "not in qcow2 format" in caught.value.message
    assert "driver" not in caught.value.message


def test_leaks_are_found_and_given_back(tool: QemuImageTool, tmp_path: Path) -> None:
    """A cluster counted and unused is a leak for check; repair_leaks makes the image clean."""
    path = make(tmp_path / "image", MIB)
    fill(tool, path, 0, b"data")
    assert tool.check(qcow2(path)) == CheckReport(0, 0, 1, 6 * CLUSTER, "")
    patch(path, REFCOUNTS + 2 * 6, struct.pack(">H", 1))
    os.truncate(path, 7 * CLUSTER)
    report = tool.check(qcow2(path))
    assert (report.corruptions, report.leaked_clusters) == (0, 1)
    assert "Leaked cluster 6" in report.detail
    tool.repair_leaks(qcow2(path))
    assert tool.check(qcow2(path)) == CheckReport(0, 0, 1, 6 * CLUSTER, "")


def test_corruption_is_found_and_only_repaired_by_repair_all(tool: QemuImageTool, tmp_path: Path) -> None:
    """A cluster used twice and counted once is a corruption: repair_leaks fails with words, repair_all mends it."""
    path = make(tmp_path / "image", MIB)
    fill(tool, path, 0, b"data")
    patch(path, L2 + 8, path.read_bytes()[L2 : L2 + 8])
    assert tool.check(qcow2(path)).corruptions > 0
    with pytest.raises(ToolFailed, match=r"exit code 2: ERROR cluster 5"):
        tool.repair_leaks(qcow2(path))
    tool.repair_all(qcow2(path))
    assert tool.check(qcow2(path)).corruptions == 0
    session = tool.open_session([qcow2(path)], writable=False, direct=False)
    assert session.read(0, 4) == b"data"
    session.close()


def test_lost_reference_counts_are_rebuilt(tool: QemuImageTool, tmp_path: Path) -> None:
    """When nothing is counted any more, repair_all counts afresh and the data is still there."""
    path = make(tmp_path / "image", MIB)
    fill(tool, path, 0, b"data")
    patch(path, REFCOUNTS, bytes(12))
    assert tool.check(qcow2(path)).corruptions > 0
    tool.repair_all(qcow2(path))
    report = tool.check(qcow2(path))
    assert (report.corruptions, report.leaked_clusters) == (0, 0)
    session = tool.open_session([qcow2(path)], writable=False, direct=False)
    assert session.read(0, 4) == b"data"
    session.close()


def test_only_qcow2_can_be_checked(tool: QemuImageTool, tmp_path: Path) -> None:
    """A raw layer has nothing to check, and an unreadable qcow2 is no result: both are errors."""
    path = tmp_path / "raw"
    path.write_bytes(bytes(MIB))
    with pytest.raises(ToolFailed, match="cannot be checked"):
        tool.check(raw(path))
    with pytest.raises(ToolFailed, match="exit code 1"):
        tool.check(qcow2(path))


def test_the_backing_name_is_rewritten_and_nothing_else(tool: QemuImageTool, tmp_path: Path) -> None:
    """set_backing gives, changes and removes the name and format in the header; the content stays."""
    path = make(tmp_path / "image", MIB, "t-old", "raw")
    fill(tool, path, 0, b"data")
    extents = tool.map_layer(qcow2(path))
    for name, format in (
        ("t-new, with comma", VolumeFormat.QCOW2),
        ("-n", VolumeFormat.RAW),
        ("json:{}", VolumeFormat.RAW),
    ):
        tool.set_backing(qcow2(path), name, format)
        header = header_of(path)
        assert (header.backing_name, header.backing_format) == (name, format)
    tool.set_backing(qcow2(path), None, None)
    assert header_of(path).backing_name is None
    assert tool.map_layer(qcow2(path)) == extents
    assert tool.check(qcow2(path)).corruptions == 0


def test_a_backing_name_that_cannot_be_is_refused(tool: QemuImageTool, tmp_path: Path) -> None:
    """Empty, too long, not UTF-8, without a format, or for a raw layer: BadRequest, and the header stays."""
    path = make(tmp_path / "image", MIB, "t-old", "raw")
    for name in ("", "x" * 1024, "\udcff"):
        with pytest.raises(BadRequest):
            tool.set_backing(qcow2(path), name, VolumeFormat.RAW)
    with pytest.raises(BadRequest):
        tool.set_backing(qcow2(path), "t-new", None)
    with pytest.raises(BadRequest):
        tool.set_backing(raw(path), "t-new", VolumeFormat.RAW)
    assert header_of(path).backing_name == "t-old"


@pytest.mark.parametrize("format", list(VolumeFormat))
def test_a_layer_grows_and_never_shrinks(tool: QemuImageTool, tmp_path: Path, format: VolumeFormat) -> None:
    """resize sets a larger size; a smaller one is refused and nothing changes."""
    path = make(tmp_path / "image", 2 * MIB)
    if format is VolumeFormat.RAW:
        path.write_bytes(b"x" * 2 * MIB)
    layer = qcow2(path) if format is VolumeFormat.QCOW2 else raw(path)
    tool.resize(layer, 5 * MIB)
    with pytest.raises(ToolFailed, match="shrink"):
        tool.resize(layer, MIB)
    session = tool.open_session([layer], writable=False, direct=False)
    assert session.size == 5 * MIB
    assert session.read(2 * MIB, 3 * MIB) == bytes(3 * MIB)
    session.close()


def test_required_bytes_are_those_of_a_flat_copy(tool: QemuImageTool, tmp_path: Path) -> None:
    """A raw copy needs the virtual size; a qcow2 copy of a chain exactly what the file made by convert has."""
    base, top = make(tmp_path / "base", 8 * MIB), make(tmp_path / "top", 8 * MIB)
    fill(tool, base, 0, b"b" * MIB)
    fill(tool, top, MIB, b"t" * MIB)
    chain = [qcow2(top), qcow2(base)]
    assert tool.required_bytes(chain, VolumeFormat.RAW) == 8 * MIB
    tool.set_backing(qcow2(top), str(base), VolumeFormat.QCOW2)
    assert qemu_img("convert", "-f", "qcow2", "-O", "qcow2", top, tmp_path / "flat").returncode == 0
    assert tool.required_bytes(chain, VolumeFormat.QCOW2) == (tmp_path / "flat").stat().st_size


def test_the_last_commands_are_kept(tool: QemuImageTool, tmp_path: Path) -> None:
    """Fifty of them, newest last, with exit code and words."""
    layer = qcow2(make(tmp_path / "image", MIB))
    for _ in range(55):
        tool.check(layer)
    assert len(tool.recent_commands) == 50
    with pytest.raises(ToolFailed):
        tool.check(raw(tmp_path / "image"))
    last = tool.recent_commands[-1]
    assert last.arguments[:2] == ("qemu-img", "check")
    assert last.exit_code == 63


def test_a_missing_program_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without qemu-img every call, and without qemu-nbd a session, is ToolMissing and names qemu-utils."""
    import shutil

    layer = qcow2(make(tmp_path / "image", MIB))
    real = shutil.which("qemu-img")
    assert real is not None
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ToolMissing, match=r"qemu-img is not installed\. .*qemu-utils"):
        QemuImageTool().check(layer)
    (tmp_path / "bin" / "qemu-img").symlink_to(real)
    with pytest.raises(ToolMissing, match=r"qemu-nbd is not installed\. .*qemu-utils"):
        QemuImageTool().open_session([layer], writable=True, direct=False)


@pytest.mark.parametrize("said", ["qemu-img version 5.1.0 (Debian)", "qemu-img version 6.0.2", "nonsense", ""])
def test_an_old_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """A version before 6.1, or none that can be read, is ToolMissing before any image is opened."""
    script = tmp_path / "qemu-img"
    script.write_text(f"#!/bin/sh\necho '{said}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="too old"):
        QemuImageTool().check(qcow2(make(tmp_path / "image", MIB)))


@pytest.mark.parametrize(
    "said",
    [
        '[{"start": 4096, "length": 1, "present": true, "zero": true, "data": false}]',
        '[{"start": 0, "length": 0, "present": true, "zero": true, "data": false}]',
        '[{"start": 0, "length": 1, "present": 1, "zero": true, "data": false}]',
        '[{"start": 0, "length": 1, "zero": true, "data": false}]',
        '["x"]',
        "{}",
        "[",
    ],
)
def test_output_that_makes_no_sense_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """A map with gaps, without flags or that is no JSON is ToolFailed."""
    script = tmp_path / "qemu-img"
    script.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo qemu-img version 7.2.0 && exit\necho '{said}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolFailed, match="map"):
        QemuImageTool().map_layer(qcow2(make(tmp_path / "image", MIB)))


def test_a_map_without_an_end_is_taken_as_far_as_it_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few KiB has millions of extents: none is kept that nobody asked for, and the program ends with us."""
    script = tmp_path / "qemu-img"
    line = r"{\"start\": $i, \"length\": 1, \"present\": true, \"zero\": false, \"data\": true},"
    script.write_text(
        "#!/bin/sh\n[ $1 = --version ] && echo qemu-img version 7.2.0 && exit\n"
        f'echo $$ >{tmp_path}/pid; i=0; printf "["; while :; do echo "{line}"; i=$((i + 1)); done\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    extents = QemuImageTool().extents(qcow2(make(tmp_path / "image", MIB)))
    assert [extent.start for extent in itertools.islice(extents, 3000)] == list(range(3000))
    extents.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_words_of_a_tool_are_made_harmless() -> None:
    """One line, printable, without the tool's name and without long descriptions; ENOSPC is NoSpace."""
    words = shortened(b"qemu-img: Could not open 'json:{\"a\": {}}': \x1b[31mbad\xff\nline two\n" + b"x" * 5000)
    assert words.startswith("Could not open the image: ?[31mbad\\xff; line two; xxx")
    assert len(words) == 300
    error = failure("qemu-img resize", "X", Result(1, b"", "error: No space left on device"))
    assert isinstance(error, NoSpace)
    assert "signal 9" in failure("qemu-img check", "X", Result(-9, b"", "")).message


def test_info_agrees_after_all(tool: QemuImageTool, tmp_path: Path) -> None:
    """An image made by us and changed by every operation here is one that qemu-img info reads as meant."""
    path = make(tmp_path / "image", MIB, "t-a", "raw")
    tool.resize(qcow2(path), 2 * MIB)
    tool.set_backing(qcow2(path), "t-b", VolumeFormat.QCOW2)
    report = info(path)
    assert (report["virtual-size"], report["backing-filename"]) == (2 * MIB, "t-b")
