"""An engine whose verbs are noted in the history of this host: what the command line and the console work with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from engine.api import Engine
from engine.data.adoption import Plan
from engine.data.amounts import human
from engine.data.model import Fix
from engine.doors import Doors
from engine.errors import DiskwrightError, Stopped
from engine.host.state import Prepared, Task
from tui.notes import Notes, notes_of
from tui.text.words import doing
from tui.work.history import GROUP, Entry, History, user_name

_NAMES = 50
"""Of so many images of one task the names are looked up."""
_MAKE = ("create-disk", "copy", "import")
"""Verbs that are entered under what they make, which their user data names."""
_MAKE_BESIDE = ("create-snapshot", "revert")
"""Verbs that are entered under a disk, and make a snapshot of it, which their user data names."""

P = ParamSpec("P")
T = TypeVar("T")


def _noted(verb: str, method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[NotedEngine, P], T]:
    """``method`` of an engine, noted as ``verb`` with what it was called with and what came of it."""
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]

    @wraps(method)
    def call(engine: NotedEngine, /, *args: P.args, **kwargs: P.kwargs) -> T:
        entry = _begun(engine, verb, dict(zip(names, args, strict=False)) | kwargs)
        with engine.noting(entry) as told:
            result = method(engine, *args, **kwargs)
            told(result)
        return result

    return call


class NotedEngine(Engine):
    """An engine for people. A history that cannot be written keeps nobody from working."""

    def __init__(self, doors: Doors, state_directory: str, face: str) -> None:
        super().__init__(doors, state_directory)
        self.face = face
        """Whom the history names as the one who was used: command, console, "run 90aa"."""
        self.notes: Notes = notes_of(self)
        self.history = History(self.notes)

    create_repository = _noted("create-repo", Engine.create_repository)
    connect_storage_repository = _noted("connect", Engine.connect_storage_repository)
    disconnect_storage_repository = _noted("disconnect", Engine.disconnect_storage_repository)
    take_srm = _noted("srm take", Engine.take_srm)
    release_srm = _noted("srm release", Engine.release_srm)
    create_virtual_disk = _noted("create-disk", Engine.create_virtual_disk)
    create_snapshot = _noted("create-snapshot", Engine.create_snapshot)
    create_snapshot_group = _noted(GROUP, Engine.create_snapshot_group)
    copy_image = _noted("copy", Engine.copy_image)
    resize_disk = _noted("resize", Engine.resize_disk)
    revert_disk = _noted("revert", Engine.revert_disk)
    remove_image = _noted("remove", Engine.remove_image)
    restore_image = _noted("restore", Engine.restore_image)
    fix_storage_repository = _noted("fix", Engine.fix_storage_repository)
    run_fixes = _noted("fix", Engine.run_fixes)
    run_fix_here = _noted("fix", Engine.run_fix_here)
    stop_task = _noted("stop", Engine.stop_task)
    limit_task = _noted("rate", Engine.limit_task)
    set_user_data = _noted("user-data", Engine.set_user_data)
    rename_image = _noted("rename", Engine.set_user_data)
    """As ``set_user_data``, of user data in which the name alone differs."""
    set_strategy = _noted("strategy", Engine.set_strategy)
    verify_image = _noted("verify", Engine.verify_image)
    record_digest = _noted("digest", Engine.record_digest)
    import_image = _noted("import", Engine.import_image)
    adopt_images = _noted("adopt", Engine.adopt_images)
    name_import_file = _noted("name the file of an import", Engine.name_import_file)
    export_image = _noted("export", Engine.export_image)
    stream_image = _noted("export", Engine.stream_image)
    prepare_image = _noted("prepare", Engine.prepare_image)
    attach_monitor = _noted("attach", Engine.attach_monitor)
    teardown_image = _noted("teardown", Engine.teardown_image)

    def name_of(self, repo_id: str, image: str) -> str:
        """The name of an image, "" when it has none or cannot be read; one record is read."""
        if not image or not repo_id:
            return ""
        with contextlib.suppress(DiskwrightError):
            entry = self.context.repository(repo_id).tags.read(image)
            return entry.record.name if entry is not None and entry.record is not None else ""
        return ""

    @contextlib.contextmanager
    def lend_image(self, repo_id: str, image_id: str, writable: bool = True) -> Iterator[tuple[Prepared, list[int]]]:
        """As ``Engine.lend_image``; the end of the program is the end of what is noted."""
        entry = _begun(self, "prepare", {"repo_id": repo_id, "image_id": image_id, "writable": writable})
        with self.noting(entry), super().lend_image(repo_id, image_id, writable) as found:
            yield found

    def begin(self, verb: str, repo_id: str, **more: Any) -> Entry:
        """An entry for something that begins now."""
        return Entry(self.doors.clock.wall(), user_name(), self.doors.ids.host_id, self.face, verb, repo_id, **more)

    def went_on(self, verb: str, repo_id: str, id: str, about: dict[str, Any], **more: Any) -> None:
        """Note work that was begun and goes on under that id; ``about``: how ``tui.work.away`` finds out of its end."""
        self._add(self.begin(verb, repo_id, result="started", task=id, **more), about)

    @contextlib.contextmanager
    def noting(self, entry: Entry) -> Iterator[Callable[[object], None]]:
        """Note what comes of the block. What it returns is to be told to the function that this gives."""
        results: list[object] = []
        try:
            yield results.append
        except DiskwrightError as error:
            result = "stopped" if isinstance(error, Stopped) else "failed"
            self._add(entry._replace(result=result, error=error.message, code=error.code))
            raise
        except KeyboardInterrupt:
            self._add(entry._replace(result="interrupted"))
            raise
        except BaseException as error:
            self._add(entry._replace(result="failed", error=f"{type(error).__name__} {error}", code="internal"))
            raise
        for told, work in _told(self, entry, results[0] if results else None):
            self._add(told, work)

    def _add(self, entry: Entry, work: dict[str, Any] | None = None) -> None:
        seconds = max(0.0, self.doors.clock.wall() - entry.when)
        with contextlib.suppress(DiskwrightError):
            self.history.add(entry._replace(seconds=round(seconds, 3)), work)


def _begun(engine: NotedEngine, verb: str, given: dict[str, Any]) -> Entry:
    """The entry of a verb that was called with these arguments."""
    repo_id = str(given.get("repo_id") or given.get("target_repo_id") or "")
    image = str(given.get("image_id") or given.get("base_virtual_disk_id") or "")
    entry = engine.begin(verb, repo_id)
    wanted = list(given.get("wanted") or ())
    fix = wanted[0] if len(wanted) == 1 else given.get("fix")
    if isinstance(fix, Fix):
        image, entry = fix.target, entry._replace(verb=f"fix {doing(fix.rule, str(fix.type))}", text=fix.rule)
    elif wanted:
        entry = entry._replace(text=" ".join(each.rule for each in wanted))
    else:
        entry = entry._replace(text=_details({**given, "path": ""} if verb == "teardown" else given))
    named, known = _named(given.get("user_data")), engine.name_of(repo_id, image)
    if verb in _MAKE:
        return entry._replace(image=image, name=named or known)
    if verb == GROUP:
        disks = [engine.name_of(repo_id, str(disk)) or str(disk)[:8] for disk in given.get("disk_ids") or ()]
        return entry._replace(name=named, text=" ".join(filter(None, (*disks, entry.text))))
    if verb == "create-snapshot":
        entry = entry._replace(text=" ".join(filter(None, (named, entry.text))))
    if verb in ("rename", "user-data") and named != known:
        entry = entry._replace(text=f"{known or image[:8]} → {named or image[:8]}")
    return entry._replace(image=image, name=known)


def _details(given: dict[str, Any]) -> str:
    """What is worth knowing besides the image."""
    words = []
    if isinstance(given.get("size"), int):
        words.append(human(given["size"]))
    if given.get("repo_format"):
        words.append(str(given["repo_format"]))
        words += [f"{key}={value}" for key, value in dict(given.get("connection_parameters") or {}).items()]
    words += [f"base {given[key]}" for key in ("base_snapshot_id", "base_image_id") if given.get(key)]
    words += [str(given[key]) for key in ("path", "format", "strategy") if given.get(key)]
    words += [item.path for item in plan.images if item.mutable] if isinstance(plan := given.get("plan"), Plan) else []
    words += [f"{given['dead_host']} is dead"] if given.get("dead_host") else []
    words += ["read-only"] if given.get("writable") is False else []
    return " ".join(words)


def _named(data: object) -> str:
    """The name in user data, "" when there is none."""
    return str(data.get("name") or "") if isinstance(data, dict) else ""


def _told(engine: NotedEngine, entry: Entry, result: object) -> list[tuple[Entry, dict[str, Any] | None]]:
    """The entry with what the verb returned, and the work that goes on; of several disks one entry for each."""
    if isinstance(result, dict) and entry.verb == GROUP:
        named = {disk: engine.name_of(entry.repo_id, disk) for disk in result}
        return [
            (entry._replace(image=disk, name=named[disk], text=entry.name, made=snapshot), None)
            for disk, snapshot in result.items()
        ]
    task = result if isinstance(result, Task) else None
    if entry.verb in _MAKE_BESIDE:
        entry = entry._replace(made=str(result))
    if entry.verb in _MAKE:
        entry = entry._replace(image=str(result), name=entry.name or engine.name_of(entry.repo_id, str(result)))
        task = _begun_for(engine, lambda task: task.image == result)
    if isinstance(result, dict) and entry.verb == "adopt":
        task = _begun_for(engine, lambda task: not {*result.values()}.isdisjoint(task.images))
    if task is None:
        return [(entry, None)]
    names = {image: name for image in task.images[:_NAMES] if (name := engine.name_of(entry.repo_id, image))}
    return [(entry._replace(result="started", task=task.id), {"task": task._asdict(), "names": names})]


def _begun_for(engine: NotedEngine, wanted: Callable[[Task], bool]) -> Task | None:
    """The work that goes on with what a verb has made."""
    with contextlib.suppress(DiskwrightError):
        return next(filter(wanted, engine.list_tasks()), None)
    return None
