"""Exploring: every effect of a verb or fix, every legal state of the storage after it, and every recovery."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import BadRequest
from sim.explore.cases.catalog import BEFORE_USES, CASES, ENTERING, LONG, ON_LVM
from sim.explore.command import main
from sim.explore.search import context, counted
from sim.explore.search.canonical import canonical_key
from sim.explore.search.explorer import KILLED, Explorer, Node, PathStep, Violation
from sim.explore.search.violation import to_text
from sim.explore.share import shares
from tests.sim.sampled_kit import sampled

QUICK = ["create-empty", "remove", "restore", "user-data", "clean-removed", "clean-lost", "clean-unnamed"]


def explored(capsys, *arguments: str) -> tuple[int, str]:
    code = main([*arguments])
    return code, capsys.readouterr().out


def test_short_verbs_and_cleans_survive_everything_until_no_new_state_appears(capsys):
    """Recovery is crashed too; each exploration closes and none finds a violation."""
    names = [line.split()[0] for line in explored(capsys, "--list")[1].splitlines() if line.strip()]
    cases = [part for name in QUICK if name in names for part in ("--case", name)]
    assert len(cases) >= 8
    code, text = explored(capsys, "--profile", "posix", "--jobs", "1", *cases)
    assert code == 0, text
    assert "0 violations" in text and "bound reached" not in text


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *LONG])
def test_every_verb_and_every_fix_survives_power_cuts_from_its_beginning_to_its_end(case):
    """Some of its effects and of the states that they leave. All of them, and of recovery: ``make explore LONG=1``, and
    for those in ``LONG`` ``diskwright sim explore --case`` with their names."""
    tally = sampled((CASES | LONG)[case])
    assert tally.states and not tally.violations


@pytest.mark.slow
@pytest.mark.parametrize("case", BEFORE_USES)
def test_repositories_from_before_there_were_uses_survive_power_cuts_from_beginning_to_end(case):
    """There all records are read, as they were."""
    assert not sampled(BEFORE_USES[case]).violations


@pytest.mark.slow
@pytest.mark.parametrize("case", ENTERING)
def test_giving_uses_to_a_repository_survives_power_cuts_from_beginning_to_end(case):
    """Whatever is left works as before, or has all entered; and the fix goes on, wherever that is crashed too."""
    assert not sampled(ENTERING[case], recover=True).violations


@pytest.mark.parametrize("case", LONG)
def test_a_violation_of_a_long_fix_can_be_replayed(case, capsys):
    """It is printed as all others; the explorer itself replays each that it finds."""
    found = Violation(case, "posix", (PathStep("operation", 9, KILLED),), ())
    assert main(["--replay", to_text(found)]) == 0 and "nothing is wrong" in capsys.readouterr().out


def test_a_sample_goes_from_the_first_effect_to_the_end(monkeypatch):
    """With few of those between, and of each power cut what loses nothing, what loses all, and few others."""
    explorer = Explorer(CASES["create-on-base"], "posix", sample=6, recover=False)
    added: list[Node] = []
    monkeypatch.setattr(explorer, "_add", lambda node, rough=b"": added.append(node))
    effects = explorer.run().effects
    steps = [node.path[0] for node in added]
    crashed = {step.effect for step in steps}
    assert min(crashed) == 1 and max(crashed) == effects + 1 and 4 <= len(crashed) <= 7 < effects
    assert all(sum(step.effect == effect for step in steps) <= 6 for effect in crashed)
    assert all(
        any(step.effect == effect and step.state == KILLED for step in steps) for effect in crashed - {effects + 1}
    )


def test_a_mutant_that_forgets_a_sync_is_found(capsys, monkeypatch):
    """Without the sync of the record's file a power cut leaves an empty record, and the explorer says where."""
    from sim.disk.files import SimHandle

    monkeypatch.setattr(SimHandle, "sync", lambda handle: None)
    code, text = explored(capsys, "--profile", "posix", "--shallow", "--jobs", "1", "--case", "user-data")
    assert code == 1
    assert "VIOLATION" in text and "--replay" in text
    case = text.split("--replay '")[1].split("'")[0]
    assert json.loads(case)["case"] == "user-data"


def test_the_document_says_how_many_cases_there_are():
    """Whoever adds one tells there."""
    document = Path(__file__).parents[2] / "docs" / "simulation.md"
    assert f"There are {len(CASES)} cases on files and {len(ON_LVM)} on volume groups" in document.read_text()


@pytest.mark.parametrize("wrong", [
    ["--images", "20"], ["--seed", "3"], ["--cuts", "2"], ["--on", "nfs"], ["--verbs", "1"], ["--each-effect"],
    ["--damage", "1", "--cuts", "2", "--generated"], ["--damage", "1", "--races", "1"],
    ["--damage", "1", "--images", "9", "--generated"], ["--damage", "1", "--json"], ["--races", "1", "--generated"],
    ["--races", "1", "--case", "copy"], ["--races", "1", "--within", "9"],
    ["--generated", "--profile", "nfs"], ["--replay", "{", "--shallow"],
])  # fmt: skip
def test_an_option_that_would_say_nothing_is_wrong_usage(wrong: list[str]):
    """It was passed over without a word, and something else was explored than was asked for."""
    with pytest.raises(BadRequest, match="says"):
        main(wrong)


def _visited(case: str) -> list[Node]:
    explorer, found = Explorer(CASES[case], "posix"), list[Node]()
    visit = explorer._visit

    def noted(node: Node) -> None:
        found.append(node)
        visit(node)

    explorer._visit = noted  # type: ignore[method-assign]
    tally = explorer.run()
    assert tally.closed and not tally.violations
    return found


def _classes(nodes: list[Node]) -> set[bytes]:
    return {
        canonical_key(node.storage, exact=False) + b"".join(sorted(model.key() for model in node.models))
        for node in nodes
    }


def _forget_records() -> None:
    counted._records.clear()
    context._forget()


@pytest.mark.parametrize("case", ["clean-scrap", "create-on-base"])
def test_what_is_taken_for_alike_leads_to_nothing_else(case: str, monkeypatch: pytest.MonkeyPatch):
    """Explored with all that records have seen of their volumes there is more to visit, and no more that is told
    apart: what comes of states that differ in that alone differs in that alone."""
    few = _classes(_visited(case))
    with monkeypatch.context() as patched:
        patched.setattr(counted, "_take_stamp", lambda data, epoch, volumes: None)
        _forget_records()
        many = _visited(case)
    _forget_records()
    assert _classes(many) == few and len(many) >= len(few)


def test_what_some_cases_do_not_need_of_the_time_others_have(monkeypatch: pytest.MonkeyPatch):
    """Each may take three times its even share of what is left; the last ones have all of it, and none has nothing."""
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    parts = shares(60, 40, 2)
    assert parts[0].seconds == 9
    now[0] += 30
    assert parts[20].seconds == 9 and parts[38].seconds == 30
    now[0] += 30
    assert 0 < parts[39].seconds < 1
