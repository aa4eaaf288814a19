"""What the operation of a step is told: fields of the step as arguments of ``sim.scenario.backends.operations``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.scenario.backends.operations import BY_RUNNER, HERE, LATER
from sim.scenario.language.model import Step
from sim.scenario.play.names import Names

_NESTED_AT_MOST = 400


def arguments_of(names: Names, step: Step) -> dict[str, Any]:
    """Return what the operation of a step is called with."""
    values = step.values
    build = _ARGUMENTS.get(step.verb)
    if build is not None:
        return build(names, step)
    image = names.of_step(step, "disk" if "disk" in values else "image")
    return {"repo": image.repository, "image": image.id}


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """Options of the API that the fields of a step say."""
    found: dict[str, Any] = {name: values[name] for name in ("strategy", "full", "digest") if name in values}
    if "only" in values:
        found["participating_repositories"] = list(values["only"])
    return found


def _user_data(step: Step) -> Any:
    """What ``set_user_data`` sets."""
    values = step.values
    if "bytes" in values:
        return "x" * max(0, values["bytes"] - 2)
    if "nested" in values:
        data: Any = 1
        for _ in range(min(values["nested"], _NESTED_AT_MOST)):
            data = [data]
        return data
    return values["data"]


def _work(values: dict[str, Any]) -> str:
    if values.get("by_runner"):
        return BY_RUNNER
    return HERE if values.get("auto_fix", True) else LATER


def _create_disk(names: Names, step: Step) -> dict[str, Any]:
    values = step.values
    base = names.image(values["base"], step.lines["base"]) if "base" in values else None
    options = _options(values)
    if base is not None and base.repository != values["in"]:
        options["image_hints"] = {base.id: base.repository}
    return {
        "repo": values["in"], "size": values["size"], "base": base.id if base else None,
        "user_data": values.get("user_data"), "options": options, "work": _work(values),
    }  # fmt: skip


def _create_snapshot(names: Names, step: Step) -> dict[str, Any]:
    disk = names.of_step(step, "of")
    values = step.values
    return {
        "repo": disk.repository, "disk": disk.id, "user_data": values.get("user_data"), "options": _options(values),
    }  # fmt: skip


def _create_snapshot_group(names: Names, step: Step) -> dict[str, Any]:
    values = step.values
    disks = [names.image(disk, step.lines["disks"]) for disk in values["disks"]]
    return {
        "repo": disks[0].repository, "disks": [disk.id for disk in disks], "user_data": values.get("user_data"),
        "options": _options(values),
    }  # fmt: skip


def _copy(names: Names, step: Step) -> dict[str, Any]:
    values = step.values
    image = names.image(values["image"], step.lines["image"])
    base = names.image(values["base"], step.lines["base"]) if "base" in values else None
    options = _options(values)
    if "hint" in values:
        options["image_hints"] = {image.id: values["hint"]}
    return {
        "repo": values["to"], "image": image.id, "base": base.id if base else None,
        "user_data": values.get("user_data"), "options": options, "work": _work(values),
    }  # fmt: skip


def _import(names: Names, step: Step) -> dict[str, Any]:
    values = step.values
    return {
        "repo": values["in"], "path": names.file(values["file"], step.lines["file"]), "format": values["format"],
        "user_data": values.get("user_data"), "options": _options(values), "work": _work(values),
    }  # fmt: skip


def _export(names: Names, step: Step) -> dict[str, Any]:
    image = names.of_step(step, "image")
    path = names.backend.scratch(step.values["as"])
    return {"repo": image.repository, "image": image.id, "path": path, "format": step.values.get("format", "raw")}


def _set_user_data(names: Names, step: Step) -> dict[str, Any]:
    image = names.of_step(step, "image")
    return {"repo": image.repository, "image": image.id, "data": _user_data(step)}


def _resize(names: Names, step: Step) -> dict[str, Any]:
    disk = names.of_step(step, "disk")
    return {"repo": disk.repository, "disk": disk.id, "size": step.values["size"]}


def _set_strategy(names: Names, step: Step) -> dict[str, Any]:
    image = names.of_step(step, "image")
    return {"repo": image.repository, "image": image.id, "strategy": step.values["strategy"]}


def _fix(names: Names, step: Step) -> dict[str, Any]:
    values = step.values
    given = None
    if "from" in values:
        if values["from"] not in names.fixes:
            raise names.impossible(step.line, f"no fixes were kept as {values['from']}")
        given = [{**fix, **values.get("change", {})} for fix in names.fixes[values["from"]]]
    return {
        "repo": values["in"], "kind": values.get("rule") or values.get("type", ""),
        "image": names.of_step(step, "image").id if "image" in values else "",
        "lose_data": values.get("lose_data", False), "deep": values.get("deep", False), "given": given,
        "nth": values.get("nth", 0),
    }  # fmt: skip


def _write(names: Names, step: Step) -> dict[str, Any]:
    image = names.of_step(step, "disk")
    values = step.values
    piece = [values["pattern"], values.get("at", 0), values["length"], values.get("every", 0), values.get("times", 1)]
    return {"repo": image.repository, "disk": image.id, "pieces": [piece]}


def _prepare(names: Names, step: Step) -> dict[str, Any]:
    image = names.of_step(step, "image")
    writable, take_over = step.values.get("writable", True), step.values.get("take_over", False)
    return {"repo": image.repository, "image": image.id, "writable": writable, "take_over": take_over}


def _connect(names: Names, step: Step) -> dict[str, Any]:
    name = step.values["repository"]
    plan = next(plan for plan in names.scenario.repositories if plan.name == name)
    found = {"repo": name, "format": plan.format, "parameters": names.backend.parameters(name)}
    return found | {"accept_moved": step.values.get("accept_moved", False)}


def _only_repository(names: Names, step: Step) -> dict[str, Any]:
    return {"repo": step.values["repository"]}


_ARGUMENTS: dict[str, Callable[[Names, Step], dict[str, Any]]] = {
    "create_disk": _create_disk,
    "create_snapshot": _create_snapshot,
    "create_snapshot_group": _create_snapshot_group,
    "copy": _copy,
    "import": _import,
    "export": _export,
    "set_user_data": _set_user_data,
    "resize": _resize,
    "set_strategy": _set_strategy,
    "check": lambda names, step: {"repo": step.values["in"], "deep": step.values.get("deep", False)},
    "fix": _fix,
    "write": _write,
    "prepare": _prepare,
    "connect": _connect,
    "disconnect": _only_repository,
    "take_srm": lambda names, step: {"repo": step.values["repository"], "dead": step.values.get("dead", "")},
    "release_srm": _only_repository,
}
