"""The wheel: what pip installs is all that is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.contracts.source import ROOT

ENOUGH_S = 120


def run(*words: object, **options: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=ENOUGH_S, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done
    return str(done.stdout)


@pytest.mark.slow
def test_a_wheel_in_a_bare_environment_has_everything(tmp_path: Path):
    """The command with the formats it writes, scenarios wherever one is, the manual page, and what shells complete
    with. Libraries are those of this environment; nothing of the checkout is in reach."""
    # As pip builds it: -S leaves the checkout out of what can be imported.
    build = "import sys; sys.path.append(sys.argv.pop(1)); from hatchling.cli import hatchling; hatchling()"
    run(
        sys.executable,
        "-I",
        "-S",
        "-c",
        build,
        sysconfig.get_path("purelib"),
        "build",
        "-t",
        "wheel",
        "-d",
        tmp_path / "dist",
        cwd=ROOT,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    place = tmp_path / "bare"
    venv.create(place, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (data,) = packages.glob("*.data/data")
    for name in ("man/man1/diskwright.1", "bash-completion/completions/diskwright", "zsh/site-functions/_diskwright"):
        assert (data / "share" / name).stat().st_size > 500
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = place / "bin" / "python"
    start = [python, "-I", "-c", "import sys; from tui.cli.main import main; sys.exit(main())"]
    state = {"cwd": tmp_path, "env": {**os.environ, "DISKWRIGHT_STATE": str(tmp_path / "state")}}
    where = run(python, "-I", "-c", "import engine, sim, tui; print(engine, sim, tui)", **state)
    assert str(ROOT) not in where
    assert "localfs-1.0" in run(*start, "--version", **state)
    assert "PASSED" in run(*start, "sim", "run", "-q", "scenarios/lessons/1_a_disk_and_its_snapshots.yaml", **state)
    repository = f"path={tmp_path}/repository"
    run(*start, "create-repo", "localfs-1.0", repository, **state)
    run(*start, "connect", "main", "localfs-1.0", repository, **state)
    assert len(run(*start, "create-disk", "main", "1M", "--wait", **state)) == 33
    assert "main" in run(*start, "tui", **state)
