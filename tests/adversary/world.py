"""A world: storage, hosts, machines, and the model of what must be there; plays one round of actions after another.

The actions of a round run side by side; the model changes after all of them have ended. What the actions are is in
`verbs` and `outside`; what is looked at afterwards is in `judging`.
"""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.adversary.doors import processes
from tests.adversary.doors.hands import Gone
from tests.adversary.doors.hosts import Done, Host, Machine
from tests.adversary.doors.machines import MachineError
from tests.adversary.doors.places import Files, Place
from tests.adversary.doors.sites import Site
from tests.adversary.oracle.contents import Content
from tests.adversary.oracle.findings import CannotTry, Finding, NotThere
from tests.adversary.oracle.model import Change, Image, Model, states_after

Action = dict[str, Any]
QUIET_S = 60.0
_NARROW = "create_disk import_file write check read digest backup copy remove machine_start".split()


@dataclass
class Outcome:
    """What one action did. Moments of disks (`writes`) come into the model first, then `makes`, then `changes`."""

    done: list[Done] = field(default_factory=list)
    writes: Callable[[], None] | None = None
    makes: Callable[["Before"], None] | None = None
    changes: list[tuple[str, str, Change]] = field(default_factory=list)
    cleans: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    note: str = ""


@dataclass
class Before:
    """The moments of each image before the round."""

    contents: dict[tuple[str, str], list[Content]]

    def and_now(self, repository: str, image: Image) -> list[Content]:
        """Return every moment of an image in this round."""
        return [one.copy() for one in self.contents.get((repository, image.name), []) + image.contents]


Verbs = Mapping[str, Callable[["World", Action], Outcome]]


class World:
    """One world in a directory of its own; `close` ends everything that was started in it."""

    def __init__(self, directory: Path, site: Site, storage: dict[str, str], verbs: Verbs) -> None:
        self.directory, self.site, self._verbs = directory, site, verbs
        self.model = Model()
        self.log: list[Done] = []
        self.hosts = [Host(name, directory, hands, notes, self.log) for name, hands, notes in site.hosts()]
        self.places: dict[str, Place] = {}
        self.machines: dict[str, Machine] = {}
        self.backups: dict[str, dict[str, Image]] = {}
        self.away: dict[str, tuple[str, str]] = {}  # records that are being restored
        self.deleted: set[str] = set()  # names of files that the adversary itself has deleted
        self.replaced: set[str] = set()  # repositories with another lock file, which no operator has accepted yet
        self.lock = threading.Lock()
        self.noted: list[str] = []
        self._numbers = 0
        directory.mkdir(parents=True)
        (directory / "home").mkdir()
        (directory / "run").mkdir(mode=0o700)
        try:
            for name, kind in storage.items():
                self._add(name, kind)
        except CannotTry:
            self.close()
            raise

    def host(self, action: Action) -> Host:
        """Return the host that an action names."""
        return self.hosts[int(action.get("host", 0)) % len(self.hosts)]

    def host_of(self, machine: Machine) -> Host:
        """Return the host on which a machine runs."""
        return next(host for host in self.hosts if host.name == machine.host)

    def files(self, repository: str) -> Files:
        """Return the storage of a repository that is made of files."""
        place = self.places[repository]
        if not isinstance(place, Files):
            raise NotThere("there are no files")
        return place

    def reach(self) -> None:
        """Take the hands of the hosts that there are now: those that have booted have others."""
        for host, (_name, hands, _notes) in zip(self.hosts, self.site.hosts(), strict=True):
            host.hands = hands

    def file(self, suffix: str) -> Path:
        """Return the path of a new file of the adversary's own."""
        with self.lock:
            self._numbers += 1
            return self.directory / f"own-{self._numbers}{suffix}"

    def play(self, actions: list[Action]) -> list[Finding]:
        """Run the actions of a round side by side, take their outcomes over; return what was wrong at once."""
        before = Before(
            {
                (repository, image.name): [one.copy() for one in image.contents]
                for repository, images in self.model.repositories.items()
                for image in images.values()
            }
        )
        with ThreadPoolExecutor(max_workers=max(1, len(actions))) as pool:
            outcomes = list(pool.map(self._perform, actions))
        self.noted += [outcome.note for outcome in outcomes if outcome.note]
        for outcome in outcomes:
            if outcome.writes:
                outcome.writes()
        for outcome in outcomes:
            if outcome.makes:
                outcome.makes(before)
        self._apply_changes(outcomes)
        self._unchecked(actions)
        findings = [finding for outcome in outcomes for finding in outcome.findings]
        return findings + self._impossible(outcomes) + self.machines_hurt()

    def quiet(self) -> None:
        """Wait until nothing works any more but machines and what is prepared; end what is left after a minute."""
        deadline = time.monotonic() + QUIET_S
        for host in {id(host.hands): host for host in self.hosts}.values():
            while working := self._working(host):
                if not host.hands.wait_gone(working[0], min(1.0, QUIET_S)) and time.monotonic() > deadline:
                    self.noted.append(f"still at work on {host.name} after {QUIET_S:.0f} s: {working}")
                    for pid in working:
                        host.hands.kill(pid)

    def _working(self, host: Host) -> list[int]:
        """Return the processes on the machine of a host that do work."""
        known = {machine.holder for machine in self.machines.values() if self.host_of(machine).hands is host.hands}
        working = [pid for pid in host.hands.working(str(self.directory)) if pid not in known]
        if not working:
            return []
        here = [other for other in self.hosts if other.hands is host.hands]
        idle = {entry["pid"] for other in here for entry in other.prepared()}
        return [pid for pid in working if pid not in idle]

    def teardown_all(self) -> None:
        """Stop all machines and give back everything that is prepared."""
        for machine in self.machines.values():
            with contextlib.suppress(MachineError):
                machine.end(kill=False)
        self.machines.clear()
        for host in self.hosts:
            for entry in host.prepared():
                host.run("teardown", entry["repository"], entry["image"])

    def accept(self, repository: str) -> None:
        """Say on every host that what stands at the path of a repository now is meant to be there."""
        place = self.places[repository]
        for host in self.hosts:
            if host.run("images", repository).code:
                host.run("connect", repository, place.format, *place.parameters(making=False), "--accept-moved")
        self.replaced.discard(repository)

    def in_use(self, repository: str, name: str) -> bool:
        """Say whether a machine has the image open."""
        return any(m.repository == repository and m.image == name and m.running() for m in self.machines.values())

    def is_prepared(self, repository: str, image: str) -> bool:
        """Say whether a host has it prepared, as after a `prepare` with a command that was killed, until a teardown."""
        return any(
            (entry["repository"], entry["image"]) == (repository, image)
            for host in self.hosts
            for entry in host.prepared()
        )

    def machines_hurt(self) -> list[Finding]:
        """Look at each running machine: are the files that it has open still files of the repository?"""
        found = []
        for name, machine in self.machines.items():
            if machine.running():
                image = self.model.find(machine.repository, machine.image)
                below = self.places[machine.repository].below()
                for path in machine.hands.unlinked(machine.number, below) if below else []:
                    gone = Path(path.removesuffix(" (deleted)")).name in self.deleted
                    if gone or (image and image.hurt == "volume"):
                        continue
                    says = f"the running machine {name} (process {machine.number}) has a deleted file open: {path}"
                    found.append(Finding("file in use deleted", machine.repository, machine.image, says))
        return found

    def close(self) -> None:
        """Kill what runs, take storage away, delete the directory."""
        for host in self.hosts:
            with contextlib.suppress(Gone):
                host.hands.end_world(str(self.directory))
        for repository, place in self.places.items():
            for host in self.hosts if place.format == "nfs-1.0" else ():
                host.run("disconnect", repository)
            place.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _add(self, name: str, kind: str) -> None:
        place = self.site.place(self.directory / name, kind)
        self.places[name] = place
        self.model.repositories[name] = {}
        made = self.hosts[0].run("create-repo", place.format, *place.parameters(making=True))
        joined = [host.run("connect", name, place.format, *place.parameters(making=False)) for host in self.hosts]
        if any(done.code for done in [made, *joined]):
            self.close()
            raise CannotTry(f"no repository: {made.last_words} {joined[-1].last_words}")

    def _perform(self, action: Action) -> Outcome:
        processes.pause(action.get("after", 0))
        try:
            outcome = self._verbs[action["do"]](self, action)
        except (MachineError, NotThere, Gone) as error:
            return Outcome(note=str(error))
        if action.get("must") and outcome.done and outcome.done[-1].code:
            says = f"{' '.join(outcome.done[-1].argv)}: {outcome.done[-1].last_words}"
            outcome.findings.append(Finding(action["must"], action["repo"], action.get("image", ""), says))
        return outcome

    def _apply_changes(self, outcomes: list[Outcome]) -> None:
        cleans = set().union(*(outcome.cleans for outcome in outcomes))
        changes: dict[tuple[str, str], list[Change]] = {}
        for outcome in outcomes:
            for repository, name, change in outcome.changes:
                changes.setdefault((repository, name), []).append(change)
        for repository, images in self.model.repositories.items():
            for name, image in images.items():
                told = changes.get((repository, name), [])
                if told or repository in cleans:
                    image.states = states_after(image.states, told, cleaned=repository in cleans)

    def _unchecked(self, actions: list[Action]) -> None:
        """Note what has to be compared again: the image of an action, or all that share the repository with it."""
        for action in actions:
            narrow = action["do"] in _NARROW and not action.get("kill")
            for image in self.model.repositories.get(action.get("repo", ""), {}).values():
                if not narrow or image.name in (action.get("image"), action.get("as")):
                    image.checked = False

    def _impossible(self, outcomes: list[Outcome]) -> list[Finding]:
        found = []
        for done in [one for outcome in outcomes for one in outcome.done]:
            if "Traceback" in done.error or (done.code == 1 and "--" not in done.argv and not done.struck):
                found.append(Finding("unexpected error", "", "", f"{' '.join(done.argv)}: {done.error[-600:]}"))
            elif "it did not end in time" in done.error:
                found.append(Finding("endless", "", "", f"{' '.join(done.argv)} did not end"))
        return found
