"""Torture and power cuts: short ones here, long ones by ``make torture`` and ``diskwright lab powercut``."""

from __future__ import annotations

import pytest

from engine.data.model import ImageReport, Status
from engine.errors import BadRequest
from sim.lab import Guest
from sim.trials.powercut import cut
from sim.trials.torture.model import Model, Possible
from sim.trials.torture.torture import torture


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_real_power_cuts_leave_what_the_simulation_allows(lonely: Guest, file_system: str):
    """The licence to trust the model: no outcome of a real kernel is outside of it, with the journal's rules."""
    report = cut(lonely, "micro", file_system, most_states=50, seed=5)
    assert report.states == 50 and report.wrong == ()


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
def test_every_verb_survives_real_power_cuts(lonely: Guest, file_system: str):
    """What was acknowledged is usable at once; fixes clean up the rest; contents are right."""
    report = cut(lonely, "verbs", file_system, most_states=5, seed=5)
    assert report.states == 5 and report.wrong == ()


def test_what_is_not_synced_is_found_missing(lonely: Guest):
    """The judge judges: an engine that syncs nothing is found out, and so is a model that lets nothing be lost."""
    assert cut(lonely, "verbs", "ext4", 30, careless=True).wrong
    assert cut(lonely, "micro", "ext4", 60, profile="process").wrong


def test_a_short_torture():
    """Hosts die at random moments, and everything acknowledged is there."""
    result = torture("nfs", rounds=2, seed=11)
    assert result.wrong == () and result.rounds == 2 and result.contents > 0


def test_there_is_no_other_torture():
    """A format that nobody knows is refused before anything is booted."""
    with pytest.raises(BadRequest):
        torture("zfs", 1, 1)


# -- the model of what must be there


def report(id: str, mutable: bool = True, removed: bool = False, status: Status = Status.OPTIMIZED) -> ImageReport:
    found = dict.fromkeys(ImageReport._fields)
    found.update(id=id, mutable=mutable, removed=removed, hidden=False, status=status, reason="")
    return ImageReport(**found)  # type: ignore[arg-type]


def settle(model: Model, contents: dict[str, bytes], **more: object) -> list[str]:
    reports = [report(id, **more) for id in contents]  # type: ignore[arg-type]
    return model.settle("main", reports, contents.__getitem__, lambda id: None)


def test_a_lost_image_is_noticed():
    """Gone, removed by nobody, or unusable: each is wrong."""
    for contents, more in (({}, {}), ({"x": b"a" * 512}, {"removed": True}), ({"x": b""}, {"status": Status.BROKEN})):
        model = Model()
        model.add("main", "x", True, b"a" * 512)
        assert len(settle(model, contents, **more)) == 1


def test_an_image_that_nobody_made_is_noticed():
    """Unless an interrupted operation may have made exactly that."""
    model = Model()
    assert "nothing has made it" in settle(model, {"x": b"a"})[0]
    model.possible.append(Possible("main", True, b"b", "", None))
    assert "a content that none of them gave it" in settle(model, {"x": b"a"})[0]
    model.possible.append(Possible("main", True, b"a", "", None))
    assert settle(model, {"x": b"a"}) == [] and model.images["main", "x"].data == b"a"


def test_an_interrupted_write_is_old_or_new_in_each_sector():
    """A mixture of sectors is legal, a mixture within one is not; then what was found is what is known."""
    old, new = b"o" * 1024, b"n" * 1024
    for found, right in ((old, True), (new, True), (old[:512] + new[:512], True), (old[:500] + new[500:], False)):
        model = Model()
        model.add("main", "x", True, old)
        model.images["main", "x"].maybe = new
        assert (settle(model, {"x": found}) == []) is right
        assert settle(model, {"x": found}) == []


def test_a_removed_image_stays_removed():
    """After an acknowledged removal; after an interrupted one either is right."""
    for unsure, right in ((False, False), (True, True)):
        model = Model()
        model.add("main", "x", True, b"a")
        model.images["main", "x"].removed, model.images["main", "x"].unsure = True, unsure
        assert (settle(model, {"x": b"a"}) == []) is right
