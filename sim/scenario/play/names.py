"""What a scenario knows while it is played: the names that were given, and what they stand for."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.records import Record, VolumeRef
from sim.scenario.backends.backend import ActiveFault, Backend, VirtualMachine
from sim.scenario.backends.operations import read
from sim.scenario.language.model import FaultPlan, Scenario, Step
from sim.scenario.language.patterns import MAX_BYTES, content
from sim.scenario.language.source import ScenarioError
from sim.scenario.report.outcome import ExpectationViolated, state_of, usable


class NamedImage(NamedTuple):
    """An image that has a name in a scenario."""

    repository: str
    id: str


class Names:
    """Names of one run."""

    def __init__(self, scenario: Scenario, backend: Backend) -> None:
        self.scenario = scenario
        self.backend = backend
        self.images: dict[str, NamedImage] = {}
        self.unmade: dict[str, int] = {}
        """Names that no image has got, with the line of the step that was to make it."""
        self.contents: dict[str, bytes] = {}
        self.fixes: dict[str, list[dict[str, Any]]] = {}
        self.files: set[str] = set()
        self.machines: dict[str, VirtualMachine] = {}
        self.waiting: dict[str, Step] = {}
        """The steps of frozen processes."""

    def impossible(self, line: int, message: str) -> ScenarioError:
        """An error of the scenario that shows only when it is played."""
        return ScenarioError(self.scenario.path, line, message)

    def image(self, name: str, line: int, repository: str = "") -> NamedImage:
        """The image of that name, in another repository if one is named."""
        if name not in self.images:
            since = self.unmade.get(name, 0)
            raise self.impossible(line, f"there is no image {name}: the step at line {since} has made none")
        found = self.images[name]
        return found._replace(repository=repository) if repository else found

    def of_step(self, step: Step, field: str) -> NamedImage:
        """The image that a field of a step names."""
        return self.image(step.values[field], step.lines[field], step.values.get("in", ""))

    def names_in(self, repository: str) -> dict[str, str]:
        """Names by id, for what is in a repository; where an image has several the first one."""
        found: dict[str, str] = {}
        for name, image in self.images.items():
            if image.repository == repository or image.id not in found:
                found.setdefault(image.id, name)
        return found

    def file(self, name: str, line: int) -> str:
        """Path of an image file."""
        if name not in self.files:
            raise self.impossible(line, f"the file {name} was not written")
        return self.backend.scratch(name)

    # -- contents

    def expected_content(self, engine: Engine, value: dict[str, Any], line: int, size: int) -> bytes:
        """The content that an expectation describes, for an image of ``size`` bytes."""
        if size > MAX_BYTES:
            raise self.impossible(line, f"contents are looked at up to {MAX_BYTES} bytes; this has {size}")
        if "pieces" in value:
            return content(value["pieces"], size)
        if "saved" in value:
            if value["saved"] not in self.contents:
                raise self.impossible(line, f"nothing was saved as {value['saved']}")
            return self.contents[value["saved"]]
        return self.content_of(engine, self.image(value["as"], line, value.get("in", "")), line)

    def content_of(self, engine: Engine, image: NamedImage, line: int) -> bytes:
        """What a reader of the image sees; ExpectationViolated when nobody can read it."""
        report = next((one for one in engine.list_images(image.repository) if one.id == image.id), None)
        if report is None or not usable(report):
            why = f": {report.reason}" if report else ""
            raise ExpectationViolated(line, f"expected an image that can be read, found it {state_of(report)}{why}")
        if report.size_bytes > MAX_BYTES:
            raise self.impossible(line, f"contents are looked at up to {MAX_BYTES} bytes")
        return read(engine, image.repository, image.id)

    # -- paths

    def record_path(self, engine: Engine, image: NamedImage, line: int) -> str:
        """The file of the newest record of an image."""
        entry = engine.context.repository(image.repository).tags.read(image.id)
        if entry is None or entry.tombstone:
            raise self.impossible(line, "there is no record of this image any more")
        root = self.backend.root(image.repository)
        return f"{root}/tags/{image.id[:2]}/{image.id}.{entry.generation:016x}"

    def record(self, engine: Engine, image: NamedImage, line: int) -> Record:
        """The record of an image."""
        entry = engine.context.repository(image.repository).tags.read(image.id)
        if entry is None or entry.record is None:
            raise self.impossible(line, "the record of this image cannot be read (any more)")
        return entry.record

    def data_path(self, engine: Engine, image: NamedImage, line: int) -> str:
        """The file with the image's data, or the one that is being made."""
        volume = self._volume(engine, image, line)
        return engine.context.repository(image.repository).volumes.layer(volume).path

    def digests_path(self, engine: Engine, image: NamedImage, line: int) -> str:
        """The file with the digest list of the image's data, or of what is being made."""
        return f"{self.backend.root(image.repository)}/digests/{self._volume(engine, image, line).id}"

    def _volume(self, engine: Engine, image: NamedImage, line: int) -> VolumeRef:
        record = self.record(engine, image, line)
        volume = record.volume or (record.operation.attempt if record.operation else None)
        if volume is None:
            raise self.impossible(line, "this image has no data")
        return volume

    def active(self, faults: tuple[FaultPlan, ...], engine: Engine, line: int) -> tuple[ActiveFault, ...]:
        """Faults with the paths that they are about."""
        found = []
        for fault in faults:
            fragments: list[str] = []
            if fault.image:
                image = self.image(fault.image, line, fault.repository)
                if fault.part != "data":
                    fragments += [f"/tags/{image.id[:2]}/{image.id}.", f"/tags/{image.id[:2]}\n"]
                if fault.part != "record":
                    fragments.append(self.data_path(engine, image, line))
            elif fault.repository:
                fragments.append(f"{self.backend.root(fault.repository)}/")
            found.append(ActiveFault(fault.error, fault.call, fault.nth, fault.times, tuple(fragments)))
        return tuple(found)
