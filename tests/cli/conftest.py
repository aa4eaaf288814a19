"""A host with real repositories, driven through ``main`` as an operator would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.contracts.source import ROOT
from tui.cli.help import COMMANDS
from tui.cli.main import main
from tui.cli.schema import of


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Standard output, which must be exactly one JSON document."""
        return json.loads(self.out)


class Command:
    """Runs ``main`` in this process with captured output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, code: int | None = 0) -> Done:
        self._capsys.readouterr()
        done = Done(main([str(word) for word in words]), *self._capsys.readouterr())
        assert "Traceback" not in done.err
        if "--json" in words and done.out.startswith("{"):
            is_as_published(words, done)
        assert code is None or done.code == code, done
        return done

    def id(self, *words: object) -> str:
        """Run a command that prints an id and nothing else on standard output."""
        out = self(*words).out
        assert len(out) == 33 and out.endswith("\n")
        return out.strip()

    def json(self, *words: object, code: int = 0) -> Any:
        """The JSON document of a command."""
        return self(*words, "--json", code=code).data


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("NO_COLOR", "COLUMNS", "DISKWRIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISKWRIGHT_HOST", "host-a")
    return Command(capsys)


@pytest.fixture
def main_repo(run: Command, tmp_path: Path) -> str:
    """A connected repository named ``main``."""
    return connect(run, tmp_path, "main")


@pytest.fixture
def backup_repo(run: Command, tmp_path: Path) -> str:
    """Another one, named ``backup``."""
    return connect(run, tmp_path, "backup")


def connect(run: Command, tmp_path: Path, name: str) -> str:
    path = f"path={tmp_path}/{name}"
    run("create-repo", "localfs-1.0", path)
    run("connect", name, "localfs-1.0", path)
    return name


def write_disk(run: Command, repo: str, image: str, what: str = "write -P 7 0 1M") -> None:
    """Write into a prepared disk with qemu's own tool."""
    script = 'qemu-io -f "$DISKWRIGHT_DISK_FORMAT" -c "$0" "$DISKWRIGHT_DISK" >/dev/null'
    run("prepare", repo, image, "--", "sh", "-c", script, what)


@cache
def validator(command: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(of(command))


def is_as_published(words: tuple[object, ...], done: Done) -> None:
    """What a command prints as JSON is what the schema says of it, whichever test runs it."""
    if find_spec("jsonschema") is None or "--watch" in words:
        return
    failed = done.code != 0 and '{\n  "error"' in done.out[:12]
    name = "error" if failed else next(str(word) for word in words if word in COMMANDS or word in ("help", "--version"))
    if name != "--version":
        validator("help" if "--help" in words else name).validate(done.data)


COMMAND = "import sys; from tui.cli.main import main; sys.exit(main())"


def start_script(script: str, *words: object, **options: Any) -> subprocess.Popen[bytes]:
    """A Python process of its own that finds our packages; outputs are captured unless ``options`` say otherwise."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
    return subprocess.Popen([sys.executable, "-c", script, *map(str, words)], env=environment, **options)


def start(*words: object, **options: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    return start_script(COMMAND, *words, **options)
