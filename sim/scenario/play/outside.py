"""What others do in a scenario who are not the engine: machines that use prepared images, operators with tools."""

from __future__ import annotations

from collections.abc import Callable

from engine.api import Engine
from engine.doors.processes import ProcessState
from engine.formats.lvm.metadata.layout import volume_name
from engine.host.state import Prepared
from sim.hosts.world import on_server
from sim.scenario.backends.backend import Backend, VirtualMachine
from sim.scenario.language.model import Step
from sim.scenario.language.patterns import Piece, chunks
from sim.scenario.play.names import Names

_LOOK_AGAIN_S = 0.002
_FILLER = "filler"


# -- machines


def _start(backend: Backend, names: Names, step: Step) -> None:
    assert backend.virtual is not None, f"{backend.name} has no virtual machines"
    with backend.engine(step.host) as engine:
        entry = _prepared(engine, names, step)
    cache, monitor = step.values.get("cache", "writeback"), step.values.get("monitor", False)
    started = backend.virtual.start_machine(step.host, entry.path, entry.format, cache, monitor)
    names.machines[step.values["as"]] = started
    if monitor:
        image = names.of_step(step, "image")
        with backend.engine(step.host) as engine:
            engine.attach_monitor(image.repository, image.id, started.monitor)


def _prepared(engine: Engine, names: Names, step: Step) -> Prepared:
    image = names.of_step(step, "image")
    identity = engine.context.repository(image.repository).identity
    for entry in engine.list_prepared():
        if (entry.repository, entry.image) == (identity, image.id):
            return entry
    raise names.impossible(step.line, f"the image is not prepared on {step.host} (any more)")


def _write(machine: VirtualMachine, step: Step) -> None:
    values = step.values
    piece = Piece(values["pattern"], values.get("at", 0), values["length"], values.get("every", 0),
                  values.get("times", 1))  # fmt: skip
    for start, part in chunks([piece]):
        machine.write(start, part)
    if values.get("flush", True):
        machine.flush()


def _of_machine(act: Callable[[VirtualMachine, Step], None], running: bool = True) -> Callable[..., None]:
    def happen(backend: Backend, names: Names, step: Step) -> None:
        name = step.values["machine"]
        machine = names.machines.get(name)
        if machine is None or (running and not machine.running):
            raise names.impossible(step.line, f"the machine {name} does not run (any more)")
        act(machine, step)

    return happen


MACHINES: dict[str, Callable[[Backend, Names, Step], None]] = {
    "start_machine": _start,
    "machine_writes": _of_machine(_write),
    "freeze_machine": _of_machine(lambda machine, step: machine.freeze()),
    "thaw_machine": _of_machine(lambda machine, step: machine.thaw(), running=False),
    "kill_machine": _of_machine(lambda machine, step: machine.kill(), running=False),
    "stop_machine": _of_machine(lambda machine, step: machine.stop()),
}
"""What machines do, where the backend has some."""


# -- operators


def _resize(backend: Backend, names: Names, step: Step) -> None:
    image = names.of_step(step, "image")
    with backend.engine(step.host) as engine:
        volume = names.record(engine, image, step.line).volume
        if volume is None:
            raise names.impossible(step.line, "this image has no data")
        if names.backend.group(image.repository):
            group, groups = backend.parameters(image.repository)["volume_group"], engine.doors.volume_groups
            groups.resize(group, volume_name(volume.id), step.values["size"])
            groups.sync(group)
            return
        layer = engine.context.repository(image.repository).volumes.layer(volume)
        engine.doors.images.resize(layer, step.values["size"])


def _kill_holder(backend: Backend, names: Names, step: Step) -> None:
    with backend.engine(step.host) as engine:
        processes, holder = engine.doors.processes, _prepared(engine, names, step).process
        processes.kill(holder)
        while processes.state(holder) is not ProcessState.GONE:
            engine.doors.clock.sleep(_LOOK_AGAIN_S)


def _lose_leases(backend: Backend, names: Names, step: Step) -> None:
    assert backend.world is not None, "only the simulator can take locks away"
    for process in list(backend.world.machine(step.values["name"]).processes.values()):
        process.lose_locks()


def _rename_host(backend: Backend, names: Names, step: Step) -> None:
    assert backend.world is not None, "only the simulator can call a host otherwise"
    backend.world.machine(step.values["name"]).called = step.values["to"]


def _chmod(backend: Backend, names: Names, step: Step) -> None:
    if backend.group(step.values["in"]):
        _permit(backend, names, step)
        return
    if backend.world is None:
        raise names.impossible(step.line, "of a repository that is a directory this can be played on sim alone")
    values, path = step.values, backend.root(step.values["in"])
    if "image" in values:
        with backend.engine(step.host) as engine:
            image = names.image(values["image"], step.lines["image"], values["in"])
            find = names.record_path if values.get("part") == "record" else names.data_path
            path = on_server(find(engine, image, step.line))
    elif values["path"]:
        path += f"/{values['path']}"
    modes = backend.world.modes
    if values["rights"] == "all":
        modes.give_back(path)
    else:
        modes.take(path, values["rights"] == "read")


def _permit(backend: Backend, names: Names, step: Step) -> None:
    assert backend.groups is not None, f"{backend.name} has no volume groups"
    values = step.values
    if "image" not in values or values.get("part") == "record" or values["rights"] == "none":
        raise names.impossible(
            step.line, "of a volume group the data of an image can be made read-only, and be as it was"
        )
    with backend.engine(step.host) as engine:
        volume = names.record(engine, names.image(values["image"], step.lines["image"], values["in"]), step.line).volume
    if volume is None:
        raise names.impossible(step.line, "this image has no data")
    group = backend.group(values["in"])
    backend.groups.permit(step.host, group, volume_name(volume.id), values["rights"] == "all")


def fill_groups(names: Names, step: Step) -> None:
    """Leave so many bytes, in whole extents, of each volume group; "plenty": all that there is."""
    room, backend = step.values["bytes"], names.backend
    for plan in names.scenario.repositories:
        if not backend.group(plan.name):
            continue
        with backend.engine(step.host) as engine:
            group, groups = backend.parameters(plan.name)["volume_group"], engine.doors.volume_groups
            groups.remove(group, _FILLER)
            report = groups.report(group)
            if room is not None and (taken := report.free - -(-room // report.extent_bytes) * report.extent_bytes) > 0:
                groups.create(group, _FILLER, taken, [])
            groups.sync(group)


OPERATORS: dict[str, Callable[[Backend, Names, Step], None]] = {
    "kill_holder": _kill_holder,
    "resize_behind": _resize,
    "lose_leases": _lose_leases,
    "rename_host": _rename_host,
    "chmod": _chmod,
}
"""What operators do, on every backend that the table of verbs names."""
