"""The table of rules is the only place that knows rules, and what is derived from it is complete."""

from __future__ import annotations

import ast
import re

import pytest

from engine.audit import rules as of_audits
from engine.data.model import FixType, Status
from engine.fixes.run import RUNNERS
from engine.triage.rules import BY_CODE, wordings
from engine.triage.shape import Need, Rule
from sim.scenario.language import schema
from tests.contracts.source import ROOT, python_files, relative
from tui.text.rules import EVERY as ALL
from tui.text.rules import document, lines

CODE = re.compile(r"[A-Z]-[A-Z]{3,}\Z")
TABLES = {"engine/triage/rules.py": BY_CODE, "engine/audit/rules.py": of_audits.BY_CODE}
EVERY = pytest.mark.parametrize("rule", ALL.values(), ids=ALL)


def test_no_other_file_writes_a_rule_as_a_string():
    """Outside the tables a rule is named through it, so none can be misspelt or stay undocumented."""
    found = [
        f"{relative(path)}:{node.lineno} {node.value}"
        for package in ("engine", "sim", "tui")
        for path in python_files(package)
        if relative(path) not in TABLES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.match(node.value)
    ]
    assert not found


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_that_is_named_is_in_the_table(table: str):
    """The constants of a table and its rows are the same, each once."""
    text, rows = (ROOT / table).read_text(encoding="utf-8"), TABLES[table]
    constants = re.findall(r'^[A-Z]_[A-Z]+: Final = "([A-Z]-[A-Z]+)"$', text, re.MULTILINE)
    assert sorted(constants) == sorted(rows) and len(set(constants)) == len(constants)
    assert len(re.findall(r"^    Rule\(", text, re.MULTILINE)) == len(rows)


def test_only_what_an_audit_finds_has_a_command_to_type():
    """In a repository there are fixes; in storage that is not ours nothing is changed, so there is none."""
    assert not any(rule.command for rule in BY_CODE.values())
    assert not any(rule.type for rule in of_audits.BY_CODE.values())
    assert all(rule.code.startswith("A-") for rule in of_audits.BY_CODE.values())


@EVERY
def test_a_rule_is_whole(rule: Rule):
    """It says what it means; a fix says what it does and has an executor; a reason without a fix says what to do."""
    assert rule.means.endswith(".") and rule.stuck.endswith(".")
    assert bool(wordings(rule.offers)) == bool(rule.does) == (rule.executor is not None) == (rule.type is not None)
    assert rule.type is not None or (wordings(rule.says) and rule.status in list(Status))
    assert all(BY_CODE[code].type is not None for code in rule.mended_by)
    if rule.type is None:
        assert rule.volumes is Need.NEVER and not rule.waits and not rule.all_records


def test_the_first_letter_tells_the_status_or_the_type():
    """B broken, U unknown, D and O degraded or optimize, M merge, C clean."""
    types = {"B": FixType.MEND, "O": FixType.OPTIMIZE, "M": FixType.MERGE, "C": FixType.CLEAN}
    statuses = {"B": Status.BROKEN, "U": Status.UNKNOWN, "D": Status.DEGRADED}
    for rule in BY_CODE.values():
        assert rule.type in (None, types.get(rule.code[0]))
        assert rule.status == statuses.get(rule.code[0], rule.status)


def test_every_fix_has_its_executor_and_scenarios_know_every_rule():
    """What is derived from the table is complete."""
    assert set(RUNNERS) == {rule.code for rule in BY_CODE.values() if rule.type is not None}
    assert set(schema.RULES) == set(BY_CODE)


@EVERY
def test_a_rule_is_told_in_full(rule: Rule):
    """What ``why RULE`` tells has its meaning first and what to do without a fix last."""
    labels = [label for label, _ in lines(rule)]
    assert labels[0] == "Means" and labels[-1] in ("If not", "To do")
    assert ("Does" in labels) is (rule.type is not None)


def test_the_page_of_rules_is_current():
    """docs/rules.md is what ``python -m tui.text.rules`` writes."""
    assert (ROOT / "docs" / "rules.md").read_text(encoding="utf-8") == document()
