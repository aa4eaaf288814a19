"""A story: storage, rounds of actions, when all fixes run. A seed tells it; a file keeps it and plays it again."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.adversary import judging
from tests.adversary.choices import TO_HOSTS, round_of
from tests.adversary.doors.hosts import Done
from tests.adversary.doors.sites import Site
from tests.adversary.oracle.findings import Finding
from tests.adversary.outside import OUTSIDE
from tests.adversary.plots import PLOTS, Rounds
from tests.adversary.verbs import VERBS
from tests.adversary.world import Action, World


@dataclass
class Story:
    """What happens, round after round. `settles` are the rounds after which all fixes run."""

    seed: int
    plot: str
    storage: dict[str, str]
    rounds: list[list[Action]] = field(default_factory=list)
    settles: set[int] = field(default_factory=set)

    def dump(self) -> str:
        """Return the story as JSON, a line an action."""
        head = {"seed": self.seed, "plot": self.plot, "storage": self.storage, "settles": sorted(self.settles)}
        rounds = ",\n".join(
            "  [\n" + ",\n".join(f"    {json.dumps(action)}" for action in actions) + "\n  ]" for actions in self.rounds
        )
        return json.dumps(head)[:-1] + f', "rounds": [\n{rounds}\n]}}\n'

    @staticmethod
    def load(text: str) -> "Story":
        """Return the story that `dump` wrote."""
        data: dict[str, Any] = json.loads(text)
        return Story(data["seed"], data["plot"], data["storage"], data["rounds"], set(data["settles"]))


@dataclass
class Played:
    """What came of a story."""

    story: Story
    findings: list[Finding]
    log: list[Done]
    noted: list[str]


class Stage:
    """Where stories are played: a directory for worlds, and the site of their hosts and storage."""

    def __init__(self, directory: Path, site: Site) -> None:
        self._directory, self._site = directory, site
        self._count = 0

    def tell(self, seed: int, plot: str) -> Played:
        """Choose a story by its seed while it is played; `plot` is one of PLOTS, or "" for ordinary work with kills."""
        chosen = PLOTS.get(plot)
        kind = chosen.storage if chosen else "directory"
        story = Story(seed, plot, {"main": kind, "other": "directory"})
        rng = random.Random(f"{seed} {plot}")
        planned = chosen.make(rng) if chosen else []
        return self._play(story, lambda world: _choose(world, story, rng, planned))

    def replay(self, story: Story) -> Played:
        """Play a story again. Its actions are the same; how its processes interleave is up to the machine."""
        return self._play(story, lambda world: _repeat(world, story))

    def _play(self, story: Story, rounds: Callable[[World], list[Finding]]) -> Played:
        self._count += 1
        world = World(self._directory / f"world-{self._count}", self._site, story.storage, VERBS | OUTSIDE)
        try:
            findings = rounds(world)
            return Played(story, findings, world.log, world.noted)
        finally:
            world.close()


def _choose(world: World, story: Story, rng: random.Random, planned: Rounds) -> list[Finding]:
    plot = PLOTS.get(story.plot)
    beside = not plot or (not plot.alone and rng.random() < 0.5)
    for number in range(len(planned) or world.site.rounds):
        actions = list(planned[number]) if number < len(planned) else []
        if beside:
            actions += round_of(world, rng, number, most=2 if plot else 4, beside=actions)
        story.rounds.append(actions)
        if not plot and rng.random() < 0.4:
            story.settles.add(number)
        if findings := _one_round(world, story, number):
            return findings
    return judging.end(world, world.hosts[rng.randrange(2) % len(world.hosts)])


def _repeat(world: World, story: Story) -> list[Finding]:
    for number in range(len(story.rounds)):
        if findings := _one_round(world, story, number):
            return findings
    return judging.end(world, world.hosts[0])


def _one_round(world: World, story: Story, number: int) -> list[Finding]:
    host = world.hosts[number % len(world.hosts)]
    findings = world.play(story.rounds[number])
    unseen = any(action.get("unseen") for action in story.rounds[number])
    if not findings and not unseen:
        findings = (
            judging.settle(world, host)
            if number in story.settles
            else judging.look(world, host, _touched(world, story.rounds[number]))
        )
    return findings


def _touched(world: World, actions: list[Action]) -> set[str]:
    if any(action["do"] in TO_HOSTS for action in actions):
        return set(world.places)
    return {action[key] for action in actions for key in ("repo", "from") if action.get(key)}
