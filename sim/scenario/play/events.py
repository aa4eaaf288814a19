"""What befalls machines, cables and storage in a scenario: steps that no process of a host does.

Each table says which part of a backend its verbs need; ``sim.scenario.language.parse`` lets no scenario ask a backend
for a part that it has not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.scenario.backends.backend import Backend, Machines, Network
from sim.scenario.language.model import Step
from sim.scenario.play.names import Names
from sim.scenario.play.outside import MACHINES, OPERATORS, fill_groups


def _power_cut(machines: Machines, names: Names, step: Step, seed: int) -> tuple[str, ...]:
    return machines.power_cut(step.values["lose"], step.values.get("profile", ""), seed)


def _open_volume(machines: Machines, names: Names, step: Step, seed: int) -> None:
    image = names.of_step(step, "image")
    machines.open_volume(step.host, image.repository, image.id)


def _space_left(machines: Machines, names: Names, step: Step, seed: int) -> None:
    fill_groups(names, step)
    if not all(names.backend.group(plan.name) for plan in names.scenario.repositories):
        machines.space_left(step.values["bytes"])


OF_HOSTS: dict[str, Callable[[Backend, Step], None]] = {
    "kill_host": lambda backend, step: backend.kill_host(step.values["name"]),
    "reset_host": lambda backend, step: backend.kill_host(step.values["name"]),
}
OF_MACHINES: dict[str, Callable[[Machines, Names, Step, int], Any]] = {
    "freeze_host": lambda machines, names, step, seed: machines.freeze_host(step.values["name"]),
    "thaw_host": lambda machines, names, step, seed: machines.thaw_host(step.values["name"]),
    "power_cut": _power_cut,
    "space_left": _space_left,
    "jump_clock": lambda machines, names, step, seed: machines.jump_clock(step.values["name"], step.values["seconds"]),
    "wait": lambda machines, names, step, seed: machines.wait(step.values["seconds"]),
    "open_volume": _open_volume,
    "close_volume": lambda machines, names, step, seed: machines.close_volume(names.of_step(step, "image").id),
}
OF_THE_NETWORK: dict[str, Callable[[Network, Step], None]] = {
    "isolate": lambda network, step: network.isolate(step.values["name"]),
    "rejoin": lambda network, step: network.rejoin(step.values["name"]),
    "server": lambda network, step: network.server(step.values["of"], step.values["does"]),
}
EVENTS = OF_HOSTS.keys() | OF_MACHINES.keys() | OF_THE_NETWORK.keys() | MACHINES.keys() | OPERATORS.keys()


def happen(backend: Backend, names: Names, step: Step, seed: int) -> Any:
    """Let the event of a step happen, with the seed of the run; return what was lost, if anything was.

    DiskwrightError: who was to do it could not."""
    if step.verb in MACHINES or step.verb in OPERATORS:
        return (MACHINES | OPERATORS)[step.verb](backend, names, step)
    if step.verb in OF_HOSTS:
        return OF_HOSTS[step.verb](backend, step)
    if step.verb in OF_MACHINES:
        assert backend.machines is not None, f"{backend.name} has no machines"
        return OF_MACHINES[step.verb](backend.machines, names, step, seed)
    assert backend.network is not None, f"{backend.name} has no network"
    return OF_THE_NETWORK[step.verb](backend.network, step)
