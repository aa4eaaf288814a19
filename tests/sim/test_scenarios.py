"""Every scenario is played on the simulator, and what can be is played on real files too: the outcome is the same."""

from __future__ import annotations

import glob
import json
import os
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from engine.errors import DiskwrightError, ToolMissing
from sim.scenario.backends.real.lab import LabBackend
from sim.scenario.backends.real.local import LocalBackend
from sim.scenario.backends.simulated import SimBackend
from sim.scenario.command import main
from sim.scenario.language import parse, schema
from sim.scenario.language.model import Scenario, Step
from sim.scenario.play.events import OF_HOSTS, OF_MACHINES, OF_THE_NETWORK
from sim.scenario.play.outside import MACHINES, OPERATORS
from sim.scenario.play.play import play
from sim.scenario.report.outcome import PASSED, SKIPPED, VIOLATED, WRONG, Verdict
from tests.sim.scenario_files import DIRECTORY, SCENARIOS

ON_SIM = sorted(name for name, scenario in SCENARIOS.items() if "sim" in scenario.backends)
ON_BOTH = sorted(name for name in ON_SIM if "local" in SCENARIOS[name].backends)
IN_LAB = sorted(SCENARIOS.keys() - set(ON_SIM))


def told(verdict: Verdict) -> str:
    return f"{verdict.path}:{verdict.line}: {verdict.message}"


@pytest.mark.parametrize("name", ON_SIM)
def test_every_scenario_passes_on_the_simulator(name: str):
    """No expectation is violated, and no frozen process is left behind."""
    verdict = play(SCENARIOS[name], "sim")
    assert verdict.result == PASSED, told(verdict)
    assert not [thread for thread in threading.enumerate() if thread.name == "scenario-frozen" and thread.is_alive()]


@pytest.mark.parametrize("name", IN_LAB)
def test_what_needs_real_machines_is_said_to_need_them(name: str):
    """A scenario of the lab is read and checked like all others; here it is neither passed nor failed."""
    verdict = play(SCENARIOS[name], "sim")
    assert verdict.result == SKIPPED and "needs lab" in verdict.message


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_BOTH)
def test_the_outcome_is_the_same_on_both_backends(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Real files, tools and kills lead to the same effects, interruptions, errors, fixes, statuses and contents as
    the simulator; and nothing is left of them, neither a file nor a process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    simulated, real = play(SCENARIOS[name], "sim", compare=True), play(SCENARIOS[name], "local", compare=True)
    assert simulated.result == real.result == PASSED, f"{told(simulated)}; {told(real)}"
    assert simulated.outcome is not None
    assert simulated.outcome["steps"] == real.outcome["steps"]  # type: ignore[index]
    assert simulated.outcome == real.outcome
    assert list(tmp_path.iterdir()) == []
    assert not processes_about(str(tmp_path))


@pytest.mark.parametrize(("name", "program", "package"), [
    ("copy/backed_up_while_it_runs", "qemu-storage-daemon", "qemu-system-common"),
    ("outside/machine_outlives_its_holder", "qemu-io", "qemu-utils"),
])  # fmt: skip
def test_what_a_scenario_needs_of_this_machine_is_named_before_it_begins(
    name: str, program: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also the program of a machine that can be spoken to, which has another package than the rest."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda wanted: None if wanted == program else wanted)
    with pytest.raises(ToolMissing, match=f"{program} is not installed. Install the package {package}"):
        play(SCENARIOS[name], "local")
    assert list(tmp_path.iterdir()) == []


def processes_about(text: str) -> list[bytes]:
    """Command lines that mention a directory."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            words = Path(path).read_bytes()
        except OSError:
            continue
        if text.encode() in words and path.split("/")[2] != str(os.getpid()):
            found.append(words)
    return found


@pytest.mark.parametrize("name", ["host/frozen_blocks_and_is_named", "power_cut/in_every_fix", "copy/target_full"])
def test_a_scenario_can_be_repeated(name: str):
    """Twice with one seed: the same events, effect for effect. Another order of listings changes no verdict."""
    first, second = play(SCENARIOS[name], "sim", 3), play(SCENARIOS[name], "sim", 3)
    assert first.events == second.events and len(first.events) == len(SCENARIOS[name].steps)
    assert play(SCENARIOS[name], "sim", 4).result == PASSED


def test_the_range_of_cases():
    """There are stories about each kind of mishap, five to learn from, and each has a story to tell."""
    topics = {name.partition("/")[0] for name in SCENARIOS}
    assert topics >= set("copy create damage fix host import lab merge power_cut remove snapshot storage".split())
    assert len([name for name in SCENARIOS if name.startswith("lessons/")]) == 5
    assert all(len(scenario.story) > 60 for scenario in SCENARIOS.values())
    assert len({scenario.title for scenario in SCENARIOS.values()}) == len(SCENARIOS) >= 60
    verbs = {step.verb for scenario in SCENARIOS.values() for step in scenario.steps}
    assert verbs == set(schema.VERBS), "a verb that no scenario shows"


def test_a_backend_has_the_parts_that_its_verbs_need():
    """Where the table of verbs says that an event can be played, the backend has what it is played on, and nowhere
    else."""
    backends = {"sim": SimBackend, "local": LocalBackend, "lab": LabBackend}
    for table, part in ((OF_MACHINES, "machines"), (OF_THE_NETWORK, "network"), (MACHINES, "virtual")):
        having = {name for name, backend in backends.items() if getattr(backend, part) is not None}
        for verb in table:
            assert set(schema.VERBS[verb].backends) == having, verb
    for verb in (*OF_HOSTS, *OPERATORS):
        assert set(schema.VERBS[verb].backends) <= backends.keys(), verb


# -- expectations are not idle


WRONG_VALUES: dict[str, Any] = {
    "status": lambda value: "unknown" if value != "unknown" else "broken",
    "status_in": lambda value: ("unknown",),
    "rule": lambda value: "O-LEAKS",
    "reason": lambda value: "no such words",
    "content": lambda value: {"pieces": [schema_piece()]},
    "size": lambda value: value + 1,
    "used_at_most": lambda value: 1,
    "used_at_least": lambda value: 1 << 40,
    "user_data": lambda value: {"something": "else"},
    "mutable": lambda value: not value,
    "last_error": lambda value: "no such words",
    "percent": lambda value: value + 1,
    "busy": lambda value: "no such words",
    "lost": lambda value: [(0, 1)],
    "images": lambda value: value + 1,
    "removed": lambda value: value + 1,
    "hidden": lambda value: value + 1,
    "fixes": lambda value: ("O-LEAKS",),
    "fixes_include": lambda value: ("O-LEAKS",),
    "fixes_exclude": lambda value: ("C-REMOVED", "mend"),
    "strategy": lambda value: "space" if value == "performance" else "performance",
    "reclaimable_at_least": lambda value: 1 << 40,
    "findings": lambda value: ("no such kind",),
    "finding": lambda value: "no such words",
    "nothing_left_over": lambda value: not value,
    "why": lambda value: "no such words",
    "waits_for": lambda value: "no such words",
    "risk": lambda value: "no such risk",
    "fits": lambda value: not value,
    "reclaims_at_least": lambda value: 1 << 40,
    "length": lambda value: value + 1,
    "remark": lambda value: "no such words",
}


def schema_piece() -> Any:
    from sim.scenario.language.patterns import Piece

    return Piece("no such pattern", 0, 1)


CHANGED = [
    "lessons/1_a_disk_and_its_snapshots", "copy/killed_goes_on", "copy/waits_for_its_source",
    "damage/without_a_replica", "merge/needs_more_room_than_there_is", "remove/destroys_nothing",
    "values/sizes_that_are_not_round", "lessons/5_two_hosts", "storage/has_strange_files", "values/user_data_limits",
    "remove/in_the_middle_of_a_family", "lessons/2_crash_and_mend", "snapshot/interrupted_at_each_step",
    "copy/incremental_without_snapshots", "lessons/4_when_the_power_fails", "copy/target_full_told_late",
    "fix/strategy_from_overlay_to_flat", "import/bitmaps_of_backups_are_left_out",
]  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_each_expectation_is_noticed_when_it_is_not_met(name: str):
    """With any field of any of its expectations changed to something else the scenario is violated, at that line."""
    scenario = SCENARIOS[name]
    changed = 0
    seen: set[str] = set()
    for number, step in enumerate(scenario.steps):
        for field in step.values if step.verb == "expect" else ():
            wrong = WRONG_VALUES[field](step.values[field]) if field in WRONG_VALUES else None
            if wrong is None or field in seen:
                continue
            seen.add(field)
            verdict = play(with_value(scenario, number, field, wrong), "sim")
            assert verdict.result == VIOLATED and verdict.line == step.lines[field], (field, told(verdict))
            assert "expected" in verdict.message
            changed += 1
    assert changed


def test_the_changed_scenarios_have_every_field():
    """Each field that an expectation can have is among those that were changed."""
    steps = [step for name in CHANGED for step in SCENARIOS[name].steps if step.verb == "expect"]
    about = {"image", "in", "deep", "fix", "file"}
    every = {field for fields in schema.EXPECTATIONS.values() for field in fields} - about
    shown = {field for step in steps for field in step.values}
    assert every == shown - about
    assert set(WRONG_VALUES) == every


def with_value(scenario: Scenario, number: int, field: str, value: Any) -> Scenario:
    step = scenario.steps[number]
    changed = step._replace(values={**step.values, field: value})
    return scenario._replace(steps=(*scenario.steps[:number], changed, *scenario.steps[number + 1 :]))


def without(scenario: Scenario, number: int, **fields: Any) -> Scenario:
    steps: list[Step] = list(scenario.steps)
    steps[number] = steps[number]._replace(**fields)
    return scenario._replace(steps=tuple(steps))


def test_a_step_must_succeed_or_fail_as_it_is_said():
    """An error that was not expected, one that did not come, and another one than was expected are violations."""
    scenario = SCENARIOS["remove/refused_while_in_use"]
    number = next(number for number, step in enumerate(scenario.steps) if step.error is not None)
    error = scenario.steps[number].error
    assert error is not None
    verdict = play(without(scenario, number, error=None), "sim")
    assert verdict.result == VIOLATED and "expected remove to succeed, found image-busy" in verdict.message
    verdict = play(without(scenario, number, error=error._replace(codes=("refused",))), "sim")
    assert verdict.result == VIOLATED and "expected remove to fail with refused" in verdict.message
    verdict = play(without(scenario, 0, error=error), "sim")
    assert verdict.result == VIOLATED and "found that it succeeded" in verdict.message


def test_an_engine_that_forgets_a_sync_violates_a_scenario(monkeypatch: pytest.MonkeyPatch):
    """The stories about power cuts notice when directories are not synced, and when files are not."""
    for call in ("SimFiles.sync_directory", "SimHandle.sync"):
        with monkeypatch.context() as patch:
            patch.setattr(f"sim.disk.files.{call}", lambda *arguments: None)
            results = {play(SCENARIOS[name], "sim").result for name in ON_SIM if name.startswith("power_cut/")}
        assert VIOLATED in results, call


def test_what_the_engine_lets_through_is_a_violation(monkeypatch: pytest.MonkeyPatch):
    """An exception that is none of the engine's own ends in a verdict with a line; its traceback is an event."""
    monkeypatch.setattr("engine.verbs.snapshot.snapshot", lambda *arguments: int("boom"))
    verdict = play(SCENARIOS["lessons/1_a_disk_and_its_snapshots"], "sim")
    assert verdict.result == VIOLATED and "ValueError: invalid literal" in verdict.message
    assert "Traceback" in verdict.events[-1]["trouble"]


# -- the command


GOOD, LAB = str(DIRECTORY / "lessons" / "2_crash_and_mend.yaml"), str(DIRECTORY / "lab" / "nfs" / "export_gone.yaml")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    good = Path(GOOD).read_text(encoding="utf-8")
    found = {"good": GOOD, "lab": LAB}
    for name, old, new in (
        ("violated", "status: broken, rule", "status: degraded, rule"),
        ("wrong", "create_snapshot", "create_snapshots"),
        ("unreached", "nth: 2", "nth: 99"),
    ):
        assert old in good
        path = tmp_path / f"{name}.yaml"
        path.write_text(good.replace(old, new), encoding="utf-8")
        found[name] = str(path)
    return found


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["good"], 0), (["good", "lab"], 0), (["lab"], 3), (["violated"], 1), (["wrong"], 2), (["unreached"], 2),
        (["violated", "wrong", "good"], 2), (["good", "violated", "lab"], 1),
    ],
)  # fmt: skip
def test_the_exit_code_tells_a_wrong_scenario_from_a_violated_one(
    files: dict[str, str], names: list[str], code: int, capsys: pytest.CaptureFixture[str]
):
    """0 passed, 1 violated, 2 wrong, 3 nothing was played."""
    assert main([files[name] for name in names]) == code
    out = capsys.readouterr().out
    words = {"good": "PASSED", "lab": "NOT PLAYED", "violated": "VIOLATED", "wrong": "WRONG", "unreached": "WRONG"}
    assert [line.split("  ")[0] for line in out.splitlines() if line.startswith(tuple(words.values()))] == [
        words[name] for name in names
    ]


def test_messages_have_file_line_expected_and_found(files: dict[str, str], capsys: pytest.CaptureFixture[str]):
    """What is wrong stands with its place."""
    main(["-q", files["violated"], files["wrong"], files["unreached"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"VIOLATED  {files['violated']}:16: expected status degraded, found 'broken: Copy has")
    assert lines[1] == f"WRONG  {files['wrong']}:12: there is no verb 'create_snapshots'; did you mean create_snapshot?"
    assert lines[2].startswith(
        f"WRONG  {files['unreached']}:13: expected crash before images.open_session.write number 99"
    )
    assert lines[3].startswith("3 scenarios: 1 violated, 2 wrong")


def test_the_trace_is_readable_and_v_numbers_the_effects(capsys: pytest.CaptureFixture[str]):
    """One line per step: its number, the line in the file, the host, what it did, how it ended; no id where there is
    a name."""
    main([GOOD, "-v"])
    lines = capsys.readouterr().out.splitlines()
    step = next(line for line in lines if " copy monday" in line)
    assert step.split()[:3] == ["4", ":13", "a"] and "=> killed before effect" in step
    assert step.endswith("images.open_session.write")
    assert any(line.split() == ["1", "files.make_directory"] for line in lines)


def test_results_for_machines(tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]):
    """JUnit XML has a case per file with the right kind of failure; the trace has each event and verdict as a line;
    --json is one document on standard output."""
    xml, trace = tmp_path / "out.xml", tmp_path / "out.jsonl"
    paths = [files[name] for name in ("good", "violated", "wrong", "lab")]
    assert main([*paths, "--junit", str(xml), "--trace", str(trace), "--json"]) == 2
    data = json.loads(capsys.readouterr().out)
    assert [one["result"] for one in data["scenarios"]] == [PASSED, VIOLATED, WRONG, SKIPPED]
    assert (data["passed"], data["violated"]) == (1, 1)
    suite = ElementTree.parse(xml).getroot()
    assert suite.attrib | {"time": ""} == {
        "name": "diskwright scenarios", "tests": "4", "failures": "1", "errors": "1", "skipped": "1", "time": "",
    }  # fmt: skip
    assert [[child.tag for child in case] for case in suite] == [
        ["system-out"], ["failure", "system-out"], ["error", "system-out"], ["skipped", "system-out"],
    ]  # fmt: skip
    events = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    assert [event["verdict"] for event in events if "verdict" in event] == [PASSED, VIOLATED, WRONG, SKIPPED]
    killed = next(event for event in events if event.get("how") == "killed")
    assert killed["effect"] == "images.open_session.write" and killed["number"] > 10


def test_a_directory_is_played_whole(tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]):
    """All *.yaml below it, in order; an empty one is an error and not a success."""
    (tmp_path / "notes.txt").write_text("no scenario")
    assert main(["-q", str(tmp_path)]) == 2
    names = [line.split("/")[-1].split(".")[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert names == ["unreached", "violated", "wrong"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DiskwrightError, match="no scenario"):
        main([str(tmp_path / "empty")])
    with pytest.raises(DiskwrightError, match="--backnd"):
        main(["--backnd", "sim", GOOD])


# -- the description


def test_the_description_is_the_programs_own():
    """The reference in the README is what the tables say now."""
    text = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    assert text.partition("<!-- reference -->\n")[2] == schema.reference(), (
        "make it again: python -m sim.scenario.language.schema, below the mark in scenarios/README.md"
    )


def test_the_example_in_the_description_passes():
    """What a stranger copies from the README can be played."""
    text = (DIRECTORY / "README.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    verdict = play(parse.parse("README.md", example), "sim")
    assert verdict.result == PASSED, told(verdict)


def test_a_crash_at_each_effect_comes_at_all_of_them():
    """The scenario is played once for each effect of the step."""
    scenario = SCENARIOS["host/killed_at_each_step_of_prepare"]
    told_of = [event for event in played_events(scenario) if event["verb"] == "prepare" and event["how"] == "killed"]
    assert [event["number"] for event in told_of] == list(range(1, len(told_of) + 1))
    assert len(told_of) > 10


def played_events(scenario: Scenario) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    assert play(scenario, "sim", tell=events.append).result == PASSED
    return events
