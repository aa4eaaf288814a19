"""Expectations: what is so now against what the scenario says. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.api import Engine
from engine.data.model import Fix, ImageReport, RepositoryReport
from engine.doors.files import Kind
from engine.errors import DiskwrightError
from sim.scenario.language.model import Step
from sim.scenario.language.patterns import MAX_BYTES, difference
from sim.scenario.play.names import NamedImage, Names
from sim.scenario.report.outcome import ExpectationViolated, state_of


def look(names: Names, engine: Engine, step: Step) -> str:
    """A few words about what was found; ExpectationViolated when it is not as expected."""
    if step.alternatives:
        return _one_of(names, engine, step)
    try:
        return _SUBJECTS[step.subject](names, engine, step)
    except DiskwrightError as error:
        raise ExpectationViolated(step.line, f"expected an answer, found the error {error.code}: {error}") from None


def _one_of(names: Names, engine: Engine, step: Step) -> str:
    wrong = []
    for one in step.alternatives:
        try:
            return look(names, engine, one)
        except ExpectationViolated as error:
            wrong.append(error.message)
    raise ExpectationViolated(step.line, "; or ".join(wrong))


def _expect(step: Step, field: str, right: bool, found: object) -> None:
    if not right:
        wanted = step.values[field]
        raise ExpectationViolated(step.lines[field], f"expected {field} {_shown(wanted)}, found {_shown(found)}")


def _shown(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    return repr(value) if isinstance(value, str) and (not value or " " in value) else str(value)


def _inspect(engine: Engine, repo: str, step: Step) -> RepositoryReport:
    return engine.inspect_repository(repo, {"deep": step.values.get("deep", False)})


# -- an image


def _image(names: Names, engine: Engine, step: Step) -> str:
    name = step.values["image"]
    if name not in names.images and names.unmade.get(name):
        state = "gone"
        for field in ("status", "status_in"):
            if field in step.values:
                _expect(step, field, "gone" in step.values[field], state)
        return "gone: it was never made"
    image = names.of_step(step, "image")
    report = next((one for one in _inspect(engine, image.repository, step).images if one.id == image.id), None)
    state = state_of(report)
    told = f"{state}: {report.reason}" if report and report.reason else state
    if "status" in step.values:
        _expect(step, "status", state == step.values["status"], told)
    if "status_in" in step.values:
        _expect(step, "status_in", state in step.values["status_in"], told)
    if report is None:
        wanted = [field for field in step.values if field not in ("image", "in", "deep", "status", "status_in")]
        if wanted:
            raise ExpectationViolated(step.line, f"expected {wanted[0]} of an image, found nothing: it is gone")
        return "gone"
    for field, value in step.values.items():
        check = _IMAGE_FIELDS.get(field)
        if check is not None:
            found, right = check(report, value)
            _expect(step, field, right, found)
    _image_data(names, engine, step, image)
    return told


_Check = Callable[[ImageReport, Any], tuple[object, bool]]


def _says(found: str, wanted: str) -> tuple[object, bool]:
    return found, wanted in found if wanted else not found


_IMAGE_FIELDS: dict[str, _Check] = {
    "rule": lambda report, value: (report.rule, report.rule == value),
    "reason": lambda report, value: (report.reason, value.lower() in report.reason.lower()),
    "size": lambda report, value: (report.size_bytes, report.size_bytes == value),
    "used_at_most": lambda report, value: (report.used_bytes, report.used_bytes <= value),
    "used_at_least": lambda report, value: (report.used_bytes, report.used_bytes >= value),
    "strategy": lambda report, value: (str(report.strategy), report.strategy == value),
    "mutable": lambda report, value: (report.mutable, report.mutable == value),
    "last_error": lambda report, value: _says(report.operation.last_error if report.operation else "", value),
    "percent": lambda report, value: (
        report.operation.percent if report.operation else -1,
        report.operation is not None and report.operation.percent == value,
    ),
    "lost": lambda report, value: (list(report.lost), list(report.lost) == value),
}


def _image_data(names: Names, engine: Engine, step: Step, image: NamedImage) -> None:
    values = step.values
    if "busy" in values:
        busy = engine.get_image_status(image.repository, image.id).busy
        _expect(step, "busy", _says(busy, values["busy"])[1], busy)
    if "remark" in values:
        remarks = engine.get_image_status(image.repository, image.id).remarks
        _expect(step, "remark", any(values["remark"] in remark for remark in remarks), remarks)
    if "user_data" in values:
        found = engine.get_user_data(image.repository, image.id)
        _expect(step, "user_data", found == values["user_data"], found)
    if "content" in values:
        line = step.lines["content"]
        content = names.content_of(engine, image, line)
        expected = names.expected_content(engine, values["content"], line, len(content))
        wrong = difference(expected, content)
        if wrong:
            raise ExpectationViolated(line, f"the content of {values['image']} is not what was expected: {wrong}")


# -- a repository


def _repository(names: Names, engine: Engine, step: Step) -> str:
    values = step.values
    report = _inspect(engine, values["in"], step)
    states = [state_of(image) for image in report.images]
    counts = {
        "images": len([state for state in states if state not in ("removed", "hidden")]),
        "removed": states.count("removed"),
        "hidden": states.count("hidden"),
    }
    rules = sorted(fix.rule for fix in report.fixes)
    for field, count in counts.items():
        if field in values:
            _expect(step, field, count == values[field], count)
    if "fixes" in values:
        _expect(step, "fixes", sorted(values["fixes"]) == rules, rules)
    offered = {*rules, *(str(fix.type) for fix in report.fixes)}
    if "fixes_include" in values:
        _expect(step, "fixes_include", set(values["fixes_include"]) <= offered, rules)
    if "fixes_exclude" in values:
        _expect(step, "fixes_exclude", not set(values["fixes_exclude"]) & offered, rules)
    kinds = sorted({finding.kind for finding in report.findings})
    if "findings" in values:
        _expect(step, "findings", set(values["findings"]) <= set(kinds), kinds)
    if "finding" in values:
        texts = [f"{finding.subject}: {finding.text}" for finding in report.findings]
        _expect(step, "finding", any(values["finding"] in text for text in texts), texts)
    if "reclaimable_at_least" in values:
        freed = sum(fix.cost.reclaimed_bytes for fix in report.fixes if not fix.waits_for)
        _expect(step, "reclaimable_at_least", freed >= values["reclaimable_at_least"], freed)
    if "nothing_left_over" in values:
        left = [fix.rule for fix in report.fixes] + leftovers(names, engine, values["in"])
        _expect(step, "nothing_left_over", bool(left) != values["nothing_left_over"], left)
    return f"{counts['images']} images, fixes {_shown(rules)}"


def leftovers(names: Names, engine: Engine, repo: str) -> list[str]:
    """Files or volumes of a repository that no image needs."""
    repository = engine.context.repository(repo)
    if repository.format.startswith("lvm"):
        scan = repository.scan()
        records = [entry.record for entry in scan.tags.values() if entry.record]
        needed = {volume.id for record in records for volume in record.volumes()}
        return sorted([*(scan.volumes.keys() - needed), *(item.name for item in scan.litter)])
    files, root = names.backend.files, names.backend.root(repo)
    entries = repository.tags.scan().values()
    named = {f"{volume.id}.{volume.format}" for entry in entries if entry.record for volume in entry.record.volumes()}
    found = []
    for shard in files.list_directory(f"{root}/volumes"):
        if shard.kind is Kind.DIRECTORY:
            listed = files.list_directory(f"{root}/volumes/{shard.name}")
            found += [f"volumes/{shard.name}/{entry.name}" for entry in listed if entry.name not in named]
    for folder in ("tmp", "progress", "lost"):
        found += [f"{folder}/{entry.name}" for entry in files.list_directory(f"{root}/{folder}")]
    ids = {name.partition(".")[0] for name in named}
    found += [f"digests/{entry.name}" for entry in files.list_directory(f"{root}/digests") if entry.name not in ids]
    return sorted(found)


# -- a fix, a file


def _fix(names: Names, engine: Engine, step: Step) -> str:
    values = step.values
    offered = [fix for fix in _inspect(engine, values["in"], step).fixes if fix.rule == values["fix"]]
    if "image" in values:
        image = names.of_step(step, "image")
        offered = [fix for fix in offered if image.id in (fix.target, *fix.images)]
    if not offered:
        rules = sorted(fix.rule for fix in _inspect(engine, values["in"], step).fixes)
        raise ExpectationViolated(step.lines["fix"], f"expected a fix {values['fix']}, found {_shown(rules)}")
    fix: Fix = offered[0]
    if "why" in values:
        _expect(step, "why", values["why"].lower() in fix.why.lower(), fix.why)
    if "waits_for" in values:
        _expect(step, "waits_for", _says(fix.waits_for, values["waits_for"])[1], fix.waits_for)
    if "risk" in values:
        _expect(step, "risk", str(fix.risk) == values["risk"], str(fix.risk))
    if "fits" in values:
        _expect(step, "fits", fix.cost.fits == values["fits"], fix.cost.fits)
    if "reclaims_at_least" in values:
        freed = fix.cost.reclaimed_bytes
        _expect(step, "reclaims_at_least", freed >= values["reclaims_at_least"], freed)
    return fix.why


def _file(names: Names, engine: Engine, step: Step) -> str:
    path = names.file(step.values["file"], step.lines["file"])
    length = names.backend.files.stat(path).size
    if "length" in step.values:
        _expect(step, "length", length == step.values["length"], length)
    if "content" in step.values:
        line = step.lines["content"]
        expected = names.expected_content(engine, step.values["content"], line, length)
        wrong = difference(expected, names.backend.files.read_file(path, MAX_BYTES))
        if wrong:
            raise ExpectationViolated(line, f"the content of the file is not what was expected: {wrong}")
    return f"{length} bytes"


_SUBJECTS: dict[str, Callable[[Names, Engine, Step], str]] = {
    "image": _image,
    "in": _repository,
    "fix": _fix,
    "file": _file,
}
