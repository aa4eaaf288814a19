"""Taking image files over from the console: what is asked for, the plan that is shown before, and what is told then."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from engine.data.adoption import Plan, Planned
from engine.errors import Refused
from tui.console.control.navigation import look_at
from tui.console.dialogs.confirm import Ask
from tui.console.dialogs.fields import Form, FormField
from tui.console.shell import Shell
from tui.text.amounts import compact
from tui.text.printable import printable
from tui.view.command_lines import line

_SHOWN = 6
_REASONS = 5
_TEXT = (
    "The files become images of the repository, with their chains, and nothing is copied. They lose their names: what "
    "uses them by those has to be stopped now, and changed then. Stated is the format of what nothing stands on."
)


def adopt(shell: Shell, paths: Sequence[str]) -> None:
    """Ask into which repository, which files and of which format; show what would become of each, and ask again."""
    site = shell.site
    fields = (
        FormField("repository", f"on the same file system: {', '.join(site.names())}", site.current),
        FormField("files", "files, or directories of qcow2 files, several with commas", ",".join(paths), True),
        FormField("format", "qcow2 or raw", "qcow2"),
    )

    def attempt(values: Mapping[str, str]) -> tuple[str, list[str], str, Plan]:
        repo, format = values["repository"], values["format"]
        named = [
            os.path.abspath(os.path.expanduser(path.strip())) for path in values["files"].split(",") if path.strip()
        ]
        with site.engine() as engine:
            plan = engine.plan_adoption(repo, named, format)
        if not plan.images:
            raise Refused(f"nothing can be adopted: {_why_nothing(plan)}", "Name other files")
        return repo, named, format, plan

    def planned(found: tuple[str, list[str], str, Plan]) -> None:
        _confirm(shell, *found)

    shell.open(Form("Take image files over as they are", [_TEXT], fields, "Show the plan", attempt, planned))


def _why_nothing(plan: Plan) -> str:
    """The reason of each file; alike ones once, with how many it is about."""
    reasons: dict[str, list[str]] = {}
    for path, reason in plan.refused:
        reasons.setdefault(reason.replace(path, "it"), []).append(path)
    told = [
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {reason}"
        for reason, paths in list(reasons.items())[:_REASONS]
    ]
    if (more := len(reasons) - _REASONS) > 0:
        told.append(f"and {more} other reasons (diskwright adopt --dry-run tells all)")
    return "; ".join(told) or "no file was found"


def _confirm(shell: Shell, repo: str, paths: Sequence[str], format: str, plan: Plan) -> None:
    site = shell.site

    def call() -> int:
        with site.engine() as engine:
            return len(engine.adopt_images(repo, plan))

    def done(number: int) -> None:
        words = shlex.join(paths)
        shell.session_log.add(site.clock(), line("adopt", repo=repo, files=words, format=format))
        look_at(shell, repo)
        shell.tell(f"{number} files are being taken over; each is broken until that is done, and then it can be used.")

    def answered(yes: bool | None) -> None:
        if yes:
            shell.do("adopt", call, done, "Not all was committed: the same again goes on", "Taking files over.")

    shell.open(Ask(f"Take {len(plan.images)} files over into {repo}", _lines(plan), "T", "Take them over"), answered)


def _lines(plan: Plan) -> list[str]:
    """What would become of each file, and what stays."""
    text = [f"{printable(one.path)}: {_what(one)}" for one in plan.images[:_SHOWN]]
    if (more := len(plan.images) - _SHOWN) > 0:
        text.append(f"and {more} more")
    text += [f"Stays: {printable(path)}: {printable(why)}" for path, why in plan.refused[:_SHOWN]]
    if (more := len(plan.refused) - _SHOWN) > 0:
        text.append(f"and {more} more stay: diskwright adopt --dry-run lists all")
    return text


def _what(one: Planned) -> str:
    kind = "a disk" if one.mutable else "a snapshot"
    base = f" on {printable(os.path.basename(one.base))}" if one.base else ""
    return f"{kind} of {compact(one.size)}{base}"
