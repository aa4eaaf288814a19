"""Effects have one door each: what the simulator replaces is all there is to replace."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contracts.source import ROOT, effects, imported_modules, python_files, relative

BEHIND_THE_DOORS = "engine/tools/"


class Exemption(NamedTuple):
    """The modules that one file outside the doors may use, and why."""

    modules: frozenset[str]
    reason: str


EXEMPT: dict[str, Exemption] = {
    "engine/host/runner.py": Exemption(
        frozenset({"signal"}), "a process of its own: it turns SIGTERM into the request to stop at the next step"
    ),
    "engine/host/holder.py": Exemption(
        frozenset({"signal"}), "a process of its own: it waits for the signal that ends the session"
    ),
}

PURE = ("data", "doors", "errors", "triage")
UNKNOWN_TO_PURE = frozenset({"os", "subprocess", "time", "socket", "random"})


def behind_a_door(path: str) -> bool:
    return path.startswith(BEHIND_THE_DOORS)


def violations(path: Path) -> list[str]:
    name = relative(path)
    allowed = EXEMPT[name].modules if name in EXEMPT else frozenset()
    return [
        f"{name}:{finding.line}: {finding.words}"
        for finding in effects(path.read_text(encoding="utf-8"))
        if finding.module not in allowed
    ]


def pure_files(module: str) -> list[Path]:
    single = ROOT / "engine" / f"{module}.py"
    return [single] if single.exists() else sorted((ROOT / "engine" / module).rglob("*.py"))


def test_effects_happen_only_behind_doors():
    """Outside engine/tools and the listed exemptions nothing in engine leaves memory."""
    files = [path for path in python_files("engine") if not behind_a_door(relative(path))]
    found = [line for path in files for line in violations(path)]
    assert files
    assert not found, "effects outside the doors (use doors.*, or posixpath for names):\n" + "\n".join(found)


@pytest.mark.parametrize("name", sorted(EXEMPT))
def test_each_exemption_is_in_use(name: str):
    """An exemption names a file that exists and exactly the modules that it uses."""
    path = ROOT / name
    assert path.exists(), f"{name} is gone: take it out of EXEMPT"
    used = {finding.module for finding in effects(path.read_text(encoding="utf-8"))}
    assert EXEMPT[name].modules <= used, f"{name} does not use {EXEMPT[name].modules - used}: take that out of EXEMPT"


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_have_no_way_out(module: str):
    """engine.data, doors, errors and triage are plain data in, plain data out, without exemption."""
    files = pure_files(module)
    assert files, f"engine.{module} does not exist"
    found = [
        f"{relative(path)}:{line}: import of {name}"
        for path in files
        for line, name in imported_modules(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(".")[0] in UNKNOWN_TO_PURE
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", pure_files("doors"), ids=lambda path: path.stem)
def test_a_door_is_a_protocol_and_plain_data(path: Path):
    """Nothing in engine.doors does anything: its classes are interfaces, records and enumerations."""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    kinds = {"Protocol", "NamedTuple", "StrEnum"}
    others = [node.name for node in classes if not kinds & {ast.unparse(base) for base in node.bases}]
    assert not others, f"{others} in {relative(path)} belong behind the door, into engine.tools"


def test_a_broad_except_tells_its_reason():
    """Where the engine does catch everything, the line says why, after the mark that allows it."""
    mark = re.compile(r"#\s*noqa:\s*BLE001\b(?P<reason>.*)")
    silent = [
        f"{relative(path)}:{number}: BLE001 without a reason"
        for path in python_files("engine")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (match := mark.search(line)) and not re.search(r"\w+\W+\w+", match["reason"])
    ]
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import os", "os"),
        ("import os.path as p", "os"),
        ("from os import path", "os"),
        ("def f():\n    import subprocess", "subprocess"),
        ("from pathlib import Path", "pathlib"),
        ("f = open('x')", "open"),
        ("reader = map(open, names)", "open"),
        ("import io\nio.open('x')", "open"),
        ("from io import open as reader", "open"),
        ("os = __import__('os')", "__import__"),
        ("import importlib\nimportlib.import_module('os')", "importlib"),
        ("from datetime import datetime\ndatetime.now()", "datetime"),
        ("from concurrent.futures import Future", "concurrent"),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import socket", "socket"),
    ],
)
def test_the_lint_sees_each_way_out(source: str, module: str):
    """The lint knows an effect however it is imported or named, and tells its line."""
    findings = effects(source)
    assert module in {finding.module for finding in findings}
    assert all(1 <= finding.line <= len(source.splitlines()) for finding in findings)


@pytest.mark.parametrize(
    "source",
    [
        "import posixpath\nposixpath.join('a', 'b')",
        "import io\nio.BytesIO(b'')",
        "from datetime import datetime, UTC\ndatetime.fromtimestamp(0, UTC)",
        "files.open('x')",
        "class Volume:\n    open: bool",
        "import json, re, errno, stat",
        "from engine.doors.files import Files",
    ],
)
def test_the_lint_lets_plain_data_pass(source: str):
    """What only moves data in memory, or goes through a door, is not reported."""
    assert effects(source) == []
