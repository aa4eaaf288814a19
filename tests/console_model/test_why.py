"""Why: the same sentences for the screen and the command, and evidence that can be opened."""

from __future__ import annotations

import pytest

from engine.data.model import FixCost, Status
from tests.console_model.conftest import Demo
from tests.console_model.kit import GIB, NOW, clean, fix, image, image_id, operation, taking, view
from tests.console_model.test_images import HOSTILE
from tui.text.statuses import State
from tui.view.facts import Fact, facts_of, open_fact
from tui.view.gather import gather
from tui.view.why import Explanation, explain, explain_fix


def told(view, number: int = 1, now: float = NOW) -> dict[str, list[str]]:
    found = explain(view, image_id(number), now)
    assert found is not None
    lines: dict[str, list[str]] = {}
    for line in found.lines:
        lines.setdefault(line.label, []).append(line.text)
    return lines


def test_a_broken_copy_has_all_six_parts():
    """State with what was saved by whom, why with the rule, impact, action, what is then, what would be best."""
    broken = image(1, Status.BROKEN, rule="B-COPY", reason="Copy has not finished at 41 %", operation=operation())
    lines = told(view([broken], [taking(1, GIB, rule="B-COPY")], dependants={image_id(1): 2}))
    assert lines["State"][0].startswith("copy, stage 2/3 copy data, 41 % (saved ")
    assert lines["State"][0].endswith("by host-b)")
    assert lines["Why"] == ["Copy has not finished at 41 %; rule B-COPY"]
    assert lines["Impact"] == ["It can neither be prepared nor be the source of a copy; 2 images need it"]
    assert lines["Action"][0].startswith("mend (B-COPY, fix 0000000000000001)")
    assert lines["After"] == [
        "OPTIMIZED (usable), takes 1.0G, time unknown (nothing like it was measured here), it can be stopped, and "
        "loses nothing"
    ]
    assert lines["Later"] == ["it would be OPTIMIZED if mend ran"]


def test_what_was_saved_long_ago_is_old():
    """A value that is older than a minute says so; what has ended well is not old."""
    broken = image(1, Status.BROKEN, operation=operation())
    assert ", OLD)" in told(view([broken]), now=NOW + 120)["State"][0]
    assert "OLD" not in told(view([image(1, operation=operation())]), now=NOW + 120)["State"][0]


def test_degraded_always_stands_with_usable():
    """An image that could be better is said to be usable in the first line."""
    head = explain(view([image(1, Status.DEGRADED)]), image_id(1), NOW)
    assert head is not None and head.head.endswith("DEGRADED - usable, can be made better")


def test_what_is_being_made_is_said_to_be():
    """A disk that is just being created is no case for anybody: RUNNING stands beside BROKEN, as in `images`."""
    seen = image(1, Status.BROKEN, operation=operation(percent=41), busy="create by host host-b")
    found = explain(view([seen]), image_id(1), NOW)
    assert found is not None
    assert found.head.endswith("BROKEN - RUNNING 41 %, cannot be used before that is done")
    used = explain(view([image(1, Status.DEGRADED, busy="optimize by host-b")]), image_id(1), NOW)
    assert used is not None and used.head.endswith("DEGRADED - RUNNING, usable, can be made better")
    for ended in (operation(stage=3, stages=3, percent=100), operation(percent=40, last_error="no")):
        used = explain(view([image(1, Status.DEGRADED, operation=ended, busy="prepare by host-b")]), image_id(1), NOW)
        assert used is not None and used.head.endswith("DEGRADED - RUNNING, usable, can be made better")


@pytest.mark.parametrize(
    ("seen", "action"),
    [
        (image(1), "None is needed"),
        (image(1, Status.BROKEN, busy="copy by host b"), "Wait: somebody works on it"),
        (image(1, Status.BROKEN, rule="B-BASE"), "Mend the image that it needs; nothing is to be done here"),
        (image(1, Status.UNKNOWN), "Make the storage readable, then look again"),
        (image(1, Status.BROKEN), "No fix is known here. Connect a repository that has it, or remove it"),
    ],
)
def test_there_is_always_an_action(seen, action: str):
    """Also where check offers nothing, the operator is told what can be done."""
    assert told(view([seen]))["Action"] == [action]


def test_what_a_fix_waits_for_is_told():
    """The condition stands in the action, and in what would make the image optimal."""
    lines = told(view([image(1, Status.BROKEN)], [fix(1, waits_for="image 7 to copy from")]))
    assert lines["Action"][0].endswith("it waits for image 7 to copy from")
    assert lines["Later"] == ["it would be OPTIMIZED if image 7 to copy from were there and mend ran"]


def test_further_fixes_come_later():
    """The most urgent fix is the action, the others are for later."""
    better = fix(2, "optimize", 1, FixCost(read_bytes=GIB, eta_s=540.0), rule="O-FLAT")
    lines = told(view([image(1, Status.BROKEN)], [better, fix(1)]))
    assert lines["Action"][0].startswith("mend") and "optimize (O-FLAT" in lines["Later"][0]
    assert "about 9m" in lines["Later"][0]


def test_what_is_lost_is_told():
    """Bytes that read as zeros are named."""
    assert told(view([image(1, Status.DEGRADED, lost=((0, 1 << 20),))]))["Lost"][0].startswith("1.0M are known")


def test_an_image_that_is_deleted_cannot_be_restored():
    """Once deletion has begun nobody is promised a way back."""
    row = image(1, Status.BROKEN, removed=True, rule="B-PURGING")
    assert told(view([row]))["Impact"][0].startswith("Its deletion has begun")


def test_a_fix_about_no_image_explains_itself():
    """A fix of the repository, or of hidden data, has its own state, reason and facts."""
    litter = clean(1, GIB)._replace(target="", images=(), rule="C-LITTER", facts=("temporary tmp/x",))
    found = explain_fix(view([], [litter]), view([], [litter]).fixes[0], NOW)
    assert found.state is State.NONE and "C-LITTER" in found.lines[1].text
    assert [fact.text for fact in found.facts] == ["temporary tmp/x"]


def test_a_fix_about_an_image_explains_the_image():
    """The explanation of a fix is that of its image, with this fix first."""
    seen = view([image(1, Status.BROKEN)], [fix(1), fix(2, "optimize", 1)])
    found = explain_fix(seen, seen.fixes[1], NOW)
    assert found.image == image_id(1) and [row.id for row in found.fixes] == [fix(2).id, fix(1).id]


def test_hostile_text_is_harmless():
    """Nothing from the disk reaches a line unfiltered, and nothing is swallowed."""
    seen = view([image(1, Status.BROKEN, reason=HOSTILE, facts=(HOSTILE,))], [fix(1, why=HOSTILE, facts=(HOSTILE,))])
    found = explain(seen, image_id(1), NOW)
    assert found is not None and all(line.isprintable() for line in found.text())
    assert any("[red]" in line for line in found.text())


def test_an_unknown_image_has_no_explanation():
    """What is not in the view is not explained."""
    assert explain(view(), image_id(1), NOW) is None


# -- evidence


def evidence(demo: Demo, name: str) -> tuple[Fact, ...]:
    return facts_of(demo.engine, "demo", demo.ids[name])


def kinds(demo: Demo, name: str) -> list[str]:
    return [fact.kind for fact in evidence(demo, name)]


def test_evidence_names_files_and_places(demo: Demo):
    """Record, progress, data and lease are named with their file on this host and the place in it."""
    found = evidence(demo, "web-db")
    assert [fact.kind for fact in found] == ["record", "progress", "volume", "lease"]
    record, progress, volume, lease = found
    assert record.path.startswith(f"{demo.root}/repository/tags/") and "operation.cursor" in record.place
    assert progress.place == "cursor 16777216" and "40 %" in progress.text and "host-b" in progress.text
    assert volume.path.endswith(".raw") and "40.0M long" in volume.place
    assert lease.text == "lease: nobody holds it"
    assert kinds(demo, "base-debian12") == ["record", "volume", "lease"]


def test_evidence_can_be_opened(demo: Demo):
    """Opening one shows what the file says: fields of the record, the progress line, the head of the data."""
    record, progress, volume, lease = evidence(demo, "web-db")
    text = "\n".join(open_fact(demo.engine, "demo", record))
    assert text.startswith("dw1 ") and '"verb": "copy"' in text
    assert '  "cursor": 16777216,' in open_fact(demo.engine, "demo", progress)
    lines = open_fact(demo.engine, "demo", volume)
    assert "present: yes" in lines and any(line.startswith("00000000  ") for line in lines)
    assert any("Nobody holds its lease" in line for line in open_fact(demo.engine, "demo", lease))


def test_damaged_data_is_shown_as_it_is(demo: Demo):
    """The bytes that are wrong can be looked at, as digits."""
    volume = evidence(demo, "crm-db-monday")[1]
    assert "magic of qcow2" in volume.text
    assert all(line.isprintable() for line in open_fact(demo.engine, "demo", volume))


def test_a_damaged_record_is_shown_as_bytes(demo: Demo):
    """A record that cannot be understood is told with the reason and shown as bytes."""
    record = evidence(demo, "wiki")[0]
    with open(record.path, "r+b") as stream:
        stream.write(b"\x1b[2Jnonsense")
    again = evidence(demo, "wiki")[0]
    assert "does not start as one" in again.text
    lines = open_fact(demo.engine, "demo", again)
    assert any("1b 5b 32 4a" in line for line in lines) and all(line.isprintable() for line in lines)


def test_the_whole_text_of_a_real_image(demo: Demo):
    """State, Why, Impact, Action, After, Later and numbered Facts, in this order."""
    found = explain(gather(demo.engine, "demo"), demo.ids["web-db"], NOW, evidence(demo, "web-db"))
    assert isinstance(found, Explanation)
    labels = [line[:7].strip() for line in found.text()[1:]]
    assert [label for label in labels if label] == ["State", "Why", "Impact", "Action", "After", "Later", "Facts"]
    assert found.text()[-1].strip().startswith("5 lease")


def test_facts_of_a_rule_name_the_file_that_they_are_from():
    """The volume that they speak of, else the record; so each fact can be opened."""
    volume = "b" * 32
    evidence = (
        Fact("record", "record: visible", "/srv/main/t/r", "generation 3", image_id(1)),
        Fact("volume", "data: damaged", "/srv/main/v/b", "1.0G long", f"{volume}.qcow2"),
    )
    for seen, path in ((f"volume {volume}.qcow2 is damaged", "/srv/main/v/b"), ("2 layers", "/srv/main/t/r")):
        found = explain(view([image(1, Status.BROKEN, facts=(seen,))]), image_id(1), NOW, evidence)
        assert found is not None
        assert (found.facts[0].text, found.facts[0].path) == (seen, path) and found.facts[0].kind != "rule"
