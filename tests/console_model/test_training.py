"""Tours and crash drills: what they need is there, and a drill stays inside the demo."""

from __future__ import annotations

import pytest

from engine.errors import Refused
from tests.console_model.conftest import Demo, Host
from tests.console_model.kit import fix, view
from tui.training.drill import crash_drill, is_demo
from tui.training.tours import TOURS
from tui.view.gather import gather


@pytest.mark.parametrize("name", sorted(TOURS))
def test_a_tour_takes_about_five_minutes(name: str):
    """Reading all captions takes three to seven minutes, each has words, and most say what must be seen."""
    tour = TOURS[name]
    assert 3 <= tour.minutes <= 7 and tour.needs in ("demo", "trace") and tour.hand_over
    assert all(len(step.caption) > 10 and step.pause_s > 0 for step in tour.steps)
    assert all(step.expect for step in tour.steps)


def test_a_tour_speaks_of_what_the_demo_has(demo: Demo):
    """Images that the repair tour looks for are in the demo, with the fixes that it tells of."""
    typed = [step.text for step in TOURS["repair"].steps if step.text]
    assert set(typed) <= demo.ids.keys()
    rows = {row.name: row for row in gather(demo.engine, "demo").fixes}
    assert rows["web-db"].rule == "B-COPY" and rows["mail-spool"].type == "mend" and rows["web-01"].type == "optimize"


def test_a_drill_kills_a_repair_and_explains_it(demo: Demo):
    """The repair dies at a random effect; the text says what was saved; the fix can be run to its end afterwards."""
    row = next(row for row in gather(demo.engine, "demo").fixes if row.name == "web-db")
    result = crash_drill(demo.engine, "demo", row, seed=3)
    assert result.killed and "SIGKILL" in result.lines[0] and f"effect number {result.effect} " in result.lines[0]
    assert any(line.startswith("web-db was BRK and is BRK") for line in result.lines)
    assert any(line.startswith("Saved: stage 2/3") for line in result.lines)
    after = gather(demo.engine, "demo")
    again = after.fix_row(result.key)
    assert again is not None
    demo.engine.run_fix_here("demo", again.fix())
    assert gather(demo.engine, "demo").counts.broken == 3


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_drills_of_small_repairs_end_well(demo: Demo, seed: int):
    """Also a repair with few effects is killed or done, and the demo is never worse than before."""
    row = next(row for row in gather(demo.engine, "demo").fixes if row.name == "build-cache")
    crash_drill(demo.engine, "demo", row, seed)
    assert gather(demo.engine, "demo").counts.broken == 4


def test_a_drill_is_refused_outside_of_a_demo(host: Host, repo: str):
    """A repository of the operator is never crashed, whatever it is called."""
    assert not is_demo(host.engine, repo) and not is_demo(host.engine, "nope")
    with pytest.raises(Refused, match="is no demo"):
        crash_drill(host.engine, repo, view([], [fix(1)]).fixes[0])


def test_a_drill_of_a_fix_that_cannot_run_is_refused(demo: Demo):
    """What waits for something cannot be crashed."""
    row = next(row for row in gather(demo.engine, "demo").fixes if row.name == "dr-standby")
    assert is_demo(demo.engine, "demo")
    with pytest.raises(Refused, match="waits for"):
        crash_drill(demo.engine, "demo", row)
