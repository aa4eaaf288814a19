"""Generated cases: every order of the offered fixes, each killed once, comes to the same clean end."""

from __future__ import annotations

import pytest

from engine.data.records import Record
from engine.fixes import merge
from engine.triage.offers import merging
from engine.triage.view import Graph
from sim.explore.cases.generated import STARTS, from_text, generated
from sim.explore.command import main
from sim.explore.search.convergence import Convergence, Wrong
from tests.sim.mutants_kit import deleted, sites

TWO_REMOVED = "3 light layers, remove s1, remove s2"


def wrong(case: str, **bounds: int) -> list[Wrong]:
    return [found for found in Convergence(**bounds).walk(from_text(case)) if found is not None]


def test_every_case_of_one_verb_converges(capsys: pytest.CaptureFixture[str]):
    """From each start, each verb; each fix is killed before a few of its effects."""
    assert main(["--generated", "--verbs", "1", "--jobs", "1"]) == 0
    text = capsys.readouterr().out
    assert "bound reached" not in text and "0 violations" in text


def test_two_merges_of_one_chain_converge_wherever_one_is_killed():
    """Before each effect."""
    assert not wrong(TWO_REMOVED)


@pytest.mark.parametrize("on", ["", " on nfs"])
def test_a_merge_converges_where_the_power_fails_too(on: str):
    """In some of the states that may be left before each effect."""
    assert not wrong(f"2 heavy layers{on}, remove s1", cuts=3, most_effects=12)


MERGED, MERGED_ON_LVM = "2 heavy layers, remove s1", "2 heavy layers on lvm, remove s1"


@pytest.mark.parametrize(("case", "name"), [
    (MERGED, "formats.files.volumes.Volumes._sync_if_there:self._files.sync_directory"),
    (MERGED, "formats.files.tree.Tree.write_temporary:handle.sync"),
    ("2 light layers, create s1", "formats.files.uses.Uses.enter:self._tree.files.sync_directory"),
    pytest.param(
        MERGED_ON_LVM, "formats.lvm.volumes.volumes.Volumes.remove:self._group.sync", marks=pytest.mark.slow
    ),
])  # fmt: skip
def test_a_deleted_sync_is_found_where_the_power_fails(case: str, name: str):
    """In a verb, or in a fix."""
    site = next(site for site in sites() if site.name == name)
    with deleted(site):
        found = next(found for found in Convergence(most_effects=12, cuts=6).walk(from_text(case)) if found is not None)
    assert "by a power cut before effect" in str(found.path[-1])


def test_what_is_generated_has_every_verb_and_can_be_named():
    """A case is found again by its name."""
    cases = list(generated(STARTS[0], 1))
    words = {verb.word for case in cases for verb in case.verbs}
    assert words == {"write", "snapshot", "create", "copy", "remove", "strategy"}
    assert any(verb.base for case in cases for verb in case.verbs)
    for case in cases:
        assert from_text(str(case)).driver.model.key() == case.driver.model.key()
    assert "restore s1" in [str(case.verbs[-1]) for case in generated(STARTS[2], 2) if case.verbs]


def test_a_case_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]):
    """Which part of the name it is."""
    for name, told in (("9 layers", "is no start"), ("3 light layers, remove s7", "'remove s7' cannot be done")):
        with pytest.raises(Exception, match=told):
            main(["--generated", "--case", name])
    with pytest.raises(Exception, match="nothing is damaged on nfs"):
        main(["--generated", "--damage", "1", "--case", "1 light layers on nfs, remove web"])


def test_a_second_merge_beside_an_unfinished_one_is_reported(monkeypatch: pytest.MonkeyPatch):
    """As it once was: neither the rule nor the executor looked whether the two are in another merge."""

    def free(graph: Graph, below: Record, above: Record) -> bool:
        return above.operation is None or above.merges(below.id)

    monkeypatch.setattr(merging, "_free_to_merge", free)
    monkeypatch.setattr(merge, "_in_no_other_merge", lambda lower, above: None)
    monkeypatch.setattr(merge, "_void_reservation", lambda repository, lower: None)
    found = wrong(TWO_REMOVED, most_effects=12)
    assert any("could be used and cannot be used now" in problem for one in found for problem in one.problems)


def test_a_reservation_that_is_not_made_void_is_reported(monkeypatch: pytest.MonkeyPatch):
    """A merge that was killed before it began leaves the lower one to an image that is gone after the next merge."""
    monkeypatch.setattr(merge, "_void_reservation", lambda repository, lower: None)
    found = wrong(TWO_REMOVED, most_effects=40)
    assert any("could be used and cannot be used now" in problem for one in found for problem in one.problems)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["nfs", "lvm"])
def test_the_beginning_of_the_cases_on_other_storage_converges(on: str, capsys: pytest.CaptureFixture[str]):
    """As many as there is time for, with power cuts."""
    words = ["--generated", "--on", on, "--verbs", "1", "--cuts", "3", "--seconds", "1", "--jobs", "2"]
    assert main(words) == 0, capsys.readouterr().out


@pytest.mark.slow
def test_the_beginning_of_all_cases_of_two_verbs_converges(capsys: pytest.CaptureFixture[str]):
    """As many as there is time for."""
    assert main(["--generated", "--verbs", "2", "--seconds", "12", "--jobs", "2"]) == 0, capsys.readouterr().out
