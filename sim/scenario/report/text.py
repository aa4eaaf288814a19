"""A run in words, as lines of JSON, and as JUnit XML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from sim.scenario.report.outcome import PASSED, SKIPPED, VIOLATED, WRONG, Verdict

_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WORDS = {PASSED: "PASSED", VIOLATED: "VIOLATED", WRONG: "WRONG", SKIPPED: "NOT PLAYED"}
_REASON_CHARACTERS = 100


def printable(text: str) -> str:
    """Text from disk and from files of strangers, safe for a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def event_lines(event: dict[str, Any], names: dict[str, str], verbose: bool) -> list[str]:
    """An event as one line; with ``verbose`` its effects, one per line, numbered.

    ``names``: what to write instead of ids."""
    if "verb" not in event:
        return [printable(line) for line in str(event.get("trouble", "")).splitlines()] if verbose else []
    head = f"{event['step']:4} :{event['line']:<4} {event.get('host', ''):<6} {event['text']}"
    lines = [printable(f"{head}  {_ended(event)}".rstrip())]
    if event.get("note"):
        lines.append(printable(f"{'':18}({event['note']})"))
    if verbose:
        lines += [f"{'':18}{number:4} {name}" for number, name in enumerate(event.get("effects", ()), 1)]
    return [_named(line, names) for line in lines]


def _named(text: str, names: dict[str, str]) -> str:
    for image, name in names.items():
        text = text.replace(image, name)
    return text


def _ended(event: dict[str, Any]) -> str:
    how = event.get("how", "")
    where = f" before effect {event['number']}, {event['effect']}" if "number" in event else ""
    if how in ("killed", "frozen"):
        return f"=> {how}{where or ' with its host'}"
    if how == "failed":
        asked = f" (asked to stop{where})" if where else ""
        return f"=> {event['error']}: {event['message']}{asked}"
    if how == "done":
        rules = f": {', '.join(event['rules']) or 'no fixes'}" if "rules" in event else ""
        return f"=> done, {len(event['effects'])} effects{rules}"
    if "lost" in event:
        return f"=> lost: {'; '.join(event['lost'])}"
    told = event.get("told", "")
    if not told:
        return ""
    return f"=> {told if len(told) <= _REASON_CHARACTERS else told[: _REASON_CHARACTERS - 1] + '…'}"


def verdict_line(verdict: Verdict) -> str:
    """The verdict of one file, with the place when something is wrong."""
    word = _WORDS[verdict.result]
    if verdict.result in (PASSED, SKIPPED):
        rest = f"{verdict.path}: {verdict.message or f'{verdict.title} ({verdict.seconds:.2f} s)'}"
    else:
        rest = f"{verdict.path}:{verdict.line}: {verdict.message}"
    return printable(f"{word}  {rest}")


def summary(verdicts: Sequence[Verdict]) -> str:
    """Say in one line what came of all scenarios."""
    counts = [(word, sum(one.result == result for one in verdicts)) for result, word in _WORDS.items()]
    told = ", ".join(f"{count} {word.lower()}" for word, count in counts if count)
    return f"{len(verdicts)} scenarios: {told} ({sum(one.seconds for one in verdicts):.1f} s)"


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All of it as one document."""
    told = ("path", "title", "backend", "result", "line", "message", "seconds", "events")
    scenarios = [{name: getattr(one, name) for name in told} for one in verdicts]
    for scenario in scenarios:  # the states are for the trace: they are long
        scenario["events"] = [_without_states(event) for event in scenario["events"] if "moment" not in event]
    counts = {result: sum(one.result == result for one in verdicts) for result in _WORDS}
    return {**counts, "scenarios": scenarios}


def _without_states(event: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in ("state", "names", "now")}


def trace(verdicts: Sequence[Verdict]) -> bytes:
    """Return one JSON object per line: a head, each event, and the verdict of each scenario after its events. When the
    run was recorded (``sim.scenario.report.recording``) events have the states of the repositories that changed."""
    lines = []
    for one in verdicts:
        lines += [json.dumps({"scenario": one.path, **event}) for event in one.events]
        last = {"scenario": one.path, "backend": one.backend, "verdict": one.result}
        lines.append(json.dumps({**last, "line": one.line, "message": one.message}))
    return "".join(f"{line}\n" for line in lines).encode()


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """JUnit XML: a violated expectation is a failure, a wrong scenario an error, one that was not played is skipped."""
    counts = {result: str(sum(one.result == result for one in verdicts)) for result in _WORDS}
    suite = ElementTree.Element(
        "testsuite",
        name="diskwright scenarios",
        tests=str(len(verdicts)),
        failures=counts[VIOLATED],
        errors=counts[WRONG],
        skipped=counts[SKIPPED],
        time=f"{sum(one.seconds for one in verdicts):.3f}",
    )
    for one in verdicts:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"scenarios.{one.backend}",
            name=_xml(one.path),
            file=_xml(one.path),
            line=str(one.line or 1),
            time=f"{one.seconds:.3f}",
        )
        kind = {VIOLATED: "failure", WRONG: "error", SKIPPED: "skipped"}.get(one.result)
        if kind is not None:
            message = _xml(f"{one.path}:{one.line}: {one.message}")
            ElementTree.SubElement(case, kind, message=message).text = message
        lines = [line for event in one.events for line in event_lines(event, {}, False)]
        ElementTree.SubElement(case, "system-out").text = _xml("\n".join(lines))
    data: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _xml(text: str) -> str:
    """XML cannot have most control characters, not even escaped."""
    return _NO_XML.sub("?", text)
