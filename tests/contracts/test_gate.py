"""One gate to the data: what opens, makes, freezes, deletes or puts away a volume stands in engine.gate alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.contracts.source import python_files, relative

BEHIND = ("engine/gate/", "engine/formats/")
GUARDED = {
    "volumes": frozenset({"layer", "make", "remove", "quarantine", "put_back", "users", "guard", "late_writer"}),
    "extents": frozenset({"freeze"}),
    "activation": frozenset({"hold"}),
    "adoption": frozenset({"take", "let_go", "give_back"}),
}


def reached(source: str) -> list[tuple[int, str]]:
    """Line and name of each guarded call of a part of a repository."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            part = node.value.attr
            if node.attr in GUARDED.get(part, ()):
                found.append((node.lineno, f"{part}.{node.attr}"))
    return found


def files() -> list[Path]:
    return [path for path in python_files("engine") if not relative(path).startswith(BEHIND)]


def test_volumes_are_reached_through_the_gate_only():
    """No module outside of the gate and the formats can open, make, seal, delete or move a volume."""
    wrong = [
        f"{relative(path)}:{line}: {call}"
        for path in files()
        for line, call in reached(path.read_text(encoding="utf-8"))
    ]
    assert files()
    assert not wrong, "go through engine.gate, and say for what purpose:\n" + "\n".join(wrong)


@pytest.mark.parametrize("source", ["repository.volumes.layer(v)", "a.b.volumes.remove(v, f)", "r.extents.freeze(v)"])
def test_the_contract_sees_each_way(source: str):
    """The search knows a guarded call whatever the repository is called."""
    assert len(reached(source)) == 1
