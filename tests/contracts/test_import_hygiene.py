"""What importing costs: the engine runs without the faces, and the command starts without the console."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig

import pytest

from tests.contracts.source import ROOT

HEAVY = {"asyncio", "dataclasses", "pyfakefs", "sim", "textual", "tui"}
HEAVY_FOR_THE_COMMAND = {"asyncio", "pyfakefs", "sim", "textual"}


def loaded_by(module: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after importing only this one.

    Without ``site`` (-S): what a .pth file of some package loads is not the module's doing.
    """
    code = f"import sys, {module}, json; print(json.dumps(sorted(sys.modules)))"
    environment = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_the_engine_loads_neither_faces_nor_heavy_modules():
    """Importing engine.api loads no console, no simulator, and none of the modules that cost a start-up."""
    assert loaded_by("engine.api") & HEAVY == set()


def test_the_command_line_starts_without_console_and_simulator():
    """Importing tui.cli.main loads neither textual nor sim: the commands that need them import them."""
    assert loaded_by("tui.cli.main") & HEAVY_FOR_THE_COMMAND == set()


@pytest.mark.parametrize("module", ["asyncio", "dataclasses"])
def test_the_probe_sees_what_is_loaded(module: str):
    """The probe reports a module that was imported, so an empty answer means something."""
    assert module in loaded_by(module)
    assert module not in loaded_by("errno")
