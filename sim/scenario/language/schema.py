"""The words of the scenario format, as data: verbs, their fields, what may stand beside them.

The parser knows no other words, and the tables in ``scenarios/README.md`` are made from these.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.model import FixType, Risk, Status
from engine.errors import DiskwrightError
from engine.triage.rules import BY_CODE
from sim.hosts.crash import FILE_EFFECTS, GROUP_EFFECTS, HANDLE_EFFECTS, SESSION_EFFECTS, TOOL_EFFECTS
from sim.scenario.language import outside
from sim.scenario.language.fields import BACKENDS, IMAGE, IN, PIECE, PLACE, Field, Verb

FORMATS = ("localfs-1.0", "nfs-1.0", "lvm-1.0")
BACKENDS_OF = {"localfs-1.0": ("sim", "local", "lab"), "nfs-1.0": ("sim", "lab"), "lvm-1.0": ("sim", "lab")}
PROFILES = ("posix", "journal", "nfs")
SHARING_HOSTS = 8
"""Numbers that a shared repository has for hosts. With so many the hosts a, b and c begin with different ones, so they
can join at once."""
PATIENT = ("fix", "take_srm")
"""Verbs that may be tried again for a while: what they need can come by itself."""
RULES = tuple(BY_CODE)
"""Rules of statuses and fixes."""

STATES = (*map(str, Status), "removed", "hidden", "gone")


KINDS = {
    "new": "a name that this step gives: letters, digits, - and _",
    "image": "the name of an image, given by an earlier step",
    "repository": "one of `repositories`",
    "host": "one of `hosts`",
    "size": "bytes: `4096`, `64KiB`, `3MiB`, `1GiB`",
    "count": "a whole number",
    "flag": "`true` or `false`",
    "text": "text",
    "name": "a name given by an earlier step (a content, a list of fixes, a file, a backup, a frozen job, a machine)",
    "json": "any YAML value, as JSON has it",
    "choice": "one of the words listed",
    "words": "a list of words",
    "rule": "a rule, such as `B-COPY`",
    "rules": "a list of rules; where it says so also of types of fixes",
    "states": "a list of statuses",
    "snapshots": "disks of one repository, each with a name for its snapshot: `{web: web-monday, mail: mail-monday}`",
    "content": "what is in the disk: a list of pieces, `as: NAME` (another image, `in: REPOSITORY` beside it),"
    " or `saved: NAME`",
    "ranges": "a list of `[start, length]`",
    "seconds": "a number of seconds, also negative",
    "lose": "`all`, `none`, or a number (a seed for what is lost)",
    "room": "bytes, or `plenty`",
}

_STRATEGY = Field("choice", "what is valued", choices=("space", "performance"))
_USER_DATA = Field("json", "what a manager of machines keeps with the image")
_AUTO_FIX = Field("flag", "false: commit only; the work waits for a fix (default true)")
_BY_RUNNER = Field(
    "flag", "the work is done by the process that the engine starts for it; `crash` then kills that process"
)
_AS = Field("new", "the name that the rest of the scenario uses for it")
_FIX_FIELDS = {
    "in": PLACE,
    "rule": Field("rule", "fixes of this rule, such as B-COPY"),
    "type": Field("choice", "fixes of this type", choices=tuple(map(str, FixType))),
    "all": Field("flag", "everything that can run and loses no data"),
    "image": Field("image", "only fixes that are about this image"),
    "from": Field("name", "use the fixes that an earlier `check` kept, and do not check again"),
    "lose_data": Field("flag", "with all: also what loses data"),
    "deep": Field("flag", "check deeply"),
    "nth": Field("count", "only the how manieth of those that are wanted, once"),
    "change": Field("json", "with from: fields that somebody has edited in the fixes since"),
}

RECORD_DAMAGE = (
    "empty", "truncated", "zeros", "garbage", "not-utf8", "huge", "future-version", "checksum", "wrong-type",
    "unknown-field", "other-image", "torn", "loop", "raw-format",
)  # fmt: skip
HEADER_DAMAGE = ("dirty", "corrupt", "backing", "data-file", "unknown-feature")

_PART = Field("text", "only this file; of a volume group `metadata`: what LVM knows, with vgcfgrestore")
_METADATA = Field("choice", "of a volume group: only what LVM knows, with vgcfgbackup", choices=("metadata",))
VERBS: dict[str, Verb] = {
    "create_disk": Verb(
        "a new virtual disk",
        {
            "in": PLACE, "size": Field("size", "how large", True), "as": _AS,
            "base": Field("image", "a snapshot that it begins as, in any connected repository"),
            "strategy": _STRATEGY, "user_data": _USER_DATA, "auto_fix": _AUTO_FIX, "by_runner": _BY_RUNNER,
        },
        interruptible=True,
    ),
    "create_snapshot": Verb(
        "freeze a disk's present content",
        {
            "of": Field("image", "the disk", True), "in": IN, "as": _AS, "strategy": _STRATEGY,
            "user_data": _USER_DATA,
        },
        interruptible=True,
    ),
    "create_snapshot_group": Verb(
        "freeze what several disks contain at one moment: all of it, or nothing",
        {
            "disks": Field("snapshots", "which ones", True), "strategy": _STRATEGY, "user_data": _USER_DATA,
        },
        interruptible=True,
    ),
    "copy": Verb(
        "copy an image: all of it, or the difference to a base",
        {
            "image": IMAGE, "to": Field("repository", "the target", True), "as": _AS,
            "base": Field("image", "an image of the target that it is based on"),
            "hint": Field("repository", "read the image from here"),
            "only": Field("words", "look for images only in these repositories"),
            "full": Field("flag", "copy all bits when the base cannot be used"),
            "digest": Field("flag", "false: compute none"),
            "strategy": _STRATEGY, "user_data": _USER_DATA, "auto_fix": _AUTO_FIX, "by_runner": _BY_RUNNER,
        },
        interruptible=True,
    ),
    "import": Verb(
        "make a disk of an image file; the file is one that `export` wrote, or one made by `make_file`",
        {
            "file": Field("name", "the file", True), "in": PLACE, "as": _AS,
            "format": Field("choice", "its format, stated and not guessed", True, ("raw", "qcow2")),
            "strategy": _STRATEGY, "user_data": _USER_DATA, "auto_fix": _AUTO_FIX, "by_runner": _BY_RUNNER,
        },
        interruptible=True,
    ),
    "export": Verb(
        "write an image to a file",
        {
            "image": IMAGE, "in": IN, "as": Field("new", "a name for the file", True),
            "format": Field("choice", "of the file (default raw)", choices=("raw", "qcow2")),
        },
        interruptible=True,
    ),
    "make_file": Verb(
        "an image file from elsewhere",
        {
            "as": Field("new", "a name for the file", True), "size": Field("size", "how large", True),
            "format": Field("choice", "of the file (default raw)", choices=("raw", "qcow2")),
            "content": Field("content", "a list of pieces"),
            "backing": Field("text", "qcow2: name another file as its backing"),
            "bitmap": Field("text", "qcow2: it has a dirty bitmap of this name, as programs for backup keep"),
        },
    ),
    "remove": Verb("remove an image; its data stay until a clean", {"image": IMAGE, "in": IN}, "image", True),
    "restore": Verb("undo a removal", {"image": IMAGE, "in": IN}, "image", True),
    "set_user_data": Verb(
        "replace the JSON kept with an image",
        {
            "image": IMAGE, "in": IN, "data": Field("json", "any value"),
            "bytes": Field("count", "instead: a text that is so many bytes long as JSON"),
            "nested": Field("count", "instead: so many lists in each other"),
        },
        interruptible=True,
    ),
    "resize": Verb(
        "make a disk longer",
        {"disk": Field("image", "which one", True), "in": IN, "size": Field("size", "how long", True)},
        interruptible=True,
    ),
    "set_strategy": Verb(
        "value space or performance",
        {"image": IMAGE, "in": IN, "strategy": _STRATEGY._replace(required=True)},
        interruptible=True,
    ),
    "record_digest": Verb("read a snapshot whole and keep its digest", {"image": IMAGE, "in": IN}, "image", True),
    "prepare": Verb(
        "make an image usable on the host, as a machine needs it",
        {
            "image": IMAGE, "in": IN, "writable": Field("flag", "false: for reading only (default true)"),
            "take_over": Field("flag", "a machine has it open that lost its holder, and gets a new one"),
        },
        "image",
        interruptible=True,
    ),
    "teardown": Verb("undo prepare", {"image": IMAGE, "in": IN}, "image"),
    "write": Verb(
        "write into a disk as its machine would; it is prepared for that time if it is not",
        {"disk": Field("image", "which one", True), "in": IN, **PIECE},
    ),
    "check": Verb(
        "look for problems",
        {"in": PLACE, "deep": Field("flag", "read the data too"), "as": Field("new", "a name for the fixes")},
        "in",
    ),
    "fix": Verb("run fixes, one after the other", _FIX_FIELDS, interruptible=True),
    "stop_task": Verb("stop what runs on an image on this host", {"image": IMAGE, "in": IN}, "image"),
    "thaw": Verb(
        "a frozen process goes on, and ends", {"job": Field("name", "the name that `freeze` gave", True)}, "job"
    ),
    "connect": Verb(
        "connect a repository on the host",
        {"repository": PLACE, "accept_moved": Field("flag", "what stands there now is the one to use")},
        "repository",
    ),
    "back_up": Verb(
        "copy the directory of a repository with another tool, or what is on the devices of its volume group",
        {"repository": PLACE, "as": Field("new", "a name for the copy", True), "part": _METADATA},
    ),
    "put_back": Verb(
        "have the copy, or one file of it, stand where the repository is",
        {"repository": PLACE, "backup": Field("name", "the copy", True), "part": _PART},
    ),
    "disconnect": Verb("disconnect it there", {"repository": PLACE}, "repository"),
    "take_srm": Verb(
        "become the manager of a repository",
        {"repository": PLACE, "dead": Field("host", "the one that was the manager: it is dead for certain")},
        "repository",
    ),
    "release_srm": Verb("give that role up", {"repository": PLACE}, "repository"),
    "unplug": Verb("the storage of a repository is not there any more", {"repository": PLACE}, "repository"),
    "plug_in": Verb("it is there again", {"repository": PLACE}, "repository"),
    "kill_host": Verb(
        "every process of a host dies: what is frozen, what holds prepared images",
        {"name": Field("host", "which one", True)},
        "name",
    ),
    "power_cut": Verb(
        "everything dies at once, and what was not durable may be lost",
        {
            "lose": Field("lose", "what of it is lost", True),
            "profile": Field("choice", "the rules of the file system (default posix)", choices=PROFILES),
        },
        "lose",
        backends=("sim", "lab"),
    ),
    "space_left": Verb(
        "the storage has only so much room left",
        {"bytes": Field("room", "how much", True)},
        "bytes",
        backends=("sim", "lab"),
    ),
    "jump_clock": Verb(
        "the wall clock of a host is set",
        {"name": Field("host", "which one", True), "seconds": Field("seconds", "by how much", True)},
        backends=("sim", "lab"),
    ),
    "wait": Verb(
        "time passes", {"seconds": Field("seconds", "how long", True)}, "seconds", backends=("sim", "lab")
    ),
    "damage": Verb(
        "spoil an image behind the engine's back",
        {
            "image": IMAGE, "in": IN,
            "record": Field("choice", "its record becomes", choices=RECORD_DAMAGE),
            "header": Field("choice", "its qcow2 header says", choices=HEADER_DAMAGE),
            "truncate": Field("size", "its data file is cut to this length"),
            "overwrite": Field("content", "pieces, at offsets in the data *file*, which no file system has noticed"),
            "written": Field("content", "pieces, at offsets in the data *file*, by a tool that just opened it"),
            "text": Field("text", "the data file is replaced by this text"),
            "delete": Field("choice", "this file of it is deleted", choices=("record", "data")),
            "digests": Field("flag", "one bit of its digest list is another"),
        },
    ),
    "add_file": Verb(
        "put a file into the directory of a repository",
        {
            "in": PLACE, "path": Field("text", "where in it", True), "text": Field("text", "its content"),
            "length": Field("size", "its length, if it has no text"),
            "link_to": Field("text", "make it a symbolic link to this instead"),
        },
    ),
    "save": Verb("remember the content of an image", {"image": IMAGE, "in": IN, "as": Field("new", "as", True)}),
    "expect": Verb("what must be so now; see below", {}),
    "freeze_host": Verb(
        "a machine stands still as a whole, until `thaw_host`", {"name": Field("host", "which one", True)}, "name",
        backends=("sim", "lab"),
    ),
    "thaw_host": Verb(
        "it goes on; where it has lost its leases meanwhile, what had them is killed",
        {"name": Field("host", "which one", True)}, "name",
        backends=("sim", "lab"),
    ),
    "reset_host": Verb(
        "a machine is switched off and on", {"name": Field("host", "which one", True)}, "name",
        backends=("sim", "lab"),
    ),
    "open_volume": Verb(
        "somebody keeps the logical volume of an image open", {"image": IMAGE, "in": IN}, "image",
        backends=("sim", "lab"),
    ),
    "close_volume": Verb("and closes it", {"image": IMAGE, "in": IN}, "image", backends=("sim", "lab")),
    # Only real machines have these.
    "server": Verb(
        "what happens to the server of a repository",
        {
            "of": PLACE,
            "does": Field("choice", "what", True, ("stop", "start", "restart", "unexport", "export", "hang", "go-on")),
        },
        backends=("lab",),
    ),
    "isolate": Verb(
        "a host cannot reach the storage any more", {"name": Field("host", "which one", True)}, "name",
        backends=("lab",),
    ),
    "rejoin": Verb("it can again", {"name": Field("host", "which one", True)}, "name", backends=("lab",)),
    **outside.VERBS,
}  # fmt: skip
BY_A_PROCESS = {name for name, verb in VERBS.items() if verb.interruptible} | {
    "check", "teardown", "write", "stop_task", "connect", "disconnect", "take_srm", "release_srm",
}  # fmt: skip
"""Verbs that a process of a host does."""

EXPECT_IMAGE = {
    "image": IMAGE,
    "in": IN,
    "deep": Field("flag", "look deeply"),
    "status": Field("choice", "its status; `gone`: nothing is left of it", choices=STATES),
    "status_in": Field("states", "its status is one of these (for points that may be before or after)"),
    "rule": Field("rule", "the rule behind the status"),
    "reason": Field("text", "the reason contains this"),
    "content": Field("content", "what is in it, zeros elsewhere"),
    "size": Field("size", "its exact size"),
    "used_at_most": Field("size", "it occupies no more than this"),
    "used_at_least": Field("size", "it occupies at least this"),
    "user_data": Field("json", "what is kept with it"),
    "strategy": _STRATEGY,
    "mutable": Field("flag", "it is a disk (true) or a snapshot"),
    "last_error": Field("text", "its last error contains this; empty text: there is none"),
    "percent": Field("count", "the percentage that its operation has persisted"),
    "busy": Field("text", "who works on it now contains this; empty text: nobody"),
    "lost": Field("ranges", "ranges that are known to be lost"),
    "remark": Field("text", "what is noted about its import contains this"),
}
EXPECT_REPOSITORY = {
    "in": PLACE,
    "deep": Field("flag", "check deeply"),
    "images": Field("count", "so many images can be seen"),
    "removed": Field("count", "so many removed ones still hold space"),
    "hidden": Field("count", "so many hidden ones are there"),
    "fixes": Field("rules", "exactly these rules are offered, in any order"),
    "fixes_include": Field("rules", "these rules or types are offered"),
    "fixes_exclude": Field("rules", "none of these rules or types is offered"),
    "findings": Field("words", "kinds of findings that are there: unknown, foreign, busy, note"),
    "finding": Field("text", "some finding contains this"),
    "reclaimable_at_least": Field("size", "fixes that can run give so much back"),
    "nothing_left_over": Field("flag", "no fix, no leftover file, no volume without an image"),
}
EXPECT_FIX = {
    "fix": Field("rule", "the rule of a fix that is offered", True),
    "in": PLACE,
    "image": Field("image", "the image that it is about"),
    "deep": Field("flag", "check deeply"),
    "why": Field("text", "its reason contains this"),
    "waits_for": Field("text", "what it waits for contains this; empty text: nothing"),
    "risk": Field("choice", "its risk", choices=tuple(map(str, Risk))),
    "fits": Field("flag", "whether there is room for it"),
    "reclaims_at_least": Field("size", "it gives so much back"),
}
EXPECT_FILE = {
    "file": Field("name", "an exported file", True),
    "length": Field("size", "its exact length"),
    "content": Field("content", "what is in it (raw files)"),
}
EXPECTATIONS = {"fix": EXPECT_FIX, "file": EXPECT_FILE, "image": EXPECT_IMAGE, "in": EXPECT_REPOSITORY}
"""By the field that decides; the first one found does."""

POINT = {
    "before": Field("text", "a named effect"),
    "nth": Field("count", "the how manieth of that name (default 1)"),
    "effect": Field("count", "the effect of this number, as `-v` shows them"),
    "percent": Field("count", "the first write to the image at or beyond this share of it"),
}
EACH = {"each": Field("flag", "true: before every effect of the step, the scenario being played once for each")}
FREEZE = {**POINT, "as": Field("new", "a name for the frozen process, for `thaw`", True)}

FAULTS = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "ESTALE", "ETIMEDOUT", "EROFS", "short", "sync")
FAULT = {
    "error": Field("choice", "what happens: the call fails with this; `short`: half is written at first; `sync`: it"
                   " fails with EIO and what was written since the last one is lost", True, FAULTS),
    "call": Field("text", "calls of this name; * stands for anything (default: any call that can have it)"),
    "nth": Field("count", "the how manieth of them is the first to fail (default 1)"),
    "times": Field("count", "how many fail (default: all from there on)"),
    "in": Field("repository", "only calls on files of this repository"),
    "of": Field("image", "only calls on files of this image"),
    "part": Field("choice", "with of: on its records or its data only", choices=("record", "data")),
}  # fmt: skip
ERROR = {
    "code": Field("text", "the code of the error"),
    "says": Field("text", "the message contains this"),
}
MODIFIERS = {
    "host": "the host that does it (default: the first one)",
    "crash": "the process is killed (SIGKILL) just before a chosen effect",
    "freeze": "it is stopped there as by SIGSTOP, and stays so until `thaw`",
    "stop": "an operator asks it to stop there (SIGTERM); what is done is kept",
    "faults": "a list of faults that its door calls meet (`sim` only)",
    "error": "it must fail: the code of the error, a list of codes of which it has one, or `code` and `says`",
    "may_fail": "a list of error codes that are as good as success",
    "within": "while it fails it is tried again, for so many seconds (fix and take_srm)",
    "process": "a name: all steps with it are done by one process, which goes on (sim and local)",
    "note": "a sentence for the trace",
}
REPOSITORY = {
    "directory": Field("text", "its name on disk, if it is not the same"),
    "format": Field(
        "choice",
        "its format (default localfs-1.0); nfs-1.0 and lvm-1.0 need `backends: [sim, lab]`, or one of them",
        choices=FORMATS,
    ),
    "server": Field("text", "nfs: the name of the server, as mount takes it"),
    "shared": Field("flag", "lvm: true: all hosts work in it at once, with sanlock (default false: one does)"),
}
TOP = {
    "title": "one line",
    "story": "why this is worth a scenario, for people",
    "backends": "where it can be played: sim, local, lab",
    "profile": "sim: the rules for power cuts, posix (default), journal or nfs; nfs: hosts also see names late",
    "repositories": "a list of names, or names with fields (see Repositories)",
    "hosts": "names; each has all repositories connected at the beginning",
    "steps": "what happens, in order",
}

CALLS = tuple(
    [f"files.{name}" for name in "list_directory stat read_file open create link rename unlink make_directory "
     "remove_directory symlink sync_directory space clone".split()]
    + [f"handle.{name}" for name in "read_at write_at truncate sync stat segments".split()]
)  # fmt: skip


def _effects() -> Iterator[str]:
    yield from (f"files.{name}" for name in sorted(FILE_EFFECTS))
    for how in ("create", "open"):
        yield from (f"files.{how}.{name}" for name in sorted(HANDLE_EFFECTS))
    yield from (f"images.{name}" for name in sorted(TOOL_EFFECTS))
    yield from (f"images.open_session.{name}" for name in sorted(SESSION_EFFECTS))
    yield from (f"volume_groups.{name}" for name in sorted(GROUP_EFFECTS))
    yield from (f"volume_groups.open_device.{name}" for name in ("sync", "write_at", "zero"))


EFFECTS = tuple(_effects())
"""Names of effects, as ``sim.hosts.crash`` gives them."""


def _codes(kind: type[DiskwrightError]) -> Iterator[str]:
    yield kind.code
    for below in kind.__subclasses__():
        if below.__module__ == DiskwrightError.__module__:  # others' errors may be imported or not
            yield from _codes(below)


ERROR_CODES = tuple(dict.fromkeys(_codes(DiskwrightError)))


def reference() -> str:
    """The tables of the README, as Markdown."""
    parts = ["### Kinds of values\n", *(f"* **{name}**: {about}" for name, about in KINDS.items())]
    parts += ["\n### Steps\n", *(_verb(name, verb) for name, verb in VERBS.items() if verb.fields)]
    parts += ["### Expectations\n"]
    for first, fields in EXPECTATIONS.items():
        title = {"in": "a repository", "image": "an image", "fix": "a fix that is offered", "file": "a file"}[first]
        parts += [f"**About {title}** (`{first}:`)\n", *_fields(fields), ""]
    for title, fields in (
        ("Repositories", REPOSITORY),
        ("Points of crash, freeze and stop", POINT),
        ("Points of crash besides", EACH),
        ("Faults", FAULT),
        ("Errors", ERROR),
    ):
        parts += [f"### {title}\n", *_fields(fields), ""]
    parts += ["Names of effects:", *(f"`{name}`" for name in EFFECTS), ""]
    parts += ["Names of calls, for faults:", *(f"`{name}`" for name in CALLS), ""]
    parts += ["Codes of errors:", *(f"`{code}`" for code in ERROR_CODES)]
    return "\n".join(parts) + "\n"


def _verb(name: str, verb: Verb) -> str:
    marks = []
    if verb.backends != BACKENDS:
        marks.append(f"only {', '.join(verb.backends)}")
    if verb.interruptible:
        marks.append("may be interrupted")
    if verb.short:
        marks.append(f"short form: `{name}: {verb.short.upper()}`")
    about = f"**{name}**: {verb.about}" + (f" ({'; '.join(marks)})" if marks else "")
    return "\n".join([about, "", *_fields(verb.fields), ""])


def _fields(fields: dict[str, Field]) -> list[str]:
    lines = []
    for name, field in fields.items():
        choices = f": {', '.join(f'`{choice}`' for choice in field.choices)}" if field.choices else ""
        must = ", **required**" if field.required else ""
        lines.append(f"* `{name}` ({field.kind}{must}): {field.about}{choices}")
    return lines


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())
