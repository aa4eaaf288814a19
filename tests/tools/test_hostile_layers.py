"""No name inside an image is ever followed, and every name of a file can be told to the tools."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.model import VolumeFormat
from engine.doors.images import Layer
from engine.errors import BadRequest, ToolFailed
from engine.tools.qemu.images import QemuImageTool
from engine.tools.qemu.layers import describe
from tests.tools.qcow2_kit import MIB, make, patch, qcow2, qemu_img, raw

SECRET = b"secret of the host"


@pytest.fixture
def tool() -> QemuImageTool:
    return QemuImageTool()


def read_session(tool: QemuImageTool, *layers: Layer) -> bytes:
    session = tool.open_session(list(layers), writable=False, direct=False)
    try:
        return session.read(0, MIB)
    finally:
        session.close()


def write_session(tool: QemuImageTool, layer: Layer) -> None:
    session = tool.open_session([layer], writable=True, direct=False)
    session.zero(0, MIB)
    session.write(4096, b"data")
    session.flush()
    session.close()


OPERATIONS: dict[str, Callable[[QemuImageTool, Layer], object]] = {
    "map_layer": lambda tool, layer: tool.map_layer(layer),
    "map_chain": lambda tool, layer: tool.map_chain([layer]),
    "required_bytes": lambda tool, layer: tool.required_bytes([layer], VolumeFormat.QCOW2),
    "check": lambda tool, layer: tool.check(layer),
    "repair_leaks": lambda tool, layer: tool.repair_leaks(layer),
    "repair_all": lambda tool, layer: tool.repair_all(layer),
    "set_backing": lambda tool, layer: tool.set_backing(layer, "t-next", VolumeFormat.QCOW2),
    "resize": lambda tool, layer: tool.resize(layer, 2 * MIB),
    "read": read_session,
    "write": write_session,
}

BACKINGS = [
    ("/nonexistent/secret", "raw"),
    ("nbd:unix:/nonexistent/socket", "raw"),
    ('json:{"driver":"raw","file":{"driver":"file","filename":"/nonexistent/secret"}}', "raw"),
    ("/dev/nonexistent", "host_device"),
]


@pytest.mark.parametrize(("backing", "backing_format"), BACKINGS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_backing_name_is_never_opened(
    tool: QemuImageTool, tmp_path: Path, operation: str, backing: str, backing_format: str
) -> None:
    """Every operation succeeds on an overlay whose header names a backing file that cannot be opened, so
    nobody tried; the same image fails where the name is followed."""
    path = make(tmp_path / "image", MIB, backing, backing_format)
    assert qemu_img("map", "-f", "qcow2", path).returncode != 0
    OPERATIONS[operation](tool, qcow2(path))


@pytest.mark.parametrize("direct", [True, False])
def test_the_chain_given_wins_over_the_names_in_headers(tool: QemuImageTool, tmp_path: Path, direct: bool) -> None:
    """An overlay that names a readable secret shows the layer it is given below it, or zeros, and never the secret."""
    (tmp_path / "secret").write_bytes(SECRET.ljust(MIB, b"s"))
    (tmp_path / "base").write_bytes(b"b" * MIB)
    middle = make(tmp_path / "middle", MIB, str(tmp_path / "secret"), "raw")
    top = make(tmp_path / "top", MIB, str(tmp_path / "secret"), "raw")
    session = tool.open_session([qcow2(top), qcow2(middle), raw(tmp_path / "base")], writable=False, direct=direct)
    assert session.read(0, MIB) == b"b" * MIB
    session.close()
    assert read_session(tool, qcow2(top), qcow2(middle)) == bytes(MIB)
    assert read_session(tool, qcow2(top)) == bytes(MIB)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_data_file_is_never_opened(tool: QemuImageTool, tmp_path: Path, operation: str) -> None:
    """An image with an external data file is refused before any tool runs; the file stays as it was."""
    secret = tmp_path / "secret"
    done = qemu_img(
        "create", "-q", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", tmp_path / "image", "1M"
    )
    assert done.returncode == 0
    secret.write_bytes(SECRET.ljust(MIB, b"s"))
    with pytest.raises(ToolFailed, match="external data file"):
        OPERATIONS[operation](tool, qcow2(tmp_path / "image"))
    assert secret.read_bytes().startswith(SECRET)
    assert all(command.arguments[1] == "--version" for command in tool.recent_commands)


@pytest.mark.parametrize("operation", ["check", "read"])
def test_the_name_of_a_data_file_alone_opens_nothing(tool: QemuImageTool, tmp_path: Path, operation: str) -> None:
    """With the feature bit cleared the name of a data file in the header is without effect."""
    path = make(tmp_path / "image", MIB)
    patch(path, 112, struct.pack(">II24s", 0x44415441, 19, b"/nonexistent/secret"))
    OPERATIONS[operation](tool, qcow2(path))


def test_a_raw_layer_is_never_probed(tool: QemuImageTool, tmp_path: Path) -> None:
    """A guest that writes a qcow2 header into its raw disk gets to read just that, not what the header names."""
    path = make(tmp_path / "image", MIB, "/etc/hostname", "raw")
    session = tool.open_session([raw(path)], writable=False, direct=False)
    assert session.size == path.stat().st_size
    assert session.read(0, 4) == b"QFI\xfb"
    session.close()
    assert sum(extent.length for extent in tool.map_layer(raw(path))) == path.stat().st_size


def test_only_files_are_opened_as_files(tool: QemuImageTool, tmp_path: Path) -> None:
    """A link, a FIFO, a directory, a character device and a missing file are refused at once, whatever the format."""
    (tmp_path / "file").write_bytes(bytes(MIB))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "link", tmp_path / "fifo", tmp_path, Path("/dev/null"), tmp_path / "missing"):
        for layer in (raw(path), qcow2(path), Layer(str(path), VolumeFormat.RAW, device=True)):
            with pytest.raises(ToolFailed):
                tool.map_layer(layer)
            with pytest.raises(ToolFailed):
                tool.open_session([layer], writable=True, direct=False)


NAMES = [
    "comma,comma,,.img",
    " spaces  in it ",
    "nbd:local:1",
    "quote\"and'apostrophe",
    "ünï-漢字-🙂",
    "-u",
    "--help",
    "json:{}",
    'json:{"driver":"null-co"}',
    "back\\slash\\u0041",
    "new\nline\tand\x1b[31m",
    "%41%s{}[]$HOME`id`",
    "x" * 200,
]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_any_utf8_name_can_be_used(
    tool: QemuImageTool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, relative: bool
) -> None:
    """Whatever a file is called, absolute or relative, every operation works on that file and makes no other."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name, MIB)
    layer = Layer(name if relative else str(tmp_path / name), VolumeFormat.QCOW2)
    for operation in ("map_layer", "required_bytes", "check", "repair_leaks", "set_backing", "resize", "write"):
        OPERATIONS[operation](tool, layer)
    assert read_session(tool, layer)[4096:4100] == b"data"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("path", ["/tmp/\udcff", "", "/tmp/nul\0"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_path_that_no_tool_can_be_told_is_refused(tool: QemuImageTool, operation: str, path: str) -> None:
    """Not UTF-8, empty or with a NUL: BadRequest, and no tool runs on it."""
    with pytest.raises(BadRequest):
        OPERATIONS[operation](tool, Layer(path, VolumeFormat.QCOW2))
    assert all(command.arguments[1] == "--version" for command in tool.recent_commands)


def test_chains_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """No layer at all, or a layer below a raw one."""
    layer = qcow2(make(tmp_path / "image", MIB))
    with pytest.raises(BadRequest):
        describe([])
    with pytest.raises(BadRequest):
        describe([raw(tmp_path / "image"), layer])
