"""Traces: recorded by the simulator, opened, walked through, branched; and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import BadRequest, NotFound, Refused
from tui.training import replay, tours
from tui.training.branch import branch
from tui.training.replay import Replay, open_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "tour.jsonl"
    tours.make_trace(str(path))
    return path


@pytest.fixture
def run(trace: Path) -> Replay:
    return open_trace(str(trace))


def snapshot(run: Replay, number: int) -> list[object]:
    found: list[object] = []
    for name in run.repositories:
        view = run.view(number, name)
        found += [tuple(view)[: view._fields.index("images")], view.fixes, view.operations, view.findings]
        found += [view.images[number] for number in range(len(view.images))]
    return found


def test_a_trace_has_head_steps_and_crashes(run: Replay):
    """Title, hosts and repositories are known; the killed copy and the power cut are crashes."""
    assert run.title == "A copy, a crash, and a power cut" and run.repositories == ("main", "backup")
    assert run.hosts == ("a", "b") and run.verdict == "passed" and run.backend == "sim"
    killed, cut = (run.steps[number] for number in run.crashes)
    assert killed.verb == "copy" and "KILLED before images.open_session.write" in killed.text
    assert cut.verb == "power_cut"


def test_the_story_of_a_crash(run: Replay):
    """What was lost, what was saved, who went on with it, and how many expectations hold."""
    killed, cut = (run.steps[number] for number in run.crashes)
    assert "did not happen any more" in killed.lost and killed.saved == "monday: copy stage 2/3 copy data"
    assert killed.resumed.startswith("by b, step ") and killed.resumed.endswith("monday is OPT")
    assert "tags/" in cut.lost and "temporary files" in cut.lost
    assert cut.checks == "2 of 2 expectations hold so far"


def test_each_step_shows_the_repository_of_then(run: Replay):
    """Before the copy the backup is empty; at the crash it has a broken image and a mend; later it is mended."""
    killed = run.crashes[0]
    at = run.view(killed, "backup")
    assert at.counts.broken == 1 and [row.rule for row in at.fixes] == ["B-COPY"]
    assert at.read_only == "REPLAY" and at.images[0].name == "monday" and at.host == "a"
    assert len(run.view(0, "backup").images) == 0
    assert run.view(len(run.steps) - 1, "backup").counts.optimized == 1


def test_steps_in_the_middle_of_a_verb_are_there(run: Replay):
    """What a process made durable before it died can be looked at, record by record."""
    copy = [step for step in run.steps if step.number < run.crashes[0] and run.whole_steps(step.number) == 3]
    assert {"recorded", "saved"} <= {step.verb for step in copy}
    assert any("copy stage 1/3 make volume" in text for step in copy for text in run.changed(step.number))


def test_going_back_shows_exactly_what_was_there(run: Replay):
    """Forward to the end and back: every view is equal to what it was before."""
    before = [snapshot(run, number) for number in range(len(run.steps))]
    for number in reversed(range(len(run.steps))):
        assert snapshot(run, number) == before[number]


def test_crashes_are_found_in_both_directions(run: Replay):
    """From any step the next and the previous crash are known, and the ends are ends."""
    first, last = run.crashes
    assert run.next_crash(0) == first and run.next_crash(first) == last and run.next_crash(last) is None
    assert run.previous_crash(last) == first and run.previous_crash(first) is None


def test_recording_leaves_the_run_as_it_is():
    """The same events, with the same effects, are told with and without a recorder."""
    from sim.scenario.language import parse
    from sim.scenario.play.play import play

    scenario = parse.parse("tour.yaml", tours.STORY)
    plain, recorded = play(scenario, "sim"), play(scenario, "sim", record=True)

    def told(verdict):
        events = [event for event in verdict.events if "verb" in event]
        return [{key: event[key] for key in event if key not in ("state", "names", "now")} for event in events]

    assert told(plain) == told(recorded) and len(told(plain)) == 11


def test_a_branch_goes_on_from_a_step(run: Replay):
    """From the crash on, another host mends the copy in a world of its own; the trace stays what it is."""
    world = branch(run, run.crashes[0])
    try:
        seen = world.view("backup", "b")
        assert seen.counts.broken == 1 and "live from where step 4 of the scenario ended" in world.origin
        assert world.crash("b", "backup", seen.fixes[0], 20).how == "killed"
        assert world.power_cut().how == "lost"
        again = world.view("backup", "b").fixes[0]
        assert world.run("b", "backup", again).how == "done"
        assert world.view("backup", "b").counts.optimized == 1 and len(world.log) == 3
    finally:
        world.close()
    assert run.view(run.crashes[0], "backup").counts.broken == 1


def test_a_branch_says_why_it_cannot_be(trace: Path, tmp_path: Path):
    """Runs on real files, and traces without their scenario, cannot be gone on with."""
    lines = trace.read_text(encoding="utf-8").splitlines()
    for key, value in (("backend", "local"), ("source", "")):
        head = json.loads(lines[0]) | {key: value}
        (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(head), *lines[1:]]), encoding="utf-8")
        with pytest.raises(Refused):
            branch(open_trace(str(tmp_path / "x.jsonl")), 3)


def test_several_scenarios_in_one_trace(trace: Path, tmp_path: Path):
    """Each is opened by the end of its path; another name is an error that tells what is there."""
    text = trace.read_text(encoding="utf-8")
    (tmp_path / "two.jsonl").write_text(text + text.replace("tour.yaml", "other.yaml"), encoding="utf-8")
    assert open_trace(str(tmp_path / "two.jsonl"), "other.yaml").scenario == "other.yaml"
    assert list(replay.scenarios(str(tmp_path / "two.jsonl"))) == ["tour.yaml", "other.yaml"]
    with pytest.raises(NotFound):
        open_trace(str(tmp_path / "two.jsonl"), "third.yaml")


@pytest.mark.parametrize(
    "text", ["", "{}", "nonsense", "[1]", '{"scenario": 7}', '{"scenario": "a", "trace": 9}', "[[["]
)
def test_what_is_no_trace_is_told(tmp_path: Path, text: str):
    """Whatever the file holds: a sentence, and the line where it goes wrong."""
    (tmp_path / "x").write_text(text, encoding="utf-8")
    with pytest.raises(BadRequest, match=r"no trace|no recorded run"):
        open_trace(str(tmp_path / "x"))


def test_a_missing_trace_is_named(tmp_path: Path):
    """The path is in the message."""
    with pytest.raises(NotFound, match=r"nothing\.jsonl"):
        open_trace(str(tmp_path / "nothing.jsonl"))


@pytest.mark.parametrize(
    ("old", "new"),
    [('"percent": -1', '"percent": 5000'), ('"status": "broken"', '"status": "fine"'), ('"report"', '"paper"')],
)
def test_a_state_that_makes_no_sense_is_told(trace: Path, tmp_path: Path, old: str, new: str):
    """A trace that somebody edited opens as far as it is right, or says what is wrong; never a traceback."""
    (tmp_path / "x").write_text(trace.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(BadRequest, match=r"makes no sense|no report"):
        edited = open_trace(str(tmp_path / "x"))
        for number in range(len(edited.steps)):
            edited.changed(number)


def test_text_of_a_trace_is_harmless(trace: Path, tmp_path: Path):
    """Names and titles of a stranger's trace reach no terminal as controls."""
    evil = "\\u001b]0;x\\u0007"
    text = trace.read_text(encoding="utf-8").replace("monday", f"mon{evil}day").replace("A copy", f"A{evil}")
    (tmp_path / "x").write_text(text, encoding="utf-8")
    opened = open_trace(str(tmp_path / "x"))
    told = [opened.title, opened.story]
    for step in opened.steps:
        told += [step.text, step.name, step.lost, step.saved, step.resumed, *opened.changed(step.number)]
    assert all(text.isprintable() for text in told)
