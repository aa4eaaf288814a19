"""A recorded run of the simulator, looked at step by step in the views of live use. Read-only.

The file is what ``diskwright sim run --trace`` wrote: lines of JSON, of which those of one scenario are
a replay. It may come from anybody; what does not fit is an error that names the line. States are read when
they are looked at, so a long trace opens at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.errors import BadRequest, NotFound, from_os_error
from tui.text.amounts import compact
from tui.text.printable import printable
from tui.text.statuses import SHOWN, State, code_of
from tui.view.fixes import FixRow
from tui.view.gather import Names, report_from_json, with_report
from tui.view.snapshot import RepositoryView, lost, never_read

READ_ONLY = "REPLAY"
EPOCH = 1_700_000_000.0
"""Wall time at the beginning of a simulated run (as ``sim.hosts.doors.clock.EPOCH``)."""
MAX_BYTES = 1 << 30
_MAX_STEPS = 100_000
_REMEMBERED = 32
_OFFERS = 5
_LOST_TOLD = 6
_CRASHES = ("power_cut", "kill_host")

Json = dict[str, Any]


class ReplayStep(NamedTuple):
    """One step of a trace. Texts are printable."""

    number: int
    """Place of the step in ``Replay.steps``."""
    line: int
    """Of the scenario file, 0 for none."""
    host: str
    verb: str
    text: str
    crash: bool
    how: str
    """How a process ended, "" when it ended well."""
    when: float
    """Seconds since the beginning of the run."""
    image: str
    name: str
    lost: str
    """At a crash: what is gone."""
    saved: str
    """At a crash: what is on disk of the work that was interrupted."""
    resumed: str
    """At a crash: who goes on with it, and when."""
    checks: str
    """How many expectations of the scenario hold up to here."""


class _Raw(NamedTuple):
    """A line of the trace: what is told of it, and the line itself for its states."""

    event: Json
    line: bytes
    states: tuple[str, ...]
    """Repositories whose state it has."""


class Replay:
    """One recorded scenario."""

    def __init__(self, path: str, scenario: str, raws: Sequence[_Raw], verdict: Json) -> None:
        self.path = path
        self.scenario = scenario
        self._head = raws[0].event
        self._raws = raws
        self._verdict = verdict
        self._names = _names(json.loads(raws[-1].line))
        self._views: dict[tuple[int, str], RepositoryView] = {}
        self.title = printable(self._head.get("title", "")) or printable(scenario)
        self.story = printable(self._head.get("story", ""))
        self.verdict = printable(f"{verdict.get('verdict', 'unknown')} {verdict.get('message', '')}").strip()
        self.repositories = tuple(printable(item["name"]) for item in self._head["repositories"])
        self.hosts = tuple(printable(host) for host in self._head.get("hosts", ()))
        self.steps = tuple(_steps(raws, self, self._names))
        self.crashes = tuple(step.number for step in self.steps if step.crash)
        """Numbers of the steps at which something died."""

    @property
    def source(self) -> str:
        """The text of the scenario, "" when the trace does not have it."""
        return str(self._head.get("source", ""))

    @property
    def seed(self) -> int:
        """Of the run."""
        seed = self._head.get("seed", 0)
        return seed if isinstance(seed, int) else 0

    @property
    def backend(self) -> str:
        """sim or local."""
        return printable(self._head.get("backend", ""))

    def named(self, text: str) -> str:
        """Text with the names of images instead of their ids."""
        for image, name in self._names.items():
            text = text.replace(image, name)
        return text

    def state_changes(self, number: int) -> tuple[str, ...]:
        """The repositories that a step of the trace has a new state of."""
        return self._raws[number].states

    def next_crash(self, number: int) -> int | None:
        """The first crash after a step."""
        return next((crash for crash in self.crashes if crash > number), None)

    def previous_crash(self, number: int) -> int | None:
        """The last crash before a step."""
        return next((crash for crash in reversed(self.crashes) if crash < number), None)

    def whole_steps(self, number: int) -> int:
        """How many steps of the scenario are over at a step of the trace."""
        event = self._raws[number].event
        step = event.get("step", 0)
        return max(0, step - ("moment" in event)) if isinstance(step, int) else 0

    def view(self, number: int, repository: str | None = None) -> RepositoryView:
        """A repository as it was after a step; equal each time. BadRequest when its state makes no sense."""
        name = repository or (self.repositories[0] if self.repositories else "")
        number = max(0, min(number, len(self.steps) - 1))
        at = number
        while at > 0 and name not in self._raws[at].states:
            at -= 1
        key = (at, name)
        if key not in self._views:
            if len(self._views) >= _REMEMBERED:
                self._views.pop(next(iter(self._views)))
            self._views[key] = self._read(at, name)
        return self._views[key]._replace(host=self.steps[number].host or self._first_host())

    def _first_host(self) -> str:
        return self.hosts[0] if self.hosts else "-"

    def _read(self, at: int, name: str) -> RepositoryView:
        empty = never_read(name, self._first_host())._replace(read_only=READ_ONLY)
        if name not in self._raws[at].states:
            return empty
        data = json.loads(self._raws[at].line)
        when = EPOCH + self.steps[at].when if self.steps else EPOCH
        return view_of_state(empty, data["state"][name], self._names, when)

    def changed(self, number: int) -> tuple[str, ...]:
        """What a step changed in the repositories, a sentence each."""
        if number <= 0:
            return ()
        found: list[str] = []
        for name in self.repositories:
            where = f"{name}: " if len(self.repositories) > 1 else ""
            found += [where + text for text in differences(self.view(number - 1, name), self.view(number, name))]
        return tuple(found)


def open_trace(path: str, scenario: str = "") -> Replay:
    """The replay of a recorded scenario in a trace, the first one unless ``scenario`` names another (its path or
    the end of that). NotFound, BadRequest saying which line is wrong, StorageError."""
    found = scenarios(path)
    if not found:
        raise BadRequest(
            f"{printable(path)} has no recorded run", "Record one: diskwright sim run --trace FILE scenarios/NAME.yaml"
        )
    name = next((name for name in found if name.endswith(scenario)), None)
    if name is None:
        raise NotFound(f"{printable(path)} has no scenario {scenario!r:.80}", f"It has {', '.join(found)}"[:400])
    raws, verdict = found[name]
    return Replay(path, name, raws, verdict)


def scenarios(path: str) -> dict[str, tuple[list[_Raw], Json]]:
    """The recorded scenarios of a trace by their paths, in its order; not those that were not recorded."""
    found: dict[str, tuple[list[_Raw], Json]] = {}
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if stream.tell() > MAX_BYTES or number > _MAX_STEPS:
                    raise BadRequest(f"{printable(path)} is too long for a replay", "Record fewer scenarios into it")
                _add(found, path, number, line)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path!r:.200}", "Give the right path") from None
    except OSError as error:
        raise from_os_error(error, f"read the trace {path!r:.200}") from error
    return found


def _add(found: dict[str, tuple[list[_Raw], Json]], path: str, number: int, line: bytes) -> None:
    try:
        event = json.loads(line)
        name = event["scenario"]
        state = event.pop("state", {})
        if not isinstance(name, str) or not isinstance(state, dict):
            raise TypeError("wrong fields")
        if "trace" in event:
            _check_head(event)
            found[name] = ([], {})
        if name not in found:
            return
        raws, verdict = found[name]
        if "verdict" in event and "step" not in event:
            verdict |= event
        elif "trouble" not in event:
            float(event.get("now", 0.0))
            raws.append(_Raw(event, line, tuple(state)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadRequest(f"{printable(path)}, line {number}: this is no trace ({error!s:.80})") from None


def _check_head(event: Json) -> None:
    if event["trace"] != 1:
        raise ValueError(f"version {event['trace']!r:.20} is not known here")
    if not all(isinstance(item["name"], str) for item in event["repositories"]):
        raise TypeError("repositories")


# -- states


def _names(data: Mapping[str, Any]) -> dict[str, str]:
    names = data.get("names")
    return {str(k): printable(v)[:80] for k, v in names.items()} if isinstance(names, dict) else {}


def view_of_state(empty: RepositoryView, state: Any, names: dict[str, str], when: float) -> RepositoryView:
    """The view that a recorded state is; ``empty`` says whose. BadRequest when it makes no sense."""
    try:
        if "error" in state:
            error = state["error"]
            texts = (str(error["code"]), printable(error["message"]), printable(error["next_step"]))
            return lost(empty._replace(scanned_at=when), *texts, when)
        dependants = {str(tag): int(count) for tag, count in state["dependants"].items()}
        base = empty._replace(
            identity=printable(state["identity"]),
            format=printable(state["format"]),
            place=printable(state["place"]),
            scanned_at=when,
            srm="-",
        )
        return with_report(base, report_from_json(state["report"]), Names(names, dependants))
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise BadRequest(f"a state in the trace makes no sense ({error!s:.80})", "Record it again") from None


def differences(before: RepositoryView, after: RepositoryView) -> list[str]:
    """What is different between two views, a sentence each."""
    if after.problem and not before.problem:
        return [f"it cannot be read: {after.problem}"]
    found = ["it can be read again"] if before.problem and not after.problem else []
    ids = {before.images.id(index) for index in range(len(before.images))}
    ids |= {after.images.id(index) for index in range(len(after.images))}
    for image in sorted(ids):
        found += _image_differences(before, after, image)
    old, new = _offered(before), _offered(after)
    found += [f"check offers {new[key].what} ({new[key].rule})" for key in new if key not in old][:_OFFERS]
    found += [f"check offers {old[key].what} no more" for key in old if key not in new][:_OFFERS]
    room = [compact(view.free_bytes) for view in (before, after)]
    return [*found, f"free {room[0]} to {room[1]}"] if before.known and room[0] != room[1] else found


def _offered(view: RepositoryView) -> dict[str, FixRow]:
    """Fixes about images: small leftovers of the repository come and go with every step."""
    return {row.key: row for row in view.fixes if row.target}


def _image_differences(before: RepositoryView, after: RepositoryView, image: str) -> list[str]:
    old, new = before.image(image), after.image(image)
    if new is None:
        return [f"{old.label}  gone for good"] if old is not None else []
    name = new.label
    if old is None:
        return [f"{name}  new: {code_of(new.state)}, {new.reason}"]
    found = []
    if old.state is not new.state:
        found.append(f"{name}  status {code_of(old.state)} to {code_of(new.state)}: {new.reason}")
    elif old.reason != new.reason:
        found.append(f"{name}  {new.reason}")
    if old.host != new.host and old.host:
        found.append(f"{name}  last worked on by {old.host}, now by {new.host}")
    if (old.stage_name, old.percent) != (new.stage_name, new.percent) and new.stages:
        share = f", {new.percent} %" if new.percent >= 0 else ""
        found.append(f"{name}  {new.verb} stage {new.stage}/{new.stages} {new.stage_name}{share}")
    if old.busy != new.busy:
        found.append(f"{name}  {f'in use: {new.busy}' if new.busy else 'not in use any more'}")
    return found


# -- steps


def _steps(raws: Sequence[_Raw], replay: Replay, names: dict[str, str]) -> list[ReplayStep]:
    steps: list[ReplayStep] = []
    held = 0
    for number, raw in enumerate(raws):
        held += raw.event.get("verb") == "expect"
        checks = f"{held} of {held} expectations hold so far" if held else ""
        steps.append(_step(number, raw, checks, names))
    if replay.verdict.startswith("violated"):
        steps[-1] = steps[-1]._replace(checks=replay.verdict)
    replay.steps = tuple(steps)
    return [_with_consequences(replay, step, raws) if step.crash else step for step in steps]


def _step(number: int, raw: _Raw, checks: str, names: dict[str, str]) -> ReplayStep:
    event = raw.event
    image = printable(event.get("image", ""))
    verb = printable(event.get("verb") or event.get("moment") or "begins")
    how = printable(event.get("how", ""))
    crash = verb in _CRASHES or how == "killed"
    line = event.get("line")
    return ReplayStep(
        number, line if isinstance(line, int) else 0, printable(event.get("host", "")), verb,
        _text(event, names, image), crash, "" if how == "done" else how, float(event.get("now", 0.0)), image,
        names.get(image, image[:8]), "", "", "", checks,
    )  # fmt: skip


def _text(event: Json, names: dict[str, str], image: str) -> str:
    name = names.get(image, image[:8])
    if "moment" in event:
        if event["moment"] == "recorded":
            return f"made a change to {name} durable"
        return f"saved its progress on {name}"
    if "verb" not in event:
        return printable(event.get("title", ""))
    texts = [printable(event.get("text", ""))]
    how = event.get("how")
    if how == "killed":
        where = f" before {printable(event['effect'])}" if "effect" in event else " with its host"
        texts.append(f"KILLED{where}")
    elif how == "frozen":
        texts.append("frozen")
    elif how == "failed":
        texts.append(f"{printable(event.get('error', ''))}: {printable(event.get('message', ''))}")
    elif event.get("rules"):
        texts.append(", ".join(map(printable, event["rules"])))
    elif event.get("told"):
        texts.append(printable(event["told"]))
    return "  ".join(part for part in texts if part)


def _with_consequences(replay: Replay, step: ReplayStep, raws: Sequence[_Raw]) -> ReplayStep:
    event = raws[step.number].event
    lost_parts = event.get("lost")
    if isinstance(lost_parts, list) and lost_parts:
        gone = lost_words(map(str, lost_parts), replay.named)
    elif step.verb == "power_cut":
        gone = "nothing: everything had been made durable"
    else:
        effect = f"; {printable(event['effect'])} did not happen any more" if "effect" in event else ""
        gone = f"nothing that was written: a process died, not the machine{effect}"
    saved, images = _saved(replay, step)
    return step._replace(lost=gone, saved=saved, resumed=_resumed(replay, step, images))


def lost_words(parts: Iterable[str], named: Callable[[str], str]) -> str:
    """What a power cut took, in few words: names instead of ids, and temporary files only counted."""
    texts = [printable(part) for part in parts]
    real = [part for part in texts if "/tmp/" not in part]
    words = [named(part) for part in real[:_LOST_TOLD]]
    if len(real) > _LOST_TOLD:
        words.append(f"{len(real) - _LOST_TOLD} more")
    if len(real) < len(texts):
        words.append(f"changes to temporary files ({len(texts) - len(real)})")
    return "; ".join(words)


def _saved(replay: Replay, step: ReplayStep) -> tuple[str, set[tuple[str, str]]]:
    """What is on disk of unfinished work, and of which images."""
    texts: list[str] = []
    images: set[tuple[str, str]] = set()
    for name in replay.repositories:
        for item in replay.view(step.number, name).operations:
            image = replay.view(step.number, name).image(item.image)
            if item.finished or image is None or image.state is not State.BROKEN:
                continue
            images.add((name, item.image))
            share = f", {item.percent} %" if item.percent >= 0 else ""
            texts.append(f"{item.name}: {item.verb} stage {item.stage}/{item.stages} {item.stage_name}{share}")
    return "; ".join(texts) or "no image is left unfinished", images


def _resumed(replay: Replay, step: ReplayStep, images: set[tuple[str, str]]) -> str:
    """The next step by which one of these images is not broken any more."""
    for later in replay.steps[step.number + 1 :]:
        for name, image in sorted(images):
            if name not in replay.state_changes(later.number):
                continue
            row = replay.view(later.number, name).image(image)
            if row is not None and row.state in SHOWN and row.state is not State.BROKEN:
                by = row.host or later.host
                return f"by {by}, step {later.number + 1}: {row.label} is {code_of(row.state)}"
    return "by nobody in this trace" if images else "nothing has to be resumed"
