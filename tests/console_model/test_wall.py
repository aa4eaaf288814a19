"""The model knows no screen: it works where textual is not installed."""

from __future__ import annotations

import subprocess
import sys
import sysconfig

from tests.contracts.source import ROOT

CODE = """
import importlib, pkgutil, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("textual", "rich"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import tui.text, tui.view, tui.work
for package in (tui.text, tui.view, tui.work):
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
print(sorted(name for name in sys.modules if name.startswith(("textual", "tui.console", "sim", "asyncio"))))
"""


def test_the_model_needs_neither_textual_nor_the_console_nor_the_simulator():
    """Every module of the model can be imported without textual, and loads no console, simulator or event loop."""
    environment = {"PYTHONPATH": f"{ROOT}:{sysconfig.get_path('purelib')}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", CODE], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
