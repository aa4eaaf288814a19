"""Machines by libvirt: domains of a libvirt of this host.

What changes a chain is asked of libvirt itself, which then knows it: its definition of the running domain is right
afterwards, and also after its daemon was restarted. libvirt does not tell which volume a path led to when it was
opened, nor which jobs others have: that is asked of qemu through libvirt, by queries alone (they mark the domain as
tainted, "custom-monitor"). What a guest did not flush is flushed so, too.

A call of libvirt's library has no end of its own when its daemon stands still: each is made in a thread, which is left
alone then.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from types import ModuleType
from typing import Any, NamedTuple, TypeVar
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from engine.data.monitors import Libvirt
from engine.doors.hypervisor import Move
from engine.doors.images import Layer
from engine.errors import Refused, ToolFailed, ToolMissing
from engine.tools.hypervisor.qemu import Qemu

_CONNECT_S = 10.0
_ANSWER_S = 120.0
_AGENT_S, _FREEZE_S = 5, 30.0
_LEAVE_S = 1.0
_SEEN_S = 10.0
_LOOK_AGAIN_S = 0.02
_DEBIAN = "/usr/lib/python3/dist-packages"
"""Where a distribution has its binding: of a Python that is the same, it serves a virtual environment as well."""
_MODULES = ("libvirtmod", "libvirt", "libvirtmod_qemu", "libvirt_qemu")
_NODE = "libvirt-{}-format", "libvirt-{}-storage"
"""What libvirt calls the nodes of a layer with an index: its format; that of a raw one may be left out."""

_Answer = TypeVar("_Answer")


class _NotRunning(ToolFailed):
    """It can be asked when it runs."""


class _Disk(NamedTuple):
    """A disk of a running domain, as libvirt tells of it."""

    target: str
    path: str
    """As it was given, "" for what is no file."""
    indexes: tuple[str, ...]
    """Of its layers, top first."""

    def has(self, node: str) -> bool:
        """Whether that is its top layer."""
        return bool(self.indexes) and node in [pattern.format(self.indexes[0]) for pattern in _NODE]


class LibvirtMonitor(Qemu):
    """One connection."""

    def __init__(self, address: Libvirt) -> None:
        super().__init__(
            f"the domain {address.domain} of {address.uri}",
            f"Look at it: virsh -c {address.uri} list --all. Its daemon must answer, and the domain must run",
        )
        self._libvirt, self._qemu = binding()
        self._libvirt.registerErrorHandler(lambda context, error: None, None)  # what is wrong is raised
        self._overlays: dict[str, Layer] = {}
        self._connection: Any = None
        self._domain: Any = None
        try:
            self._connection = self._call("answer", lambda: self._libvirt.open(address.uri), _CONNECT_S)
            self._domain = self._call("be found", lambda: self._connection.lookupByName(address.domain), _CONNECT_S)
            if not self._call("tell whether it runs", self._domain.isActive, _CONNECT_S):
                raise _NotRunning(f"{self.who} does not run", "Start it first, or tear the disk down")
        except BaseException:
            self.close()
            raise

    def _call(self, doing: str, call: Callable[[], _Answer], seconds: float = _ANSWER_S) -> _Answer:
        answers: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

        def work() -> None:
            try:
                answers.put((True, call()))
            except Exception as error:  # noqa: BLE001 - the thread that asked raises it
                answers.put((False, error))

        threading.Thread(target=work, daemon=True).start()
        try:
            done, found = answers.get(timeout=seconds)
        except queue.Empty:
            raise ToolFailed(f"{self.who} did not {doing} within {seconds:.0f} s", self.next_step) from None
        if not done:
            raise self._told(found, doing) if isinstance(found, self._libvirt.libvirtError) else found
        answer: _Answer = found
        return answer

    def _told(self, error: Any, doing: str) -> ToolFailed | ToolMissing:
        words = f"{error!s:.300}"
        lib = self._libvirt
        if error.get_error_code() in (lib.VIR_ERR_NO_SUPPORT, lib.VIR_ERR_OPERATION_UNSUPPORTED):
            return ToolMissing(f"{self.who} is too old to {doing}: {words}", "Use a newer libvirt and qemu")
        return ToolFailed(f"{self.who} did not {doing}: {words}", self.next_step)

    def ask(self, command: str, doing: str, **arguments: Any) -> Any:
        """Ask qemu through libvirt; for queries, and for what leaves all nodes as they are."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        words = json.dumps({"execute": command, **({"arguments": named} if named else {})})
        answer = self._call(doing, lambda: self._qemu.qemuMonitorCommand(self._domain, words, 0))
        with self.sense():
            told: dict[str, Any] = json.loads(answer)
            error = told.get("error")
            if error is None:
                return told["return"]
            kind, text = error["class"], f"{error['desc']:.300}"
        if kind == "CommandNotFound":
            raise ToolMissing(f"{self.who} is too old to {doing}: {text}", "Use a newer qemu")
        raise ToolFailed(f"{self.who} cannot {doing}: {text}")

    def let_go(self, job: str) -> None:
        """Wait until libvirt has seen that it has ended."""
        deadline = time.monotonic() + _SEEN_S
        while job in self.jobs():
            if time.monotonic() > deadline:
                raise ToolFailed(
                    f"{self.who} keeps the job {job!r:.80}, which has ended: asked for its disks it may die (qemu 7.2)",
                    "Look what libvirt does with it: virsh blockjob",
                )
            time.sleep(_LOOK_AGAIN_S)

    # -- what libvirt knows

    def _described(self, doing: str, flags: int) -> list[Element]:
        """Return the elements of the disks of the domain."""
        text = self._call(doing, lambda: self._domain.XMLDesc(flags))
        try:
            return list(fromstring(text, forbid_dtd=True).iterfind("./devices/disk"))
        except (ParseError, DefusedXmlException, ValueError) as error:
            raise ToolFailed(f"{self.who} is described by what is no XML: {error!s:.200}", self.next_step) from error

    def _disks(self) -> list[_Disk]:
        elements = self._described("tell of its disks", 0)
        return [_Disk(_target(element), _path(element), tuple(_indexes(element))) for element in elements]

    def _disk(self, node: str) -> _Disk:
        """Return the disk that has a node as its top layer."""
        for disk in self._disks():
            if disk.has(node):
                return disk
        raise ToolFailed(
            f"{self.who} has no disk with the node {node!r:.80} on top, and libvirt knows no job further down",
            self.next_step,
        )

    # -- what it is told

    def add_overlay(self, name: str, layer: Layer, like: str) -> None:
        """Remember it: libvirt opens it when it switches, with the caching of the disk."""
        del like
        self._overlays[name] = layer

    def close_node(self, name: str) -> None:
        """Forget it. libvirt closes what it has opened."""
        self._overlays.pop(name, None)

    def switch(self, moves: Sequence[Move]) -> None:
        """Make one snapshot of these disks alone, whose images are there, and of which libvirt keeps nothing."""
        layers = [self._overlays.get(move.overlay) for move in moves]
        if None in layers:
            raise Refused(
                f"the snapshot was begun by another monitor than {self.who}", "Attach that one again, and go on by it"
            )
        disks, own = self._disks(), {self._disk(move.node).target: move for move in moves}
        snapshot = Element("domainsnapshot")
        wanted = SubElement(snapshot, "disks")
        for disk in disks:
            move = own.get(disk.target)
            if move is None:  # else it gets an image of a name that libvirt makes up
                SubElement(wanted, "disk", name=disk.target, snapshot="no")
            else:
                layer = self._overlays[move.overlay]
                self._rename(disk, move.known_as, str(layer.format))
                _external(wanted, disk.target, layer)
        lib = self._libvirt
        flags = (
            lib.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | lib.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | lib.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | lib.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        )
        words = tostring(snapshot, encoding="unicode")
        self._call("go on in the overlay", lambda: self._domain.snapshotCreateXML(words, flags))
        for move in moves:
            del self._overlays[move.overlay]

    def _rename(self, disk: _Disk, path: str, format: str) -> None:
        """Have the domain find the disk at another path when it is started next, if that is where it is now. Else
        libvirt, with the snapshot, would define it by the overlay's own path, and by that of what is below, which both
        mean something else when the domain is started next."""
        if not self._call("tell whether it is defined", self._domain.isPersistent):
            return
        flags, config = self._libvirt.VIR_DOMAIN_XML_INACTIVE, self._libvirt.VIR_DOMAIN_AFFECT_CONFIG
        for element in self._described("tell how it is defined", flags):
            if _target(element) == disk.target and _path(element) == disk.path:
                words = _elsewhere(element, path, format)
                self._change("be defined anew", words, config)

    def _change(self, doing: str, words: str, flags: int) -> None:
        self._call(doing, lambda: self._domain.updateDeviceFlags(words, flags))

    def grow(self, node: str, size: int) -> None:
        """Make one block resize."""
        if self.is_shorter(node, size):
            target, flags = self._disk(node).target, self._libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
            self._call("make the disk longer", lambda: self._domain.blockResize(target, size, flags))

    def job_name(self, job: str, node: str) -> str:
        """Return libvirt's name for what pulls into a disk; there is one at a time. It pulls into no other layer."""
        del job
        if not any(disk.has(node) for disk in self._disks()):
            raise Refused(
                f"{self.who} writes to another layer, and libvirt moves what is below into that alone",
                "Merge what is above first, or stop the domain and tear the disk down, and run the fix then",
            )
        return f"pull-{self._disk(node).target}-{node}"

    def pull(self, job: str, node: str, backing: str) -> None:
        """Make one block pull, which keeps the name in the header as it is. libvirt ends it by itself."""
        del job
        base, disk, layers = self.base(node, backing), self._disk(node), self.depth(node) + 1
        if len(disk.indexes) != layers or (base is not None and layers < 3):
            raise ToolFailed(
                f"{self.who} has {layers} layers of {disk.target}, and libvirt knows of {len(disk.indexes)}",
                "Stop it and tear the disk down; somebody has changed it behind libvirt's back",
            )
        flags = self._libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE

        def start() -> None:
            if base is None:
                self._domain.blockPull(disk.target, 0, 0)
            else:
                self._domain.blockRebase(disk.target, f"{disk.target}[{disk.indexes[2]}]", 0, flags)

        self._call("merge layers", start)

    def mirror(self, job: str, node: str, target: str) -> None:
        """Refuse: its block copy is ended at once when it is told to go on in the target (pivot), and nothing keeps the
        guest from writing there before a record says so."""
        del job, node, target
        raise Refused(
            f"{self.who} cannot go on in another volume while it runs: libvirt has no moment at which its record could "
            "change safely",
            "Stop the domain and tear the disk down, and run the fix then",
        )

    def complete(self, job: str) -> None:
        """Return: there is none."""

    def limit(self, job: str, rate: int) -> None:
        """Set the speed of what pulls into a disk."""
        flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES
        for target in [disk.target for disk in self._disks() if job in _pulls(disk)][:1]:
            self._call("limit a merge", functools.partial(self._domain.blockJobSetSpeed, target, rate, flags))

    def finish(self, job: str) -> None:
        """Return: libvirt has none that waits."""

    def cancel(self, job: str) -> None:
        """Abort what pulls into a disk, and do not wait for it."""
        flags = self._libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC
        for disk in self._disks():
            if job in _pulls(disk):
                with contextlib.suppress(ToolFailed):  # it has ended: jobs tells
                    self._abort(disk.target, flags)

    def _abort(self, target: str, flags: int) -> None:
        self._call("stop a job", lambda: self._domain.blockJobAbort(target, flags))

    def forget(self, job: str) -> None:
        """Return: libvirt does it."""

    # -- its guest

    def frozen(self) -> bool:
        """Ask its agent, past libvirt, which does not tell that."""
        words = '{"execute": "guest-fsfreeze-status"}'
        answer = self._call(
            "ask its guest agent", lambda: self._qemu.qemuAgentCommand(self._domain, words, _AGENT_S, 0)
        )
        with self.sense():
            return {"frozen": True, "thawed": False}[json.loads(answer)["return"]]

    def freeze(self) -> int:
        """Have its agent do it."""
        return int(self._call("freeze its guest", lambda: self._domain.fsFreeze(None, 0), _FREEZE_S))

    def thaw(self) -> int:
        """Have its agent do it."""
        return int(self._call("thaw its guest", lambda: self._domain.fsThaw(None, 0), _FREEZE_S))

    def close(self) -> None:
        """Disconnect. The domain keeps the connection: who drops it last waits for the daemon, so not we."""
        left, self._domain, self._connection = [self._domain, self._connection], None, None

        def leave() -> None:
            del left[0]
            left.pop().close()

        if left[-1] is not None:
            with contextlib.suppress(Exception):  # whatever is the matter with it, we are going
                self._call("leave", leave, _LEAVE_S)


def frozen(address: Libvirt) -> bool:
    """Ask whether the file systems of a guest are frozen; see ``Hypervisors``."""
    with contextlib.closing(LibvirtMonitor(address)) as monitor:
        return monitor.frozen()


def freeze(address: Libvirt) -> int:
    """Freeze them."""
    with contextlib.closing(LibvirtMonitor(address)) as monitor:
        return monitor.freeze()


def thaw(address: Libvirt) -> int:
    """Thaw them."""
    try:
        monitor = LibvirtMonitor(address)
    except _NotRunning:
        return 0
    with contextlib.closing(monitor):
        return monitor.thaw()


def _pulls(disk: _Disk) -> list[str]:
    """Return the names that a job may have which pulls into it."""
    return [f"pull-{disk.target}-{node.format(index)}" for node in _NODE for index in disk.indexes[:1]]


def _external(disks: Element, target: str, layer: Layer) -> None:
    """Say that a disk goes on in an image that is there."""
    attribute, kind = ("dev", "block") if layer.device else ("file", "file")
    new = SubElement(disks, "disk", name=target, snapshot="external", type=kind)
    SubElement(new, "driver", type=str(layer.format))
    source = SubElement(new, "source", {attribute: layer.path})
    SubElement(source, "seclabel", model="dac", relabel="no")


def _target(element: Element) -> str:
    target = element.find("target")
    return "" if target is None else target.get("dev", "")


def _path(element: Element) -> str:
    source = element.find("source")
    return "" if source is None else source.get("file") or source.get("dev") or ""


def _elsewhere(element: Element, path: str, format: str) -> str:
    """Return the definition of a disk with another path and format; what is below it is found by its header."""
    new = deepcopy(element)
    for below in new.findall("backingStore"):
        new.remove(below)
    for source in new.findall("source"):
        source.set("file" if "file" in source.attrib else "dev", path)
    for driver in new.findall("driver") or [SubElement(new, "driver", name="qemu")]:
        driver.set("type", format)
    return tostring(new, encoding="unicode")


def _indexes(element: Element) -> list[str]:
    """Return the indexes of the layers of a disk, top first, by which libvirt and its nodes are named."""
    found: list[str] = []
    layer: Element | None = element
    while layer is not None:
        source = layer.find("source")
        index = source.get("index") if source is not None else None
        index = index or layer.get("index")
        if index is None:
            return found
        found.append(index)
        layer = layer.find("backingStore")
    return found


def binding() -> tuple[ModuleType, ModuleType]:
    """Return libvirt's modules, of this environment or of the distribution."""
    try:
        return importlib.import_module("libvirt"), importlib.import_module("libvirt_qemu")
    except ImportError:
        pass
    for name in _MODULES:
        spec = importlib.machinery.PathFinder.find_spec(name, [_DEBIAN])
        if spec is None or spec.loader is None:
            raise ToolMissing(
                "speaking to libvirt needs its Python binding, which is not installed for this Python",
                "Install it: apt install python3-libvirt, or pip install 'diskwright[libvirt]'",
            )
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except ImportError as error:
            del sys.modules[name]
            raise ToolMissing(
                f"libvirt's Python binding cannot be loaded: {error!s:.200}", "Install it anew"
            ) from error
    return sys.modules["libvirt"], sys.modules["libvirt_qemu"]
