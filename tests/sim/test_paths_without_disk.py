"""What touches ordinary paths, under pyfakefs: scenario files, results, saved violations, notes of the command."""

from __future__ import annotations

import json
import os

import pytest
from pyfakefs.fake_filesystem import FakeFilesystem

from engine.errors import BadRequest, NotFound, StorageError
from sim.explore import command as explore
from sim.explore.cases.catalog import CASES
from sim.explore.random import fuzz
from sim.scenario import command
from tests.unfaked import Unfaked
from tui.cli import arguments, main
from tui.cli.session import state_directory

SCENARIO = """\
title: A disk
story: There is a disk.
backends: [sim]
repositories: [main]
hosts: [a]
steps:
  - create_disk: {in: main, size: 64KiB, as: web}
  - expect: {image: web, status: optimized}
"""


def test_calls_that_are_not_faked_raise(fs: FakeFilesystem):
    """Also here, where nobody asked for the guard."""
    fs.create_file("/a", contents=b"a")
    descriptor = os.open("/a", os.O_RDWR)
    with pytest.raises(Unfaked):
        os.pwrite(descriptor, b"x", 0)


def test_scenarios_are_found_read_and_their_results_written(fs: FakeFilesystem, capsys: pytest.CaptureFixture[str]):
    """A directory is searched; JUnit and the trace are whole files; what cannot be written is said."""
    fs.create_file("/s/deep/one.yaml", contents=SCENARIO)
    fs.create_file("/s/two.yml", contents=SCENARIO.replace("64KiB", "64KB"))
    fs.create_file("/s/notes.txt", contents="no scenario")
    assert command.main(["-q", "--junit", "/out.xml", "--trace", "/out.jsonl", "/s"]) == command.EXIT_WRONG
    text = capsys.readouterr().out
    assert "1 passed" in text and "/s/two.yml:7" in text
    with open("/out.xml", encoding="utf-8") as junit, open("/out.jsonl", encoding="utf-8") as trace:
        assert "<testsuite" in junit.read()
        assert [json.loads(line) for line in trace]
    with pytest.raises(NotFound):
        command.main(["-q", "/empty"] if fs.create_dir("/empty") else [])
    with pytest.raises((NotFound, StorageError, BadRequest)):
        command.main(["-q", "--junit", "/s/two.yml/out.xml", "/s/deep/one.yaml"])


def test_a_saved_violation_is_replayed_from_its_file(fs: FakeFilesystem, capsys: pytest.CaptureFixture[str]):
    """A crash of an exploration and a run of the fuzzer; what is neither is refused by name."""
    assert "user-data" in CASES
    fs.create_file(
        "/violation", contents=json.dumps({"case": "user-data", "profile": "posix", "path": [["operation", 3, -1]]})
    )
    fs.create_file("/run", contents=json.dumps({"seed": 11, "tape": [0, 1]}))
    fs.create_file("/bad", contents="[1")
    assert explore.main(["--replay", "/violation"]) == 0 and "nothing is wrong" in capsys.readouterr().out
    assert fuzz.main(["--replay", "/run"]) == 0
    for run, path in ((explore.main, "/bad"), (fuzz.main, "/bad"), (fuzz.main, "/none")):
        with pytest.raises(BadRequest):
            run(["--replay", path])
    with pytest.raises((NotFound, StorageError)):
        explore.main(["--replay", "/none"])


def test_files_of_the_operator_are_read_up_to_a_limit(fs: FakeFilesystem):
    """JSON from a file; too long, not UTF-8 and not there are three errors."""
    fs.create_file("/data.json", contents='{"a": 1}')
    fs.create_file("/latin", contents=b"\xe9")
    assert arguments.json_argument("@/data.json", "user data") == {"a": 1}
    with pytest.raises(BadRequest):
        arguments.read_text("/data.json", 3)
    with pytest.raises(BadRequest):
        arguments.read_text("/latin", 10)
    with pytest.raises(NotFound):
        arguments.json_argument("@/none", "user data")


def test_the_notes_of_a_host_have_a_place_and_the_crash_log_an_end(fs: FakeFilesystem, monkeypatch: pytest.MonkeyPatch):
    """Relative values of the environment are ignored; the log begins anew when it is full; a full disk is no error."""
    monkeypatch.delenv("DISKWRIGHT_STATE")
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    state = state_directory(None, "h")
    assert state == "/home/u/.local/state/diskwright/h"
    path = main._write_crash(state, "first")
    main._write_crash(state, "second")
    with open(path, encoding="utf-8") as stream:
        assert "first" in stream.read()
    os.truncate(path, main._CRASH_LOG_BYTES + 1)
    main._write_crash(state, "third")
    assert os.path.getsize(path) < 1000
    fs.set_disk_usage(os.path.getsize(path))
    assert main._write_crash(state, "x" * 10_000) == ""
