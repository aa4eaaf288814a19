"""What is told of a rule: by ``diskwright why RULE``, and in docs/rules.md, which this module writes.

``python -m tui.text.rules >docs/rules.md``. The facts are those of the tables in ``engine.triage.rules`` and, for what
an audit finds, ``engine.audit.rules``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from engine.audit import rules as of_audits
from engine.data.model import FixType, Risk, WaitKind
from engine.triage.rules import BY_CODE, wordings
from engine.triage.shape import Leases, Need, Rule

EVERY: Mapping[str, Rule] = {**BY_CODE, **of_audits.BY_CODE}
"""All rules, those of audits last."""

_RISKS = {
    Risk.REVERSIBLE: "it can be stopped, and nothing that was there before is lost",
    Risk.REWRITES_BASE: "it overwrites a base that nothing else needs; it needs --irreversible",
    Risk.IRREVERSIBLE: "what it deletes or overwrites does not come back; it needs --irreversible",
    Risk.LOSES_DATA: "data is lost for good; it needs --irreversible",
}
_TYPES = {
    FixType.MEND: "mend: makes a broken image usable",
    FixType.CLEAN: "clean: frees what nothing needs",
    FixType.MERGE: "merge: makes a chain shorter",
    FixType.OPTIMIZE: "optimize: a better representation of a usable image",
}
_WAITS = {
    WaitKind.ROOM: "free space",
    WaitKind.SOURCE: "the image or file to copy from",
    WaitKind.PATH: "an operator to name its file on this host (--path)",
    WaitKind.BASE: "its base",
    WaitKind.REPLICA: "a connected repository with the same snapshot intact",
    WaitKind.HOST: "a host that may still write to the volume",
    WaitKind.RECORD: "a record that cannot be understood",
    WaitKind.DATA: "data that cannot be seen now",
}
_LEASES = {
    Leases.NONE: "it is about no image; each file is looked at again",
    Leases.TARGET: "nobody else may use the image",
    Leases.IMAGES: "nobody else may use the images that it names",
}
_SRM = {
    Need.SOMETIMES: "the manager (SRM) of a managed repository, if volumes are made or removed",
    Need.ALWAYS: "the manager (SRM) of a managed repository",
}
_DEEP = {Need.SOMETIMES: "check --deep, if that found it", Need.ALWAYS: "check --deep, which alone finds it"}


def lines(rule: Rule) -> list[tuple[str, str]]:
    """Return what is to be told of a rule as (label, sentence), the most important first."""
    found = [("Means", rule.means), ("Status", rule.status)]
    found += [("Says", f'"{text}"') for text in wordings(rule.says)]
    if rule.type is not None:
        found.append(("Fix", _TYPES[rule.type]))
        found += [("Offers", f'"{text}"') for text in wordings(rule.offers)]
        found += [("Does", rule.does), ("Risk", f"{rule.risk}: {_RISKS[rule.risk]}"), ("Needs", _needs(rule))]
        found.append(("Waits", "; ".join(_WAITS[kind] for kind in _waits(rule))))
    elif rule.mended_by:
        found.append(("Fix", f"by the rules {' and '.join(rule.mended_by)}"))
    if rule.command:
        found.append(("There", "`" + " ".join(word or "''" for word in rule.command) + "`"))
    found.append(("If not" if not rule.code.startswith("A") else "To do", rule.stuck))
    return [(label, text) for label, text in found if text]


def _needs(rule: Rule) -> str:
    parts = (_LEASES[rule.leases], _SRM.get(rule.volumes, ""), _DEEP.get(rule.deep, ""))
    return "; ".join(part for part in parts if part)


def _waits(rule: Rule) -> tuple[WaitKind, ...]:
    return rule.waits if rule.type is FixType.CLEAN else (WaitKind.ROOM, *rule.waits)


def as_data(rule: Rule) -> dict[str, Any]:
    """Return a rule as JSON data."""
    return {
        "rule": rule.code,
        "status": rule.status,
        "means": rule.means,
        "says": wordings(rule.says),
        "type": rule.type,
        "offers": wordings(rule.offers),
        "does": rule.does,
        "if_not": rule.stuck,
        "risk": rule.risk if rule.type else None,
        "needs_srm": rule.volumes if rule.type else None,
        "deep": rule.deep,
        "waits_for": _waits(rule) if rule.type else (),
        "mended_by": rule.mended_by,
        "command": rule.command,
    }


_HEAD = """\
# The rules

Each status has a rule as its reason, and each fix is offered by one. `diskwright why RULE` tells the same of one rule.
B: broken, U: unknown, D and O: degraded, M: merge, C: clean. Words in braces are filled in.
A: what [an audit](audit.md) finds in storage that is no repository, with the command that would mend it there.

Generated from the tables in `engine/triage/rules.py` and `engine/audit/rules.py`; a test compares them.
"""


def document() -> str:
    """Return docs/rules.md."""
    parts = [_HEAD]
    for rule in EVERY.values():
        parts.append(f"## {rule.code}\n\n" + "\n".join(f"* **{label}**: {text}" for label, text in lines(rule)) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(document())
