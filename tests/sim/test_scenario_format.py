"""Scenarios that are wrong: each is told with file, line, what was expected and found, and never by a traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.scenario.command import main
from sim.scenario.language import parse
from sim.scenario.language.source import MAX_BYTES, ScenarioError
from sim.scenario.language.values import MAX_DISK_BYTES
from tests.sim.scenario_files import FILES

HEAD = """\
title: A story
backends: [sim, local]
repositories: [main, backup]
hosts: [a, b]
steps:
  - create_disk: {in: main, size: 1MiB, as: web}
"""
"""Six lines; a test adds the rest."""

SIM = HEAD.replace("[sim, local]", "[sim]")

WRONG_STEPS = [
    ("create_dsk: {in: main}", 7, "there is no verb 'create_dsk'; did you mean create_disk?"),
    ("create_disk: {in: main, sise: 1MiB}", 7, "create_disk has no field 'sise'; did you mean size?"),
    ("create_disk: {in: main}", 7, "create_disk lacks size"),
    ("create_disk: {in: mian, size: 1MiB}", 7, "there is no repository mian; did you mean main?"),
    ("create_disk: {in: main, size: 1MB}", 7, "expected a size such as 4096, 64KiB or 3MiB, found '1MB'"),
    ("create_disk: {in: main, size: [1]}", 7, "expected a size, found a list"),
    ("create_disk: {in: main, size: 1MiB, as: web}", 7, "the name web is taken"),
    ("create_disk: {in: main, size: 1MiB, as: 'we b'}", 7, "expected a name of letters, digits, - and _, found 'we b'"),
    ("create_disk: {in: main, size: 1MiB, strategy: fast}", 7, "expected one of space, performance, found 'fast'"),
    ("create_disk: {in: main, size: 900TiB}", 7, "more than the"),
    (
        "create_disk:\n      in: main\n      size: 1MiB\n      bases: web",
        10,
        "has no field 'bases'; did you mean base?",
    ),
    ("create_snapshot: {of: wbe}", 7, "no image is called wbe here; did you mean web?"),
    ("create_snapshot_group: {disks: {wbe: friday}}", 7, "no image is called wbe here; did you mean web?"),
    ("create_snapshot_group: {disks: {web: web}}", 7, "the name web is taken"),
    ("create_snapshot_group: {disks: [web]}", 7, "expected disks with names for their snapshots, such as {web:"),
    ("create_snapshot_group: {disks: {}}", 7, "no disk is named"),
    ("remove: {image: web, in: nowhere}", 7, "there is no repository nowhere"),
    ("remove: [web]", 7, "expected the fields of remove: image, in, found a list"),
    ("remove: web\n    host: c", 8, "there is no host c; known: a, b"),
    ("remove: web\n    crash: {before: files.lnk}", 8, "there is no effect 'files.lnk'; did you mean files.link?"),
    ("remove: web\n    crash: {nth: 2}", 8, "crash needs one of before (and nth), effect, percent"),
    ("remove: web\n    crash: {effect: 1, percent: 3}", 8, "crash needs one of"),
    ("remove: web\n    crash: {effect: 0}", 8, "count from 1"),
    ("remove: web\n    crash: {percent: 101}", 8, "percent goes to 100"),
    ("remove: web\n    freeze: {effect: 1}", 8, "freeze lacks as"),
    ("remove: web\n    crash: {effect: 1}\n    stop: {effect: 1}", 9, "only one of crash, freeze and stop"),
    ("teardown: web\n    crash: {effect: 1}", 8, "teardown cannot be interrupted by crash"),
    ("remove: web\n    error: stael-fix", 8, "there is no error 'stael-fix'; did you mean stale-fix?"),
    ("remove: web\n    error: {}", 8, "error needs a code, or says"),
    ("remove: web\n    may_fail: [no-spaces]", 8, "did you mean no-space?"),
    ("remove: web\n  - restore: web\n    remove: web", 8, "expected one verb in a step, found restore, remove"),
    ("host: a", 7, "expected one verb in a step, found none"),
    ("thaw: job", 7, "no frozen process is called job here; none was given"),
    ("fix: {in: main}", 7, "fix needs one of rule, type and all, found nothing"),
    ("fix: {in: main, rule: B-COPPY}", 7, "found 'B-COPPY'; did you mean B-COPY?"),
    ("fix: {in: main, all: true, change: {rule: x}}", 7, "change needs from"),
    ("remove: web\n    stop: {each: true}", 8, "stop has no field 'each'"),
    ("expect: {any_of: [{image: web, status: broken}]}", 7, "any_of needs two expectations or more"),
    ("kill_machine: vm", 7, "no machine is called vm here"),
    ("fix: {in: main, all: true, from: list}", 7, "no kept list of fixes is called list"),
    ("fix: {in: main, all: yes}", 7, "expected true or false, found 'yes'"),
    ("write: {disk: web, pattern: x, length: 0}", 7, "at least one byte"),
    ("write: {disk: web, pattern: x, length: 8KiB, every: 4KiB, times: 2}", 7, "every must not be less"),
    ("write: {disk: web, pattern: x, length: 1GiB}", 7, "a piece may write up to"),
    ("expect: {image: web, statsu: broken}", 7, "expect has no field 'statsu'; did you mean status?"),
    ("expect: {image: web}", 7, "this expects nothing"),
    ("expect: {status: broken}", 7, "expected what it is about: fix, file, image, in"),
    ("expect: {image: web, status: fine}", 7, "expected one of optimized"),
    ("expect: {image: web, content: {saved: x}}", 7, "no saved content is called x"),
    ("expect: {image: web, content: {as: web, saved: x}}", 7, "expected a list of pieces"),
    ("expect: {image: web, lost: [[1]]}", 7, "expected [start, length], found a list"),
    ("damage: {image: web}", 7, "damage does one thing, found nothing"),
    ("damage: {image: web, delete: data, text: x}", 7, "damage does one thing"),
    ("add_file: {in: main, path: ../x, text: x}", 7, "is not a path inside the repository"),
    ("set_user_data: {image: web}", 7, "one of data, bytes, nested"),
    ("power_cut: all", 7, "power_cut cannot be played on local: this scenario needs sim, lab"),
    ("server: {of: main, does: restart}", 7, "server cannot be played on sim: this scenario needs lab"),
    ("remove: web\n    faults: [{error: EIO}]", 8, "faults cannot be played on local"),
    ("remove: &x web", 7, "anchors and aliases"),
    ("remove: !!python/name:os.system web", 7, "tags (such as !!str) are not allowed"),
    ("remove: web\n    host: a\n    host: b", 9, "'host' stands here twice; first at line 8"),
    ("remove: {web", 8, "this is not YAML"),
    ("? [a]\n    : web", 7, "a key is a word, not a list"),
]


@pytest.mark.parametrize(("step", "line", "words"), WRONG_STEPS)
def test_a_wrong_step_is_told_with_its_line(step: str, line: int, words: str):
    """The message says where, what was expected or known, and what was found."""
    with pytest.raises(ScenarioError) as caught:
        parse.parse("story.yaml", f"{HEAD}  - {step}\n")
    assert caught.value.line == line, caught.value
    assert words in caught.value.message
    assert str(caught.value).startswith(f"story.yaml:{line}: ")


@pytest.mark.parametrize(("step", "words"), [
    ("remove: web\n    faults: [{error: EEIO}]", "did you mean EIO?"),
    ("remove: web\n    faults: [{error: EIO, call: files.lonk}]", "no call 'files.lonk'; did you mean files.link?"),
    ("remove: web\n    faults: [{error: EIO, part: data}]", "part needs of"),
    ("power_cut: some", "expected all, none or a number, found 'some'"),
    ("space_left: much", "expected a size"),
    ("jump_clock: {name: a, seconds: soon}", "expected a number of seconds, found 'soon'"),
    ("wait: -1", "time does not pass backwards"),
    ("remove: web\n    within: 5", "remove is not tried again; within is for fix, take_srm"),
    ("fix: {in: main, all: true}\n    within: 0", "a number of seconds above 0, found 0"),
    ("fix: {in: main, all: true}\n    within: 5\n    stop: {effect: 1}", "within cannot stand beside crash"),
    ("freeze_host: c", "there is no host c"),
    ("thaw_host: b", "the host b is not frozen here"),
    ("freeze_host: b\n  - freeze_host: b", "the host b is frozen already"),
    ("freeze_host: b\n  - remove: web\n    host: b", "the host b is frozen here: thaw_host comes first"),
    (
        "fix: {in: main, all: true}\n    freeze: {effect: 1, as: j}\n    host: b\n  - freeze_host: b\n  - thaw: j",
        "the host b is frozen here",
    ),
])  # fmt: skip
def test_a_wrong_step_of_the_simulator_is_told(step: str, words: str):
    """The same for what only the simulator can do."""
    with pytest.raises(ScenarioError) as caught:
        parse.parse("story.yaml", f"{SIM}  - {step}\n")
    assert words in caught.value.message


@pytest.mark.parametrize(("text", "line", "words"), [
    ("", 1, "the file is empty"),
    ("- a\n- b\n", 1, "a scenario is a mapping (title, steps, …); this is a list"),
    ("title: x\n", 1, "the scenario lacks backends"),
    (HEAD.replace("title", "tilte"), 1, "a scenario has no 'tilte'; did you mean title?"),
    (HEAD.replace("[sim, local]", "[sim, locla]"), 2, "did you mean local?"),
    (HEAD.replace("[sim, local]", "[]"), 2, "no backend is named"),
    (HEAD.replace("[main, backup]", "[main, main]"), 3, "the repository main is named twice"),
    (HEAD.replace("[main, backup]", "{main: {format: nfs-1.0}}"), 3, "the format nfs-1.0 needs backends: [sim, lab]"),
    (HEAD.replace("[main, backup]", "{main: {directory: a/b}}"), 3, "cannot be the name of a directory"),
    (HEAD.replace("[main, backup]", "{main: {shared: true}}"), 3, "shared is for lvm-1.0"),
    (
        SIM.replace("[main, backup]", "{main: {format: lvm-1.0, shared: true}}").replace("[a, b]", f"{[*'abcdefghi']}"),
        4,
        "at most 8 hosts share",
    ),
    (HEAD.replace("[a, b]", "[a, a]"), 4, "at least one host, each name once"),
    (HEAD.partition("  -")[0] + "  []\n", 6, "expected 1 to 500 steps, found 0"),
    (HEAD + "---\ntitle: y\n", 7, "a second document begins"),
    ("title: x\n\tbackends: [sim]\n", 2, "this is not YAML"),
    ("title: x\nstory: \x01\n", 2, "this is not YAML"),
    ("[" * 60 + "]" * 60, 1, "nested deeper than"),
    ("a: &a [*a]\n", 1, "anchors and aliases"),
])  # fmt: skip
def test_a_wrong_file_is_told_with_its_line(text: str, line: int, words: str):
    """What is wrong with the whole of it has a line too."""
    with pytest.raises(ScenarioError) as caught:
        parse.parse("story.yaml", text)
    assert (caught.value.line, words in caught.value.message) == (line, True), caught.value


@pytest.mark.parametrize(("raw", "words"), [
    (b"title: \xff\n", "story.yaml:1: this is not UTF-8 text"),
    (b"title: x\n# \xc3\n", "story.yaml:2: this is not UTF-8 text"),
    (b" " * (MAX_BYTES + 1), "story.yaml:1: a scenario has up to"),
])  # fmt: skip
def test_a_file_that_is_no_text_is_told(
    raw: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Bytes that are no UTF-8, and more of them than a story has."""
    monkeypatch.chdir(tmp_path)
    Path("story.yaml").write_bytes(raw)
    assert main(["story.yaml"]) == 2
    assert words in capsys.readouterr().out


def test_a_file_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]):
    """It counts as a wrong scenario, so that a CI job notices."""
    assert main(["/nowhere/story.yaml"]) == 2
    assert "/nowhere/story.yaml:1: cannot be read: No such file or directory" in capsys.readouterr().out


IMPOSSIBLE = [
    ("remove: web\n    crash: {effect: 900}", 7, "expected crash before effect 900, found that the step has ended"),
    ("create_disk: {in: main, size: 1MiB, as: x}\n    crash: {effect: 1}\n  - remove: x", 9, "there is no image x"),
    ("unplug: main\n  - unplug: main", 8, "unplug cannot be done"),
    ("remove: web\n    freeze: {effect: 1, as: j}\n  - thaw: j\n  - thaw: j", 10, "nothing is frozen as j now"),
    ("save: {image: web, as: s}\n  - damage: {image: web, delete: record}\n  - damage: {image: web, record: zeros}", 9,
     "there is no record of this image"),
    ("create_disk: {in: main, size: 1GiB, as: big}\n  - expect: {image: big, content: []}", 8, "are looked at up to"),
    ("export: {image: web, as: f}\n    error: refused", 7, "found that it succeeded"),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "line", "words"), IMPOSSIBLE)
def test_a_step_that_cannot_be_is_told_when_it_is_played(
    steps: str, line: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """What shows only while playing is told in the same way."""
    path = tmp_path / "story.yaml"
    path.write_text(f"{HEAD}  - {steps}\n", encoding="utf-8")
    assert main(["-q", str(path)]) == (1 if "succeeded" in words else 2)
    out = capsys.readouterr().out
    assert f"{path}:{line}: " in out and words in out


# -- mutated files


SEEDS = [path.read_text(encoding="utf-8") for path in FILES]
SHORT = [text for text in SEEDS if len(text) < 1800 and "backends: [lab]" not in text and "48MiB" not in text]
WORDS = sorted({word for text in SEEDS for word in text.replace("{", " ").replace("}", " ").split()})


def mutated(text: str, chance: random.Random) -> str:
    """The text with some lines, words or characters changed."""
    for _ in range(chance.randint(1, 3)):
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        kind = chance.randrange(6)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[chance.randrange(len(lines))])
        elif kind == 2:
            lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
        elif kind == 3:
            words = lines[at].split(" ")
            words[chance.randrange(len(words))] = chance.choice(WORDS)
            lines[at] = " ".join(words)
        elif kind == 4 and lines[at]:
            place = chance.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + chance.choice("{}[]:,-'\"&*!|>\t#0aµ\x00") + lines[at][place + 1 :]
        else:
            lines[at] = "  " + lines[at]
        text = "\n".join(lines)
    return text


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(SEEDS), st.integers(0, 1 << 32))
def test_a_mutated_file_is_a_scenario_or_told_to_be_wrong(text: str, seed: int):
    """Whatever happens to a file, reading it gives a scenario or a message with a line that is in it."""
    changed = mutated(text, random.Random(seed))
    try:
        scenario = parse.parse("story.yaml", changed)
    except ScenarioError as error:
        assert 1 <= error.line <= changed.count("\n") + 1
        assert error.message
    else:
        assert scenario.steps


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SHORT), st.integers(0, 1 << 32))
def test_a_mutated_file_is_played_or_told_to_be_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, seed: int
):
    """Playing it ends in one of the documented exit codes, with a verdict, and no traceback is shown; an exception
    that is none of the engine's would be told as a violation, and there is none."""
    path = tmp_path / "story.yaml"
    path.write_bytes(mutated(text, random.Random(seed)).encode("utf-8", "surrogatepass"))
    code = main([str(path)])
    out = capsys.readouterr().out
    assert code in (0, 1, 2, 3)
    assert out.splitlines()[-1].startswith(("PASSED", "VIOLATED", "WRONG", "NOT PLAYED"))
    assert "Traceback" not in out and "expected an error of the engine or none" not in out


@given(st.text(max_size=200))
def test_any_text_is_told_to_be_wrong(text: str):
    """No text of a stranger is taken for a scenario, or breaks the reader."""
    with pytest.raises(ScenarioError):
        parse.parse("story.yaml", text)


def test_the_largest_disk_is_documented():
    """Sizes up to the limit are taken."""
    text = HEAD.replace("1MiB", f"{MAX_DISK_BYTES >> 40}TiB")
    assert parse.parse("story.yaml", text).steps[0].values["size"] == MAX_DISK_BYTES
