"""A live simulation that begins at a step of a replay: the same world, and from there on the operator decides.

The scenario is played again up to that step, which gives the same world for the same seed. Everything happens
in this process and on the simulated storage; no repository of this host is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import BadRequest, DiskwrightError, Refused
from tui.text.printable import printable
from tui.training.replay import EPOCH, Replay, lost_words, view_of_state
from tui.view.fixes import FixRow
from tui.view.snapshot import RepositoryView, never_read

if TYPE_CHECKING:
    from sim.scenario.backends.backend import Ended
    from sim.scenario.backends.simulated import SimBackend


class Outcome(NamedTuple):
    """What came of an act in the simulation."""

    how: str
    """done, failed, killed or lost."""
    text: str


class Branch:
    """A simulated world that goes on."""

    def __init__(self, backend: SimBackend, names: dict[str, str], replay: Replay, steps: int) -> None:
        self._backend = backend
        self._names = {image: printable(name) for image, name in names.items()}
        self.title = replay.title
        self.repositories = replay.repositories
        self.hosts = replay.hosts
        self.steps = steps
        """How many steps of the scenario were played again."""
        self.log: list[Outcome] = []

    @property
    def origin(self) -> str:
        """Where it begins, in words."""
        return f"live from where step {self.steps} of the scenario ended ({self.title})"

    def view(self, repository: str, host: str = "") -> RepositoryView:
        """A repository as a host sees it now."""
        from sim.scenario.report.recording import of_repository

        host = host or self.hosts[0]
        with self._backend.engine(host) as engine:
            state = of_repository(engine, repository)
        return view_of_state(never_read(repository, host), state, self._names, EPOCH + self._backend.world.now)

    def run(self, host: str, repository: str, row: FixRow) -> Outcome:
        """Run a fix to its end as a process of a host."""
        return self._fix(host, repository, row, None)

    def crash(self, host: str, repository: str, row: FixRow, effect: int) -> Outcome:
        """Run a fix and kill its process just before its effect number ``effect`` (from 1)."""
        from sim.scenario.language.model import Interruption, Point

        return self._fix(host, repository, row, Interruption("crash", Point(effect=effect)))

    def power_cut(self, lose: str = "all") -> Outcome:
        """Everything dies; ``lose``: "all" of what was not durable, or a number for a part that chance decides."""
        lost = self._backend.power_cut(lose, "", 0)
        return self._note("lost", lost_words(lost, self._named) or "nothing was lost")

    def kill_host(self, host: str) -> Outcome:
        """Every process of a host dies."""
        self._backend.kill_host(host)
        return self._note("killed", f"all processes of {host} died")

    def close(self) -> None:
        """The simulated world is given up."""
        self._backend.close()

    def _named(self, text: str) -> str:
        for image, name in self._names.items():
            text = text.replace(image, name)
        return text

    def _fix(self, host: str, repository: str, row: FixRow, interruption: Any) -> Outcome:
        arguments = {
            "repo": repository, "kind": row.rule, "image": row.target, "lose_data": True, "deep": False,
            "given": [row.fix().to_json()], "nth": 0,
        }  # fmt: skip
        ended = self._backend.run(host, "fix", arguments, interruption, ())
        return self._note(ended.how, _sentence(host, row, ended))

    def _note(self, how: str, text: str) -> Outcome:
        outcome = Outcome(how, text)
        self.log.append(outcome)
        return outcome


def _sentence(host: str, row: FixRow, ended: Ended) -> str:
    if ended.failure is not None:
        return f"{row.what} on {host}: {printable(ended.failure.message)}"
    where = f" before effect {ended.reached.number}, {printable(ended.reached.name)}" if ended.reached else ""
    return f"{row.what} on {host}: {ended.how}{where}"


def branch(replay: Replay, number: int) -> Branch:
    """A live simulation from a step of a replay: from the end of the last whole step of the scenario up to there.

    Refused for a run on real files, and when the scenario does not run as it was recorded; BadRequest."""
    from sim.scenario.language import parse
    from sim.scenario.language.source import ScenarioError
    from sim.scenario.play.play import play_up_to
    from sim.scenario.report.outcome import ExpectationViolated

    if replay.backend != "sim":
        raise Refused("this run was recorded on real files", "Only runs of the simulator can be gone on with")
    if not replay.source:
        raise Refused("the trace does not have its scenario", "Record it again")
    steps = replay.whole_steps(number)
    try:
        scenario = parse.parse(replay.scenario, replay.source)
        backend, names = play_up_to(scenario, steps, replay.seed)
    except ScenarioError as error:
        raise BadRequest(f"the scenario of the trace cannot be played: {printable(error.message)}") from None
    except (ExpectationViolated, DiskwrightError) as error:
        reason = printable(getattr(error, "message", str(error)))
        raise Refused(f"the scenario does not run as it was recorded: {reason}", "Record it again") from None
    return Branch(backend, names, replay, steps)
