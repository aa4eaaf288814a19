"""The scenarios that come with the project, by name: a path below ``scenarios/`` without its ending."""

from __future__ import annotations

from pathlib import Path

from sim.scenario.language import parse
from tests.contracts.source import ROOT

DIRECTORY = ROOT / "scenarios"
FILES = sorted(DIRECTORY.rglob("*.yaml"))


def _name(path: Path) -> str:
    return str(path.relative_to(DIRECTORY).with_suffix(""))


SCENARIOS = {_name(path): parse.load(str(path)) for path in FILES}
