"""Making and changing images: what is asked for before, the verb itself, and what is told and shown after it.

The verbs are the engine's, called beside the console; each is durable when it returns. What cannot be undone is not
among them: a removed image can be restored until a clean fix has run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from engine.data.model import WaitKind
from engine.data.monitors import has_agent
from engine.errors import BadRequest
from tui.cli.arguments import parse_size
from tui.cli.session import ImageNames, absolute, renamed
from tui.console.control.scanning import rescan
from tui.console.dialogs.confirm import Ask
from tui.console.dialogs.fields import Form, FormField
from tui.console.shell import Shell, Where
from tui.text.printable import name_shown, printable
from tui.text.statuses import State
from tui.view.command_lines import line
from tui.view.fixes import FixRow
from tui.view.images import ImageRow
from tui.view.machines import MachineRow

_SHOWN = 6
"""Of several disks."""


def create(shell: Shell) -> None:
    """Ask for name, size and base, then create a virtual disk."""
    repo = shell.site.current
    fields = (
        FormField("name", "none, or what to call it"),
        FormField("size", "100M, 10G, 1.5T; bytes without a letter", "10G"),
        FormField("base", "none, or a snapshot to begin with: its name or id"),
    )

    def attempt(values: Mapping[str, str]) -> str:
        size = parse_size(values["size"])
        data = renamed(None, values["name"]) if values["name"] else None
        with shell.site.engine() as engine:
            base = ImageNames(engine).anywhere(values["base"], home=repo) if values["base"] else None
            return engine.create_virtual_disk(repo, size, base, data)

    def told(image: str, values: Mapping[str, str]) -> None:
        _log(shell, "create_disk", **{**values, "repo": repo})
        _show(shell, image, f"The disk {values['name'] or image[:8]} was created.")
        _tell_namesakes(shell, repo, image, values["name"])

    _ask(shell, f"New disk in {repo}", fields, "Create", attempt, told)


def snapshot(shell: Shell, row: ImageRow) -> None:
    """Ask for a name, then freeze the present content of a disk."""
    repo = shell.site.current

    shown = f"{row.name} (snapshot)" if row.name else ""

    def attempt(values: Mapping[str, str]) -> str:
        with shell.site.engine() as engine:
            data = engine.get_user_data(repo, row.id)
            name = _meant(values["name"], shown, data, " (snapshot)")
            options = {"quiesce": _quiesced(values)}
            return engine.create_snapshot(repo, row.id, renamed(data, name) if name else None, options)

    def told(image: str, values: Mapping[str, str]) -> None:
        quiesce = "yes" if _quiesced(values) else ""
        _log(shell, "snapshot", repo=repo, image=row.id, name=values["name"], quiesce=quiesce)
        _show(shell, image, f"The snapshot {values['name'] or image[:8]} of {row.label} was made.")
        _tell_namesakes(shell, repo, image, values["name"])

    fields = (
        FormField("name", "none, or what to call it", shown),
        *_agent_fields([shell.site.view.machine_above(row.id)]),
    )
    _ask(shell, f"Snapshot of {row.label}", fields, "Make it", attempt, told, "No data is copied; the disk goes on.")


def snapshot_group(shell: Shell, rows: Sequence[ImageRow], then: Callable[[], None]) -> None:
    """Say what happens to whom, and ask for a name; then freeze several disks at one moment. ``then``: they are."""
    site, repo = shell.site, shell.site.current
    disks = [row.id for row in rows]

    def attempt(values: Mapping[str, str]) -> str:
        with site.engine() as engine:
            data = renamed(None, values["name"]) if values["name"] else None
            return engine.create_snapshot_group(repo, disks, data, {"quiesce": _quiesced(values)})[disks[0]]

    def told(image: str, values: Mapping[str, str]) -> None:
        quiesce = "yes" if _quiesced(values) else ""
        _log(shell, "snapshot_group", repo=repo, images=" ".join(disks), name=values["name"], quiesce=quiesce)
        then()
        _show(shell, image, f"Snapshots of {len(disks)} disks were made, all of one moment.")

    used = {row.id: next((one for one in site.view.machines_of(row.id) if one.writable), None) for row in rows}
    text = group_text([(row.label, used[row.id]) for row in rows])
    fields = (FormField("name", "none, or what to call each of them"), *_agent_fields(used.values()))
    _ask(shell, f"Snapshots of {len(rows)} disks", fields, "Make them", attempt, told, *text)


def group_text(disks: Sequence[tuple[str, MachineRow | None]]) -> list[str]:
    """What a snapshot of several disks does to each, by who uses it; first what holds of all."""
    text = ["All are of one moment, and all are made, or none. No data is copied."]
    for label, machine in disks[:_SHOWN]:
        if machine is None:
            does = "nobody uses it; until all are made nobody can"
        elif machine.monitor:
            does = f"{machine.who or 'its machine'} goes on in a new layer: a guest waits as for a few writes"
        else:
            does = f"{machine.in_brief}: no monitor is known, so none is made (5, then m, names it)"
        text.append(f"{label}: {does}")
    if (more := len(disks) - _SHOWN) > 0:
        text.append(f"and {more} more")
    monitors = {machine.monitor for _, machine in disks if machine is not None and machine.monitor}
    if len(monitors) > 1:
        text.append(f"They have {len(monitors)} machines, for which no moment is the same: none is made.")
    return text


def _agent_fields(machines: Iterable[MachineRow | None]) -> tuple[FormField, ...]:
    """Whether the guest of running disks is to be frozen, where its agent is known."""
    told = [machine.monitor for machine in machines if machine is not None and machine.monitor]
    with contextlib.suppress(BadRequest):  # a note is of a program that knows other monitors
        if any(has_agent(monitor) for monitor in told):
            return (FormField("quiesce", "yes: its guest agent freezes the file systems for that"),)
    return ()


def _quiesced(values: Mapping[str, str]) -> bool:
    return values.get("quiesce", "").lower() in ("y", "yes")


def copy(shell: Shell, row: ImageRow) -> None:
    """Ask where to and with which base, then copy an image; the data is copied by a process of its own."""
    site, repo = shell.site, shell.site.current
    mark = " (copy)" if row.kind == "disk" else ""
    shown = f"{row.name}{mark}" if row.name else ""
    fields = (
        FormField("to", f"a repository: {', '.join(site.names())}", repo),
        FormField("name", "what to call it there", shown),
        FormField("base", "none, or an image there: only what differs is copied"),
    )

    def attempt(values: Mapping[str, str]) -> str:
        if values["to"] not in site.names():
            raise BadRequest(f"{values['to']!r:.80} is not connected", f"Connected: {', '.join(site.names())}")
        with site.engine() as engine:
            data = engine.get_user_data(repo, row.id)
            name = _meant(values["name"], shown, data, mark)
            data = renamed(data, name) if name else data
            base = ImageNames(engine).one(values["to"], values["base"]) if values["base"] else None
            return engine.copy_image(values["to"], row.id, base, data, {"image_hints": {row.id: repo}})

    def told(image: str, values: Mapping[str, str]) -> None:
        _log(shell, "copy", repo=values["to"], image=row.id, name=values["name"], base=values["base"])
        text = f"{row.label} is being copied to {values['to']}: that goes on by itself."
        if values["to"] == repo:
            _show(shell, image, text)
        else:
            shell.tell(text)
        if row.kind == "disk":  # the copy of a snapshot is the same snapshot, and is called as it is
            _tell_namesakes(shell, values["to"], image, values["name"])

    _ask(shell, f"Copy of {row.label}", fields, "Copy", attempt, told)


def rename(shell: Shell, row: ImageRow) -> None:
    """Ask for another name; the rest of the user data stays."""
    repo = shell.site.current

    def attempt(values: Mapping[str, str]) -> str:
        with shell.site.engine() as engine:
            data = engine.get_user_data(repo, row.id)
            engine.rename_image(repo, row.id, renamed(data, _meant(values["name"], row.name, data)))
        return row.id

    def told(image: str, values: Mapping[str, str]) -> None:
        _log(shell, "rename", repo=repo, image=image, name=values["name"])
        _show(shell, image, f"{row.label} is called {printable(values['name'])} now.")
        _tell_namesakes(shell, repo, image, values["name"])

    _ask(shell, f"Rename {row.label}", (FormField("name", "the new name", row.name),), "Rename", attempt, told)


def remove(shell: Shell, row: ImageRow) -> None:
    """Ask, then remove an image; its data stays until a clean fix, and until then it can be restored."""
    repo = shell.site.current
    others = f"{row.dependants} other images stand" if row.dependants > 1 else "1 other image stands"
    needed = f"{others} on its data, which is kept. " if row.dependants else ""
    lines = [
        f"{row.label} ({row.id}) in {repo} cannot be used any more then.",
        f"{needed}Its space comes back with a clean fix; until one has run, u restores it.",
    ]
    text = f"{row.label} was removed; u restores it until a clean fix has run."
    shell.open(Ask(f"Remove {row.label}", lines, "X", "Remove"), _if_yes(shell, row, "remove", text))


def restore(shell: Shell, row: ImageRow) -> None:
    """Undo the removal of an image."""
    _if_yes(shell, row, "restore", f"{row.label} is there again.")(True)


def _if_yes(shell: Shell, row: ImageRow, verb: str, text: str) -> Callable[[bool | None], None]:
    repo = shell.site.current

    def call() -> None:
        with shell.site.engine() as engine:
            (engine.remove_image if verb == "remove" else engine.restore_image)(repo, row.id)

    def done(value: Any) -> None:
        del value
        _log(shell, verb, repo=repo, image=row.id)
        _show(shell, row.id, text)

    def answered(yes: bool | None) -> None:
        if yes:
            shell.do(verb, call, done, f"{row.label} is as it was")

    return answered


def export(shell: Shell, row: ImageRow) -> None:
    """Ask for a file and its format, then write the image to it. It is written by the console, and ends with it."""
    site, repo = shell.site, shell.site.current
    fields = (
        FormField("file", "a file that does not exist yet", path=True),
        FormField("format", "raw, qcow2, qcow2-zstd, vmdk, vhdx, vhd, vdi", "raw"),
    )

    def attempt(values: Mapping[str, str]) -> str:
        path = absolute(values["file"])
        with site.engine() as engine:
            engine.export_image(repo, row.id, path, values["format"], options={"rate": 0})
        return path

    def told(path: str, values: Mapping[str, str]) -> None:
        _log(shell, "export", repo=repo, image=row.id, file=path, format=values["format"])
        shell.tell(f"{row.label} was exported to {printable(path)}.")

    text = "It goes on while you work, and ends with the console: diskwright export writes it without one."
    _ask(shell, f"Export {row.label}", fields, "Export", attempt, told, text)


def name_file(shell: Shell, row: FixRow) -> None:
    """Ask for the file of an unfinished import or adoption as this host sees it; its fix can run then."""
    site, repo = shell.site, shell.site.current

    def attempt(values: Mapping[str, str]) -> str:
        path = absolute(values["file"])
        with site.engine() as engine:
            engine.name_import_file(repo, row.target, path)
        return path

    def told(path: str, values: Mapping[str, str]) -> None:
        del values
        _log(shell, "name_file", repo=repo, fix=row.id, file=path)
        shell.tell(f"The fix of {row.name} can use {printable(path)} now: space queues it.")
        rescan(shell)

    text = f"{row.name}: {row.waits_for}. Where is that file on this host?"
    _ask(
        shell,
        "Name the file",
        (FormField("file", "its path on this host", path=True),),
        "Take it",
        attempt,
        told,
        text,
    )


def needs_file(row: FixRow) -> bool:
    """Whether a fix waits for a file of this host to be named."""
    wait = row.fix().wait if row.raw else None
    return wait is not None and wait.kind is WaitKind.PATH


def why_not(shell: Shell, name: str, row: ImageRow | None) -> str:
    """Return why an image cannot be changed so, "" when it can; the engine knows more."""
    if shell.site.replay is not None:
        return "a trace keeps no data"
    if row is None:
        return "nothing is under the cursor"
    removed = row.state is State.REMOVED
    if name == "restore_image":
        return "" if removed else f"{row.label} is not removed"
    if removed:
        return f"{row.label} is removed, u restores it"
    if name in ("snapshot", "mark") and row.kind != "disk":
        return f"{row.label} is a snapshot, and only disks change"
    if name == "prepare_image" and any(one.writable for one in shell.site.view.machines_of(row.id)):
        return f"{row.label} is prepared already, 5 shows where"
    if name in ("export_image", "snapshot", "mark", "copy_image", "prepare_image") and not row.usable:
        return f"{row.label} cannot be used now, w tells why"
    return ""


def _ask(
    shell: Shell, title: str, fields: tuple[FormField, ...], label: str, attempt: Callable[[Mapping[str, str]], str],
    told: Callable[[str, Mapping[str, str]], None], *text: str,
) -> None:  # fmt: skip
    """Open a form; ``told`` gets what ``attempt`` returned, and the values."""

    def both(values: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
        return attempt(values), values

    shell.open(Form(title, text, fields, label, both, lambda found: told(*found)))


def _meant(typed: str, shown: str, data: Any, mark: str = "") -> str:
    """Return the name that is meant. What was left as it was ``shown`` means the whole name in the user data with the
    ``mark``: of a long one only a part is shown."""
    whole = str(data.get("name") or "") if isinstance(data, dict) else ""
    return f"{whole}{mark}" if typed == shown and whole.isprintable() and whole else typed


def _log(shell: Shell, act: str, **arguments: str) -> None:
    shell.session_log.add(shell.site.clock(), line(act, irreversible=False, **arguments))


def _tell_namesakes(shell: Shell, repo: str, image: str, name: str) -> None:
    """Say that other images there have the name that ``image`` was just given, as far as the last look saw."""
    view = shell.site.view_named(repo)
    others = [id for id in view.images.named(name_shown(name)) if id != image] if view is not None and name else []
    if others:
        more = f" and {len(others) - 1} more have" if len(others) > 1 else " has"
        text = f"{others[0][:8]}{more} the name {printable(name)} too: commands need the id of the one that is meant."
        shell.tell(text, "warning")


def _show(shell: Shell, image: str, text: str) -> None:
    """Look again, and put the cursor on the image."""
    shell.tell(text)
    rescan(shell)
    shell.show(Where("images", image=image))
