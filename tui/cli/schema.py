"""The schema of what ``--json`` prints, by command: JSON Schema 2020-12, as ``diskwright help json --json`` gives it.

Made of the types that the documents are made of, so a field that is added is in it. A document may have more than the
schema says; what is required there stays, with its meaning, within a version.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from engine.data.adoption import Planned
from engine.data.model import Constraints, Finding, Fix, FixCost, ImageReport, OperationStatus, Wait
from tui.text.statuses import SHOWN
from tui.view.facts import Fact
from tui.view.machines import UserRow
from tui.view.why import Line
from tui.work.history import Entry

VERSION = 1
_TEXT, _WHOLE, _YES, _ANY = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, dict[str, Any]()
_NUMBER = {"type": "number"}
_PLAIN: Mapping[Any, dict[str, Any]] = {str: _TEXT, int: _WHOLE, float: _NUMBER, bool: _YES, NoneType: {"type": "null"}}

Schema = dict[str, Any]


def schema() -> Schema:
    """The schema of all documents; each command's is in ``$defs`` under its name, that of errors under ``error``."""
    documents = _documents()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"What diskwright --json prints, version {VERSION}",
        "version": VERSION,
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in documents],
        "$defs": documents,
    }


def of(command: str) -> Schema:
    """The schema of what one command prints, errors aside."""
    return {**schema(), "anyOf": [{"$ref": f"#/$defs/{command}"}]}


# -- parts


def _object(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _texts(*names: str) -> dict[str, Schema]:
    return dict.fromkeys(names, _TEXT)


def _array(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _or_null(other: Schema) -> Schema:
    return {"anyOf": [other, {"type": "null"}]}


def _map_of(of: Schema) -> Schema:
    return {"type": "object", "additionalProperties": of}


def _tuple(kind: Any, without: tuple[str, ...] = ()) -> dict[str, Schema]:
    """The fields of a NamedTuple as ``_asdict`` gives them."""
    return {name: _typed(hint) for name, hint in get_type_hints(kind).items() if name not in without}


def _typed(hint: Any) -> Schema:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return {"anyOf": [_typed(item) for item in inside]}
    if origin is tuple:
        return _array(_typed(inside[0]))
    if origin is dict:
        return {"type": "object"}
    if hasattr(hint, "_fields"):
        return _object(_tuple(hint))
    return _PLAIN.get(hint, _TEXT)  # an enumeration of words


def _image() -> dict[str, Schema]:
    fields = _tuple(ImageReport, ("hidden", "operation"))
    return {
        **fields,
        "status": {"enum": [str(state) for state in SHOWN]},
        "operation": _or_null(_object(_tuple(OperationStatus))),
        "kind": {"enum": ["disk", "snapshot"]},
        "running": _or_null(_object({"who": _TEXT, "percent": _WHOLE})),
        "usable": _YES,
    }


def _fix() -> Schema:
    fields = _tuple(Fix) | {"cost": _object(_tuple(FixCost)), "wait": _or_null(_object(_tuple(Wait)))}
    return _object({**fields, "waits_for": _TEXT})


# -- documents


def _documents() -> dict[str, Schema]:
    return {
        "error": _object({"error": _object(_texts("code", "message", "next_step"))}),
        **_of_repositories(),
        **_of_images(),
        **_of_looking(),
        **_of_fixing(),
        **_of_using(),
    }


def _of_repositories() -> dict[str, Schema]:
    place = {**_texts("format"), "parameters": {"type": "object"}}
    repository = _object({**place, **_texts("name", "problem"), "total_bytes": _WHOLE, "free_bytes": _WHOLE})
    return {
        "create-repo": _object(place),
        "connect": _object(
            {**place, "repository": _TEXT, "warnings": _array(_TEXT)}, differs=_array(_TEXT)
        ),
        "disconnect": _object({"repository": _TEXT, "connected": _YES}),
        "repos": _object({"host": _TEXT, "repositories": _array(repository)}),
        "constraints": _object(_tuple(Constraints)),
        "srm": _object({**_texts("repository", "manager"), "srm": _YES}),
    }  # fmt: skip


def _of_images() -> dict[str, Schema]:
    one = _texts("repository", "image")
    begun = {"detached": _YES, "status": _object(_image())}
    return {
        "create-disk": _object(one, **begun),
        "create-snapshot": _object({**one, "disk": _TEXT}),
        "create-snapshot-group": _object({"repository": _TEXT, "snapshots": _array(_object(_texts("disk", "image")))}),
        "copy": _object(one, **begun),
        "resize": _object({**one, "size_bytes": _WHOLE, "was_bytes": _WHOLE}),
        "revert": _object({**one, **_texts("snapshot", "kept")}),
        "import": _object({**one, "remarks": _array(_TEXT)}, **begun),
        "adopt": _object(
            {
                "repository": _TEXT,
                "plan": _array(_object(_tuple(Planned))),
                "refused": _array(_object(_texts("path", "reason"))),
                "images": _array(_object(_texts("image", "path"), status=_TEXT)),
            },
            detached=_YES,
        ),
        "export": _object({**one, **_texts("file", "format")}),
        "remove": _object({**one, "removed": _YES}),
        "restore": _object({**one, "removed": _YES}),
        "rename": _object({**one, "name": _TEXT}),
        "user-data": _ANY,
        "strategy": _object({**one, "strategy": _TEXT}),
        "digest": _object({**one, "digest": _TEXT}),
    }


def _of_looking() -> dict[str, Schema]:
    task = {"id": _TEXT, "pid": _WHOLE, "verb": _TEXT}
    return {
        "images": {
            "anyOf": [
                _object(_listed()),
                _object(
                    {"repository": _TEXT, "families": _array(_family())},
                    incomplete=_array(_object(_texts("name", "reason"))),
                ),
            ]
        },
        "status": _object(
            {"repository": _TEXT, **_image(), "task": _or_null(_object(task)), "prepared": _array(_object(_machine()))},
            asked=_array(_TEXT),
        ),
        "why": {"anyOf": [_object(_explained()), _object(_texts("rule", "means", "if_not"))]},
        "check": _object(_checked()),
        "tasks": _object(
            {
                "host": _TEXT,
                "tasks": _array(
                    _object(
                        {
                            **task,
                            **_texts("repository", "image", "name", "rule", "log"),
                            "percent": _WHOLE,
                            "started": _NUMBER,
                            "rate": _WHOLE,
                        }
                    )
                ),
                "prepared": _array(_object(_machine())),
                "unheld": _array(_object(_machine())),
            }
        ),
        "log": _object({"host": _TEXT, "entries": _array(_object(_tuple(Entry)))}),
        "audit": _object({"images": _array({"type": "object"})}),
        "help": _object({"help": _TEXT}),
        "completion": _object(_texts("shell", "script")),
    }


def _machine() -> dict[str, Schema]:
    return {
        **_texts("repository", "image", "name", "path", "format", "monitor", "state", "work", "problem"),
        "writable": _YES,
        "pid": _WHOLE,
        "since": _NUMBER,
        "users": _array(_object(_tuple(UserRow))),
        "below": _array(_object(_texts("image", "name"))),
    }


def _listed() -> dict[str, Schema]:
    return {"repository": _TEXT, "images": _array(_object(_image()))}


def _checked() -> dict[str, Schema]:
    return {
        **_listed(),
        "fixes": _array(_fix()),
        "names": _map_of(_TEXT),
        "findings": _array(_object(_tuple(Finding))),
        "total_bytes": _WHOLE,
        "free_bytes": _WHOLE,
    }


def _explained() -> dict[str, Schema]:
    return {
        "repository": _TEXT,
        **_image(),
        "impact": _TEXT,
        "waiting_images": _array(_TEXT),
        "explanation": _array(_object(_tuple(Line))),
        "evidence": _array(_object(_tuple(Fact))),
        "fixes": _array(_fix()),
        "next_steps": _array(_TEXT),
    }


def _family() -> Schema:
    member = _texts("id", "name", "status", "kind", "stands_on")
    member |= dict.fromkeys(("size_bytes", "own_bytes", "shared_bytes"), _WHOLE)
    return _object({"own_bytes": _WHOLE, "images": _array(_object(member))}, repository=_TEXT)


def _of_fixing() -> dict[str, Schema]:
    repository = {"repository": _TEXT}
    left = _array(_object(_texts("fix", "rule", "image", "name", "why")))
    failed = _array(_object({key: _or_null(_TEXT) for key in ("fix", "image", "code", "error", "name")}))
    done = {"done": _array(_TEXT), "outdated": _array(_TEXT), "failed": failed, "left": left}
    task = _or_null(_object({"id": _TEXT, "pid": _WHOLE}))
    plan = _plan()
    ran = _object({**repository, **_texts("plan", "run")}, state=_TEXT, summary=_TEXT)
    return {
        "plan": plan,
        "fix": {
            "anyOf": [
                _object({**repository, **done}),
                _object({**repository, "started": _array(_TEXT), "task": task}),
                _object({**repository, "detached": _YES}),
                ran,
                plan,
            ]
        },
        "stop": _object({**repository, "image": _TEXT, "stopped": _YES}),
        "rate": _object({**repository, "image": _TEXT, "rate": _WHOLE}),
    }


def _plan() -> Schema:
    amounts = ("free_bytes", "lowest_free_bytes", "lowest_at_step", "free_bytes_after", "total_bytes", "reserve_bytes")
    time = _object({"low_s": _or_null(_NUMBER), "high_s": _or_null(_NUMBER), "source": _TEXT})
    step = {
        "fix": _fix(),
        **_texts("name", "undo"),
        **dict.fromkeys(("free_bytes_before", "lowest_free_bytes", "free_bytes_after"), _WHOLE),
        "time": time,
        "after_steps": _array(_WHOLE),
    }
    return _object(
        {
            **_texts("repository", "plan", "host", "refused"),
            **dict.fromkeys((*amounts, "missing_bytes"), _WHOLE),
            **dict.fromkeys(("made_at", "seen_at"), _NUMBER),
            **dict.fromkeys(("status_before", "status_after"), _map_of(_WHOLE)),
            **dict.fromkeys(("moved", "live", "left", "never_undone"), _array(_TEXT)),
            "time": time,
            "steps": _array(_object(step)),
            "skipped": _array(_object({"fix": _fix(), **_texts("name", "why")})),
            "runnable": _YES,
            "offers": _array(_object(_texts("fix", "text"))),
        }
    )


def _of_using() -> dict[str, Schema]:
    one = _texts("repository", "image")
    demo = {"path": _TEXT, "created": _YES, "names": _map_of(_TEXT), "next": _array(_TEXT)}
    return {
        "prepare": _object(
            {**one, **_texts("path", "format"), "writable": _YES, "pid": _WHOLE}, print=_TEXT, monitor=_TEXT
        ),
        "attach": _object({**one, **_texts("path", "monitor")}),
        "teardown": _object({**one, "prepared": _YES}),
        "hook": _object({"path": _TEXT, **dict.fromkeys(("installed", "changed"), _YES)}),
        "demo": _object({**_checked(), **demo}),
        "tui": _ANY,
        "sim": _ANY,
        "lab": _ANY,
    }
