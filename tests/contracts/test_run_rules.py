"""The rules of the test run itself: skips fail in CI, fast tests come first, each test is its own host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.source import ROOT

ONE_SKIP = """
import pytest

@pytest.mark.slow
def test_long():
    assert True

def test_works():
    assert True

def test_lacks_something():
    pytest.skip("not here")
"""


@pytest.fixture
def run_apart(tmp_path: Path):
    """Runs pytest in a directory of its own with this project's conftest and settings."""

    def run(source: str, ci: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
        (tmp_path / "test_apart.py").write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
        return subprocess.run(
            [*command, f"--rootdir={tmp_path}", *arguments, str(tmp_path)],
            env={**os.environ, "CI": ci},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_skip_fails_the_run_in_ci(run_apart):
    """With CI=true one skipped test makes the exit code 1, and the output says how many and why."""
    done = run_apart(ONE_SKIP, "true")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "tests skipped: 1: this fails the run" in done.stdout
    assert "2 passed, 1 skipped" in done.stdout.splitlines()[-1]


def test_a_skip_counts_in_ci_with_workers(run_apart):
    """Skips are counted when the tests run in worker processes too."""
    done = run_apart(ONE_SKIP, "true", "-n", "1")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "tests skipped: 1" in done.stdout


def test_a_skip_is_allowed_elsewhere(run_apart):
    """Without CI a skip is told and passes; slow tests run after the fast ones."""
    done = run_apart(ONE_SKIP, "", "-v")
    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "tests skipped: 1\n" in done.stdout
    assert done.stdout.index("test_works") < done.stdout.index("test_long")


def test_each_test_is_a_host_of_its_own(tmp_path: Path):
    """State directories point under tmp_path, nothing is there yet, and no host name is set."""
    for name in ("DISKWRIGHT_STATE", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        assert Path(os.environ[name]).parent == tmp_path
    assert "DISKWRIGHT_HOST" not in os.environ
    assert list(tmp_path.iterdir()) == []
