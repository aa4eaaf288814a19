"""What befalls machines and storage in a scenario: steps that no process of a host does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.scenario.backends.simulated import SimBackend
from sim.scenario.language.model import Step
from sim.scenario.play.names import Stage

if TYPE_CHECKING:
    from sim.scenario.backends.lab import LabBackend

Happening = Callable[[Stage, Step, int], Any]
"""Makes it so, with the seed of the run; returns what was lost, if anything was."""


def _lab(stage: Stage) -> LabBackend:
    """The backend of steps that only the lab has; ``parse`` lets no other play them."""
    from sim.scenario.backends.lab import LabBackend

    assert isinstance(stage.backend, LabBackend)
    return stage.backend


def _machines(stage: Stage) -> SimBackend | LabBackend:
    """The same for steps about logical volumes and whole machines, which the simulator has too."""
    return stage.backend if isinstance(stage.backend, SimBackend) else _lab(stage)


def _power_cut(stage: Stage, step: Step, seed: int) -> tuple[str, ...]:
    return stage.backend.power_cut(step.values["lose"], step.values.get("profile", ""), seed)


def _open_volume(stage: Stage, step: Step, seed: int) -> None:
    image = stage.of_step(step, "image")
    _machines(stage).open_volume(step.host, image.repository, image.id)


HAPPENINGS: dict[str, Happening] = {
    "kill_host": lambda stage, step, seed: stage.backend.kill_host(step.values["name"]),
    "reset_host": lambda stage, step, seed: stage.backend.kill_host(step.values["name"]),
    "freeze_host": lambda stage, step, seed: _machines(stage).freeze_host(step.values["name"]),
    "thaw_host": lambda stage, step, seed: _machines(stage).thaw_host(step.values["name"]),
    "power_cut": _power_cut,
    "space_left": lambda stage, step, seed: stage.backend.space_left(step.values["bytes"]),
    "jump_clock": lambda stage, step, seed: stage.backend.jump_clock(step.values["name"], step.values["seconds"]),
    "wait": lambda stage, step, seed: stage.backend.wait(step.values["seconds"]),
    "isolate": lambda stage, step, seed: _lab(stage).isolate(step.values["name"]),
    "rejoin": lambda stage, step, seed: _lab(stage).rejoin(step.values["name"]),
    "server": lambda stage, step, seed: _lab(stage).server(step.values["of"], step.values["does"]),
    "open_volume": _open_volume,
    "close_volume": lambda stage, step, seed: _machines(stage).close_volume(stage.of_step(step, "image").id),
}
