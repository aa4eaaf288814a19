"""What the command line accepts, and that everything else is refused in one sentence with its exit code."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.amounts import human
from engine.errors import BadRequest
from tests.cli.conftest import Command
from tui.cli.arguments import parse_size
from tui.cli.help import COMMANDS, TOPICS
from tui.text.amounts import compact, duration


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("1K", 1024),
        ("100M", 100 << 20),
        ("10G", 10 << 30),
        ("10GiB", 10 << 30),
        ("1.5T", 3 << 39),
        ("10g", 10 << 30),
        ("1536B", 1536),
        ("0.1G", -(-(1 << 30) // 5120) * 512),
    ],
)
def test_sizes_are_binary(text: str, size: int):
    """Sizes are bytes or binary units; a fraction that is not whole bytes is rounded up to 512."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "-5G", "1e9", "10GB", "10 GiB x", "0x10", "1..5G", "٣", "9" * 30, "nan"]
)
def test_garbage_is_no_size(text: str):
    """Anything else is a BadRequest, decimal units such as GB included."""
    with pytest.raises(BadRequest):
        parse_size(text)


@given(st.text(max_size=12))
def test_no_text_breaks_the_size_parser(text: str):
    """Any text is a size of zero or more bytes, or a BadRequest."""
    try:
        assert parse_size(text) >= 0
    except BadRequest as error:
        assert error.next_step


@pytest.mark.parametrize("size", ["0", "-4096", "-5G", "9007199254740993", "99999999T", "huge", "1.2.3"])
def test_impossible_sizes_are_refused(run: Command, main_repo: str, size: str):
    """A disk of no, negative, too many or garbled bytes is refused with exit code 2, and none is made."""
    assert run("create-disk", main_repo, size, code=2).err.startswith("diskwright: ")
    assert run.json("images", main_repo)["images"] == []


def test_an_odd_size_is_kept(run: Command, main_repo: str):
    """A size that is no multiple of anything is the size of the disk, to the byte."""
    disk = run.id("create-disk", main_repo, "1000001")
    assert run.json("status", main_repo, disk)["size_bytes"] == 1000001


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("images nowhere", 3),
        ("status main ffffffff", 3),
        ("status main " + "f" * 32, 3),
        ("status main abc", 3),
        ("status main ../../etc", 3),
        ("status main " + "f" * 33, 3),
        ("remove main zzzzzzzz", 3),
        ("create-disk main 1M -o color=red", 2),
        ("create-disk main 1M --strategy cheap", 2),
        ("create-disk main 1M --participating nowhere --base ffff", 3),
        ("create-disk main 1M --hint ffff", 2),
        ("create-disk main 1M --user-data {", 2),
        ("create-disk main 1M --user-data [NaN]", 2),
        ("create-disk main 1M --user-data @/nonexistent", 3),
        ("check main -o auto_fix=7", 2),
        ("create-repo localfs-2.0 path=x", 2),
        ("create-repo localfs path=x", 2),
        ("create-repo tape-1.0 path=x", 2),
        ("create-repo localfs-1.0 size=3", 2),
        ("create-repo localfs-1.0 path", 2),
        ("create-repo localfs-1.0 path=a path=b", 2),
        ("connect a/b localfs-1.0 path=x", 2),
        ("connect other localfs-1.0 path=/nonexistent/x", 3),
        ("disconnect nowhere", 3),
        ("import main /nonexistent --format raw", 3),
        ("import main /etc/hostname --format vmdk", 2),
        ("import main /etc/hostname", 2),
        ("fix main", 2),
        ("fix main abcd", 3),
        ("fix main abcd --all", 2),
        ("fix main --file /nonexistent", 3),
        ("fix main --type repair", 2),
        ("user-data set main ffff", 2),
        ("user-data put main ffff", 2),
        ("srm take main", 5),
        ("stop main " + "f" * 32, 3),
        ("imagse main", 2),
        ("check", 2),
        ("images main --colour", 2),
        ("--frobnicate images main", 2),
        ("--host a/b images main", 2),
        ("--host .. images main", 2),
        ("images main --host " + "x" * 65, 2),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(run: Command, main_repo: str, words: str, code: int):
    """Each wrong request ends with its exit code, one line on stderr, nothing on stdout, and with
    --json the same error as the only document on stdout."""
    done = run(*words.split(), code=code)
    assert done.out == ""
    assert done.err.startswith("diskwright: ") and done.err.count("\n") == 1
    error = run.json(*words.split(), code=code)["error"]
    assert error["code"] and error["message"] in done.err


def test_user_data_comes_from_argument_file_and_standard_input(
    run: Command, main_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The three ways to give JSON end in the same value, and get prints exactly that."""
    value = {"name": "Größe", "list": [1, None, True]}
    (tmp_path / "data.json").write_text(json.dumps(value), encoding="utf-8")
    disk = run.id("create-disk", main_repo, "1M", "--user-data", json.dumps(value))
    assert json.loads(run("user-data", "get", main_repo, disk).out) == value
    run("user-data", "set", main_repo, disk, "[]")
    assert run.json("user-data", "get", main_repo, disk) == []
    run("user-data", "set", main_repo, disk, f"@{tmp_path}/data.json")
    assert run.json("user-data", "get", main_repo, disk) == value
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"piped"'), encoding="utf-8"))
    run("user-data", "set", main_repo, disk, "-")
    assert run.json("user-data", "get", main_repo, disk) == "piped"


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"{", b"[" * 100_000, b'"' + b"x" * 70_000 + b'"', b" " * (2 << 20)])
def test_bad_user_data_files_are_refused(run: Command, main_repo: str, tmp_path: Path, raw: bytes):
    """A file that is not UTF-8, not JSON, nested too deeply or too large is refused and nothing changes."""
    (tmp_path / "bad").write_bytes(raw)
    disk = run.id("create-disk", main_repo, "1M")
    run("user-data", "set", main_repo, disk, f"@{tmp_path}/bad", code=2)
    assert run.json("user-data", "get", main_repo, disk) == {}


def test_global_options_stand_anywhere(run: Command, main_repo: str):
    """--json and --host mean the same before and after the command."""
    before = run("--host", "host-b", "--json", "tasks").data
    assert (
        before
        == run("tasks", "--json", "--host=host-b").data
        == {"host": "host-b", "tasks": [], "prepared": [], "unheld": []}
    )
    assert run.json("repos", "--host", "other")["repositories"] == []


def test_relative_paths_are_made_absolute(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A path is meant from the current directory, and recorded so that it works from any other."""
    monkeypatch.chdir(tmp_path)
    run("create-repo", "localfs-1.0", "path=./here/../there")
    run("connect", "there", "localfs-1.0", "path=there")
    monkeypatch.chdir("/")
    assert run.json("repos")["repositories"][0]["parameters"] == {"path": str(tmp_path / "there")}


def test_the_state_directory_is_per_host(run: Command, tmp_path: Path):
    """--state DIR keeps the notes of host NAME in DIR/NAME, so hosts can share DIR."""
    path = f"path={tmp_path}/r"
    run("--state", tmp_path / "s", "create-repo", "localfs-1.0", path)
    run("--state", tmp_path / "s", "connect", "r", "localfs-1.0", path)
    assert (tmp_path / "s" / "host-a" / "connections.json").exists()
    assert not (tmp_path / "host-state").exists()


def test_help_is_complete(run: Command):
    """The help lists every command with its summary; each command's own help has an example."""
    text = run("--help").out
    for name, command in COMMANDS.items():
        assert f"  {name} " in text and command.summary in text
        assert "example:\n  diskwright " + name in run(name, "--help").out
    assert max(map(len, text.splitlines())) <= 100
    assert run("help", "fix").out == run("fix", "-h").out
    assert run(code=2).err == text
    assert run("--version").out.startswith("diskwright ")


@pytest.mark.parametrize(("count", "short", "long"), [
    (0, "0", "0 bytes"), (1023, "1023", "1023 bytes"), (1024, "1.0K", "1.0 KiB"), ((1 << 20) - 1, "1.0M", "1.0 MiB"),
    (10 << 30, "10.0G", "10.0 GiB"), (1 << 53, "8.0P", "8.0 PiB"),
])  # fmt: skip
def test_bytes_are_readable(count: int, short: str, long: str):
    """Numbers of bytes are shown in at most six characters, and never as 1024 of a unit."""
    assert (compact(count), human(count)) == (short, long)


def test_spans_are_readable():
    """Spans of time are shown in the unit that fits."""
    assert [duration(value) for value in (0, 20, 150, 7500)] == ["1s", "20s", "2m", "2h05m"]


def test_the_host_name_comes_from_the_machine(run: Command, monkeypatch: pytest.MonkeyPatch):
    """Without option and environment the host is what the kernel calls it."""
    monkeypatch.delenv("DISKWRIGHT_HOST")
    assert run.json("repos")["host"] == os.uname().nodename


@pytest.mark.parametrize("columns", [60, 80])
def test_help_is_as_wide_as_the_terminal(run: Command, columns: int, monkeypatch: pytest.MonkeyPatch):
    """Prose and what stands in columns; a command to copy is one line. A pipe gets lines whole."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in ((), *((name,) for name in COMMANDS), *(("help", name) for name in TOPICS if name != "json")):
        shown = run(*words, *(["--help"] if words[:1] != ("help",) else [])).out
        wide = [line for line in shown.splitlines() if len(line) > columns and "diskwright " not in line]
        assert not wide, words
    monkeypatch.delenv("COLUMNS")
    assert (
        "to,\nsince when, whether its holder lives, the layers below, and what is done to them"
        in run("status", "--help").out
    )
