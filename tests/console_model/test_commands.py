"""Command lines for acts, sessions as scripts, tables as files."""

from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BadRequest, StorageError
from tui.cli.arguments import Parser
from tui.cli.main import _parser
from tui.view.command_lines import ACTS, SessionLog, line
from tui.view.export import Form, table, write

ARGUMENTS: Any = {
    "repo": "my pool", "image": "a" * 32, "plan": "3f2a", "fix": "b" * 16, "fixes": "b1b1 c2c2", "type": "clean",
    "format": "localfs-1.0", "parameters": "path='/srv/my images'", "trace": "a.jsonl",
    "name": "my web", "file": "/tmp/my file", "files": "'/srv/my images' /srv/b.raw",
    "images": f"{'a' * 32} {'b' * 32}", "quiesce": "yes",
    "monitor": "qmp:/run/my vm", "rate": "50M", "path": "/run/x", "read_only": "yes", "take_over": "yes",
}  # fmt: skip


@pytest.mark.parametrize("act", [act for act in ACTS if act != "replay"])
def test_each_line_is_one_that_the_command_understands(act: str):
    """What the console says it does can be typed: the parser of the command takes it."""
    words = shlex.split(line(act, **ARGUMENTS))
    assert words[0] == "diskwright"
    parser: Parser = _parser(words[1])[0]
    parser.read(words[2:])


def test_names_are_quoted():
    """A name with spaces stays one word."""
    assert line("why", repo="my pool", image="ab") == "diskwright why 'my pool' ab"


def test_unknown_acts_and_missing_words_are_told():
    """There is a sentence instead of a KeyError."""
    with pytest.raises(BadRequest, match="no command"):
        line("dance")
    with pytest.raises(BadRequest, match="needs image"):
        line("why", repo="main")


def test_a_session_is_a_script(tmp_path: Path):
    """The script runs the commands in their order and stops at the first that fails; notes cannot break out."""
    log = SessionLog()
    log.add(0.0, "echo one", "web-db\nrm -rf /")
    log.add(1.0, "false")
    log.add(2.0, "echo three")
    path = tmp_path / "session.sh"
    path.write_text(log.script("host-a\necho no"), encoding="utf-8")
    done = subprocess.run(["sh", str(path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("one\n", 1)


HEADS = ("image", "note")
ROWS = [("web", 'a "b", c'), ("=1+2", "-5"), ("漢字", "")]


def test_json_and_csv_give_the_table_back():
    """Every cell survives; what a spreadsheet would take for a formula is quoted."""
    assert json.loads(table(HEADS, ROWS, "json"))[0] == {"image": "web", "note": 'a "b", c'}
    found = list(csv.reader(io.StringIO(table(HEADS, ROWS, Form.CSV))))
    assert found == [["image", "note"], ["web", 'a "b", c'], ["'=1+2", "-5"], ["漢字", ""]]


def test_text_is_aligned_by_width():
    """Columns stand below each other, wide characters counted as two."""
    lines = table(HEADS, ROWS, "txt").splitlines()
    assert lines[0] == "image  note" and lines[1] == 'web    a "b", c' and lines[3] == "漢字"


def test_an_empty_table_has_its_heads():
    """Nothing to write is written as a head without rows."""
    assert table(HEADS, [], "csv") == "image,note\n" and json.loads(table(HEADS, [], "json")) == []


def test_exports_never_overwrite(tmp_path: Path):
    """Two exports in one second are two files, and a name is no path."""
    first, second = (write(str(tmp_path), "../web db", "txt", "x") for _ in range(2))
    assert first != second and Path(first).parent == tmp_path and "/.." not in Path(first).name
    with pytest.raises(BadRequest):
        table(HEADS, ROWS, "xls")
    with pytest.raises(StorageError):
        write(f"{first}/below a file", "x", "txt", "x")
