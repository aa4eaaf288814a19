"""The monitor of a real qemu-storage-daemon, and what the simulated machine says and does in its place."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.data.model import VolumeFormat
from engine.doors.files import RunPlace
from engine.doors.hypervisor import Monitor, Move, Node
from engine.doors.images import Layer
from engine.errors import BadRequest, ToolFailed, ToolMissing
from engine.tools.hypervisor import qmp
from engine.tools.hypervisor.monitors import Monitors
from engine.tools.hypervisor.qmp import QmpMonitor
from engine.tools.local.files import RealFiles
from sim.explore.cases.driver import Driver, MiB
from sim.hosts.machine import SimMachine
from sim.hosts.world import World
from tests.crash.kit import World as Places
from tests.live.machine import Machine
from tests.live.rounds import Copies, Merges, MergesFurtherDown, Resizes, Rounds

SIZE = 1 << 20
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)


def make(path: Path, backing: str = "") -> None:
    words = ["qemu-img", "create", "-q", "-f", "qcow2", *(["-u", "-b", backing, "-F", "qcow2"] if backing else [])]
    subprocess.run([*words, str(path), str(SIZE)], check=True)


@pytest.fixture
def machine(tmp_path: Path):
    make(tmp_path / "first.qcow2")
    (tmp_path / "disk").symlink_to("first.qcow2")
    make(tmp_path / "overlay.qcow2", "t-first")
    found = Machine(tmp_path, str(tmp_path / "disk"), "qcow2")
    yield found
    found.kill()


def told(nodes: list[Node]) -> list[tuple[object, ...]]:
    """What the engine goes by, of the layers alone."""
    return [
        (
            os.path.basename(node.path),
            node.format,
            node.writable,
            node.backing,
            node.size,
            node.has_backing,
            node.flushes,
        )
        for node in nodes
        if node.format in ("qcow2", "raw")
    ]


def history(monitor: Monitor, overlay: Layer) -> list[list[tuple[object, ...]]]:
    """Add an overlay, and go on in it."""
    seen = [told(monitor.nodes())]
    monitor.add_overlay("dw-added", overlay, monitor.nodes()[0].name)
    seen.append(sorted(told(monitor.nodes())))
    top = next(node.name for node in monitor.nodes() if node.path.endswith("/disk") and node.format == "qcow2")
    monitor.switch([Move(top, "dw-added", "")])
    return [*seen, sorted(told(monitor.nodes()))]


def test_the_simulated_machine_tells_what_the_real_one_tells(machine: Machine, tmp_path: Path):
    """Nodes before, with an overlay that nobody uses, and after the switch."""
    monitor = Monitors().connect(machine.monitor)
    try:
        assert monitor.jobs() == {}
        real = history(monitor, Layer(str(tmp_path / "overlay.qcow2"), VolumeFormat.QCOW2))
    finally:
        monitor.close()
    world = World()
    world.create("a")
    driver = Driver(world)
    engine = driver.engine()
    files = engine.doors.files
    for name in ("first", "overlay"):
        with files.create(f"/srv/{name}.qcow2") as handle:
            handle.write_at(0, (tmp_path / f"{name}.qcow2").read_bytes())
    files.symlink("/srv/first.qcow2", "/srv/disk")
    host = world.process_of(engine).host
    SimMachine(host, "/srv/disk", "qcow2", monitor="qmp:/run/vm")
    there = engine.doors.hypervisors.connect("qmp:/run/vm")
    assert history(there, Layer("/srv/overlay.qcow2", VolumeFormat.QCOW2)) == real
    assert MiB == SIZE


def test_what_a_machine_left_is_no_longer_written_and_is_told_so(machine: Machine, tmp_path: Path):
    """After the switch the locks of the file below are those of a reader, and the overlay's those of a writer."""
    monitor = Monitors().connect(machine.monitor)
    history(monitor, Layer(str(tmp_path / "overlay.qcow2"), VolumeFormat.QCOW2))
    monitor.close()
    files = RealFiles()
    assert [user.writes for user in files.users(str(tmp_path / "first.qcow2"))] == [False]
    assert [user.writes for user in files.users(str(tmp_path / "overlay.qcow2"))] == [True]


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_a_machine_makes_its_disk_longer_and_never_shorter(format: str, tmp_path: Path):
    """The real one and the simulated one alike: the node tells its new length, and so does the file."""
    path = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", format, str(path), str(SIZE)], check=True)
    machine = Machine(tmp_path, str(path), format, guest=False)
    try:
        with contextlib.closing(Monitors().connect(machine.monitor)) as monitor:
            real = grown(monitor)
    finally:
        machine.kill()
    world = World()
    world.create("a")
    engine = Driver(world).engine()
    with engine.doors.files.create("/srv/image") as handle:
        subprocess.run(["qemu-img", "create", "-q", "-f", format, str(path), str(SIZE)], check=True)
        handle.write_at(0, path.read_bytes())
    SimMachine(world.process_of(engine).host, "/srv/image", format, monitor="qmp:/run/vm")
    assert grown(engine.doors.hypervisors.connect("qmp:/run/vm")) == real


def grown(monitor: Monitor) -> list[list[tuple[object, ...]]]:
    """Make the only disk longer, again, and then shorter."""
    top = next(node.name for node in monitor.nodes() if node.format in ("qcow2", "raw"))
    seen = [told(monitor.nodes())]
    for _ in range(2):
        monitor.grow(top, 2 * SIZE)
        seen.append(told(monitor.nodes()))
    with pytest.raises(ToolFailed):
        monitor.grow(top, SIZE)
    return [*seen, told(monitor.nodes())]


def pulled(monitor: Monitor) -> list[object]:
    """Merge the layer below the top into it."""
    top = next(node for node in monitor.nodes() if node.path.endswith("/top") and node.format == "qcow2")
    seen: list[object] = [sorted(told(monitor.nodes()))]
    with pytest.raises(ToolFailed):
        monitor.pull("dw-job", top.name, "t-other")
    monitor.pull("dw-job", top.name, "t-base")
    while monitor.jobs()["dw-job"].status != "pending":
        pass
    seen += [monitor.depth(top.name), sorted(told(monitor.nodes()))]
    monitor.write_back(top.name)
    monitor.finish("dw-job")
    while not (job := monitor.jobs()["dw-job"]).ended:
        pass
    monitor.nodes()
    monitor.cancel("dw-job")
    monitor.forget("dw-job")
    with pytest.raises(ToolFailed):
        monitor.forget("dw-job")
    return [
        *seen,
        monitor.depth(top.name),
        job.kind,
        job.status,
        job.error,
        monitor.jobs(),
        sorted(told(monitor.nodes())),
    ]


@pytest.mark.parametrize("over", [{}, {"over": "top"}])
def test_a_machine_merges_the_layer_below_and_keeps_what_it_shows(over: dict[str, str], tmp_path: Path):
    """The real one and the simulated one alike, of its disk and of a layer below that; the file tells the name of what
    it stands on now, and has the data."""
    names = {"t-base": "", "t-middle": "t-base", "top": "t-middle"} | over
    for number, (name, backing) in enumerate(names.items()):
        make(tmp_path / name, backing)
        write = ["qemu-io", "-f", "qcow2", "-c", f"write -P {number + 1} {number * 65536} 65536", str(tmp_path / name)]
        subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    disk = list(names)[-1]
    before = {name: (tmp_path / name).read_bytes() for name in names}
    machine = Machine(tmp_path, str(tmp_path / disk), "qcow2")
    try:
        with contextlib.closing(Monitors().connect(machine.monitor)) as monitor:
            real = pulled(monitor)
        with contextlib.closing(machine.session()) as guest:
            assert [guest.read(number * 65536, 1) for number in range(3)] == [b"\1", b"\2", b"\3"]
    finally:
        machine.kill()
    (tmp_path / "t-middle").unlink()
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(tmp_path / "top")]))
    assert (info["backing-filename"], info["backing-filename-format"]) == ("t-base", "qcow2")
    world = World()
    world.create("a")
    engine = Driver(world).engine()
    for name, data in before.items():
        with engine.doors.files.create(f"/srv/{name}") as handle:
            handle.write_at(0, data)
    SimMachine(world.process_of(engine).host, f"/srv/{disk}", "qcow2", monitor="qmp:/run/vm")
    assert pulled(engine.doors.hypervisors.connect("qmp:/run/vm")) == real


def test_what_a_machine_merged_gets_into_the_file_although_its_guest_flushes_nothing(tmp_path: Path):
    """Found so: qemu-storage-daemon has no command that flushes, its tables stayed in its memory, and each merge with
    data to move was given up after five minutes."""
    make(tmp_path / "base", "")
    make(tmp_path / "top", "base")
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 1 64k 192k", str(tmp_path / "base")]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    machine = Machine(tmp_path, str(tmp_path / "top"), "qcow2")

    def in_the_file() -> int:
        node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(tmp_path / "top")}}
        words = ["qemu-img", "map", "-U", "--output=json", f"json:{json.dumps(node)}"]
        return sum(extent["length"] for extent in json.loads(subprocess.check_output(words)) if extent["data"])

    try:
        with contextlib.closing(Monitors().connect(machine.monitor)) as monitor:
            monitor.pull("job", "disk", "")
            while monitor.jobs()["job"].status != "pending":
                pass
            with pytest.raises(ToolFailed, match="limit"):
                monitor.limit("job", 4096)
            assert in_the_file() == 0
            monitor.write_back("disk")
            assert in_the_file() == 192 << 10
            assert monitor.jobs()["job"].status == "pending"
            monitor.finish("job")
    finally:
        machine.kill()


def test_a_job_goes_on_at_the_rate_that_it_is_told(tmp_path: Path):
    """Of whoever started it."""
    make(tmp_path / "base", "")
    make(tmp_path / "top", "base")
    for name in ("base", "top"):
        subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", str(tmp_path / name), "64M"], check=True)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 32M", str(tmp_path / "base")]
    subprocess.run(write, check=True, stdout=subprocess.DEVNULL)
    machine = Machine(tmp_path, str(tmp_path / "top"), "qcow2")
    try:
        machine.ask("block-stream", job_id="dw-slow", device="disk", speed=1)
        with contextlib.closing(Monitors().connect(machine.monitor)) as monitor:
            monitor.limit("dw-slow", 2)
            assert machine.ask("query-block-jobs")[0]["speed"] == 2
            monitor.limit("dw-slow", 0)
            while (job := monitor.jobs().get("dw-slow")) is not None and not job.ended:
                pass
    finally:
        machine.kill()


def test_writing_back_opens_the_disk_on_nothing_else_whatever_nodes_there_are(tmp_path: Path):
    """Found so: a machine without a command that flushes was asked to open the disk anew on the node "none". One that
    had a node of that name did."""
    for name in ("top", "other"):
        make(tmp_path / name, "")
    machine = Machine(tmp_path, str(tmp_path / "top"), "qcow2")
    try:
        with contextlib.closing(Monitors().connect(machine.monitor)) as monitor:
            monitor.add_overlay("none", Layer(str(tmp_path / "other"), VolumeFormat.QCOW2), "disk")
            before = told(monitor.nodes())
            monitor.write_back("disk")
            assert told(monitor.nodes()) == before
        with contextlib.closing(machine.session()) as guest:
            guest.write(0, b"\1" * 512)
            guest.flush()
    finally:
        machine.kill()
    write = ["qemu-io", "-f", "qcow2", "-c", "read -P 1 0 512", str(tmp_path / "top")]
    assert b"failed" not in subprocess.check_output(write)


def test_a_machine_that_keeps_a_job_which_has_ended_is_not_asked_to_death(tmp_path: Path):
    """Found so: qemu 7.2 dies when asked for its nodes while it keeps a stream job that has ended, as one of ours was
    when its runner was killed in that moment. Such a job is dismissed first; one of somebody else is told of."""
    make(tmp_path / "base", "")
    make(tmp_path / "top", "base")
    machine = Machine(tmp_path, str(tmp_path / "top"), "qcow2")
    try:
        for name in ("dw-old", "of-somebody"):
            machine.ask("block-stream", job_id=name, device="disk", auto_dismiss=False)
            while machine.ask("query-jobs")[0]["status"] != "concluded":
                pass
            with contextlib.closing(Monitors().connect(machine.monitor)) as monitor:
                assert monitor.jobs()[name].ended
                if name == "dw-old":
                    assert monitor.nodes() and monitor.jobs() == {}
                else:
                    with pytest.raises(ToolFailed, match="keeps the job 'of-somebody'"):
                        monitor.nodes()
        assert machine.process.poll() is None
    finally:
        machine.kill()


def test_a_guest_that_bears_no_other_length_is_told_of(machine: Machine):
    """Its machine says why, and the disk is as long as it was."""
    with contextlib.closing(Monitors().connect(machine.monitor)) as monitor:
        with pytest.raises(ToolFailed, match="resize"):
            monitor.grow("disk", 2 * SIZE)
        assert {node.size for node in monitor.nodes() if node.name == "disk"} == {SIZE}


def test_what_the_machine_says_is_an_error_with_its_words(machine: Machine):
    """A file that is not there, a node that is not there."""
    monitor = Monitors().connect(machine.monitor)
    with pytest.raises(ToolFailed, match="No such file"):
        monitor.add_overlay("dw-x", Layer("/nowhere/x", VolumeFormat.QCOW2), "disk")
    with pytest.raises(ToolFailed, match="nobody"):
        monitor.switch([Move("nobody", "disk", "")])
    machine.kill()
    with pytest.raises(ToolFailed):
        monitor.nodes()
    monitor.close()
    monitor.close()


def test_a_monitor_that_is_gone_busy_or_none_is_told(machine: Machine, tmp_path: Path, monkeypatch):
    """Each is one sentence, and what is no monitor is a mistake of who asks."""
    for nonsense in (
        "vm",
        "qmp:relative",
        "qmp:/two\nlines",
        "libvirt:vm",
        "libvirt:qemu+ssh://far/system/vm",
        "libvirt:test:///default/t",
    ):
        with pytest.raises(BadRequest, match="no monitor"):
            Monitors().connect(nonsense)
    with pytest.raises(ToolFailed):
        Monitors().connect(f"qmp:{tmp_path / 'gone'}")
    first = Monitors().connect(machine.monitor)
    monkeypatch.setattr(qmp, "_CONNECT_S", 0.3)
    with pytest.raises(ToolFailed, match="did not answer"):
        Monitors().connect(machine.monitor)
    first.close()


def node(path: str = "/disk", size: float = 512) -> dict[str, Any]:
    """As qemu tells of one."""
    image = {"filename": path, "virtual-size": size}
    return {"node-name": "disk", "drv": "raw", "ro": False, "cache": {"no-flush": False}, "image": image}


@pytest.mark.parametrize(("lines", "error", "words"), [
    ([b"hello\r\n"], ToolFailed, "did not answer"),
    ([GREETING, {"return": {}}, {"return": "nonsense"}], ToolFailed, "sense"),
    ([GREETING, {"return": {}}, {"return": [{"drv": 1}]}], ToolFailed, "sense"),
    ([GREETING, {"return": {}}, {"return": []}, {"return": [node(size=float("inf"))]}], ToolFailed, "sense"),
    ([GREETING, {"return": {}}, {"return": []}, {"return": [node("json:" + "[" * 5000)]}], ToolFailed, "sense"),
    ([GREETING, {"return": {}},
      {"error": {"class": "CommandNotFound", "desc": "The command is not known"}}], ToolMissing, "too old"),
])  # fmt: skip
def test_a_monitor_that_speaks_nonsense_or_is_old_is_told(lines, error, words: str, tmp_path: Path):
    """Whatever answers at the socket."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "qmp"))
    server.listen()

    def serve() -> None:
        connection, _ = server.accept()
        with contextlib.suppress(OSError, ValueError), connection:
            connection.sendall(lines[0])
            for answer in lines[1:]:
                request = json.loads(connection.recv(1 << 16))
                named = {"id": request["id"]} if "id" in request else {}
                connection.sendall(json.dumps(answer | named).encode() + b"\r\n")
            connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(error, match=words):
            monitor = Monitors().connect(f"qmp:{tmp_path / 'qmp'}")
            try:
                monitor.nodes()
            finally:
                monitor.close()
    finally:
        thread.join()
        server.close()


EVENT = json.dumps({"event": "X", "timestamp": {"seconds": 1, "microseconds": 0}, "data": {"x": "y" * 400}}).encode()


@pytest.mark.parametrize("ends", [True, False])
def test_a_flood_of_events_is_not_kept_and_no_answer_is_waited_for_too_long(ends: bool, tmp_path: Path, monkeypatch):
    """Whatever a machine tells unasked, before it answers or instead."""
    monkeypatch.setattr(qmp, "_ANSWER_S", 60.0 if ends else 0.5)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "qmp"))
    server.listen()

    def serve() -> None:
        connection, _ = server.accept()
        with contextlib.suppress(OSError), connection:
            connection.sendall(GREETING)
            for answer in ("{}", "[]"):
                id = json.dumps(json.loads(connection.recv(1 << 16)).get("id"))
                flood = range(500 if answer == "[]" else 0)
                for _ in flood if ends or not flood else itertools.count():
                    connection.sendall(EVENT + b"\r\n")
                connection.sendall(f'{{"return": {answer}, "id": {id}}}\r\n'.encode())
            connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    monitor = QmpMonitor(str(tmp_path / "qmp"))
    try:
        if ends:
            assert monitor.jobs() == {}
        else:
            with pytest.raises(ToolFailed, match="did not tell which jobs it has within"):
                monitor.jobs()
        assert monitor._client.events.empty()
    finally:
        monitor.close()
        thread.join()
        server.close()


def test_a_machine_is_known_by_the_path_that_stays(tmp_path: Path, monkeypatch):
    """A snapshot, a copy and a merge of a disk that was opened by its name below /run; the layers are found there."""
    monkeypatch.setattr(RealFiles, "run_place", lambda self: RunPlace(str(tmp_path), True))
    engine = Places(tmp_path / "world", "a", "b").create().engine("host-a")
    disk = engine.create_virtual_disk("a", SIZE)
    entry = engine.prepare_image("a", disk, monitor=f"qmp:{tmp_path / 'qmp'}", name="web")
    assert entry.given == f"{tmp_path}/diskwright/disks/a/web/disk"
    machine = Machine(tmp_path, entry.given, entry.format)
    try:
        engine.remove_image("a", engine.create_snapshot("a", disk))
        engine.copy_image("b", disk, options={"auto_fix": False})
        for repository in "baaaa":
            for fix in engine.check_storage_repository(repository)[:1]:
                engine.run_fix_here(repository, fix)
        assert [image.id for image in engine.inspect_repository("a").images] == [disk]
    finally:
        machine.kill()
        engine.teardown_image("a", disk)


@pytest.mark.slow
def test_rounds_on_a_real_machine_lose_nothing(tmp_path: Path):
    """Some rounds in which the machine, the verb, or both are killed. A thousand: ``make live``."""
    rounds = Rounds(tmp_path, 11)
    assert [problem for _ in range(6) for problem in rounds.play()] == []


@pytest.mark.slow
def test_rounds_of_resizes_on_a_real_machine_lose_nothing(tmp_path: Path):
    """The same, of machines that make their disk longer."""
    rounds = Resizes(tmp_path, 12)
    assert [problem for _ in range(4) for problem in rounds.play()] == []


@pytest.mark.slow
def test_rounds_of_merges_on_a_real_machine_lose_nothing(tmp_path: Path):
    """The same, of machines that merge what is below their disk."""
    rounds = Merges(tmp_path, 13)
    assert [problem for _ in range(3) for problem in rounds.play()] == []


@pytest.mark.slow
def test_rounds_of_merges_further_down_on_a_real_machine_lose_nothing(tmp_path: Path):
    """The same, of machines that merge what the snapshot below their disk stands on."""
    rounds = MergesFurtherDown(tmp_path, 15)
    assert [problem for _ in range(2) for problem in rounds.play()] == []


@pytest.mark.slow
def test_rounds_of_copies_of_a_running_disk_lose_nothing(tmp_path: Path):
    """The same, of disks that are copied into another repository meanwhile."""
    rounds = Copies(tmp_path, 14)
    assert [problem for _ in range(3) for problem in rounds.play()] == []
