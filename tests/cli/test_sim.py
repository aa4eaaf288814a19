"""``diskwright sim``: the command finds the module, passes words on, and tells its errors as all commands do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Command, start
from tests.contracts.source import ROOT

LESSON = ROOT / "scenarios" / "lessons" / "1_a_disk_and_its_snapshots.yaml"


def test_a_scenario_is_played(run: Command):
    """The trace and the verdict stand on standard output; options of the scenario player come after ``run``."""
    done = run("sim", "run", LESSON)
    assert done.out.splitlines()[-1].startswith("PASSED") and done.err == ""
    assert run("sim", "run", "-q", "--seed", "3", LESSON).out.startswith("PASSED")


@pytest.mark.parametrize("words", [("--json", "sim", "run"), ("sim", "--json", "run"), ("sim", "run", "--json")])
def test_json_counts_wherever_it_stands(run: Command, words: tuple[str, ...]):
    """One document on standard output, the trace on standard error."""
    done = run(*words, str(LESSON))
    assert json.loads(done.out)["passed"] == 1
    assert "PASSED" in done.err


def test_the_exit_code_is_the_players(run: Command, tmp_path: Path):
    """1 violated, 2 wrong, 3 not played."""
    text = LESSON.read_text(encoding="utf-8")
    for name, old, new, code in (
        ("violated", "images: 3", "images: 4", 1),
        ("wrong", "images: 3", "image: 3", 2),
        ("lab", "[sim, local]", "[lab]", 3),
    ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        assert run("sim", "run", path, code=code).err == ""


def test_wrong_usage_is_told_like_everywhere(run: Command, tmp_path: Path):
    """A sentence on standard error and a next step; with --json a document."""
    assert "invalid choice: 'rum'" in run("sim", "rum", code=2).err
    assert "--backend: invalid choice: 'nfs'" in run("sim", "run", "--backend", "nfs", LESSON, code=2).err
    assert "there is no scenario" in run("sim", "run", tmp_path, code=3).err
    assert run.json("sim", "run", tmp_path, code=3)["error"]["code"] == "not-found"


def test_help_says_what_there_is(run: Command):
    """The list of commands has it; its own help has the options and the exit codes of playing."""
    assert "play scenarios" in run("--help").out
    text = run("sim", "--help").out
    for word in ("--backend", "--junit", "--trace", "explore", "scenarios/README.md", "Exit codes"):
        assert word in text


@pytest.mark.parametrize(("action", "option"), [("run", "--junit"), ("explore", "--shallow"), ("fuzz", "--replay")])
def test_each_action_has_a_help_of_its_own(run: Command, action: str, option: str):
    """With its options, however it is asked for."""
    text = run("sim", action, "--help").out
    assert f"usage: diskwright sim {action}" in text and option in text
    assert run("help", "sim", action).out == run("sim", action, "-h").out == text


def test_wrong_usage_of_each_action_is_told_alike(run: Command, tmp_path: Path):
    """One sentence, exit code 2."""
    for words in (("explore", "--case", "none"), ("explore", "--replay", "{"), ("fuzz", "--sed", "1")):
        assert run("sim", *words, code=2).err.startswith("diskwright: ")


def test_a_closed_pipe_ends_it_quietly():
    """``diskwright sim run … | head -1`` prints no traceback."""
    process = start("sim", "run", LESSON, "-v", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 141) and said == b""
