"""The rules of what an audit finds: rows of the same shape as those of repositories, which ``engine.triage.rules`` has.

A row has no fix: nothing is changed in storage that is not ours. It has the command that would mend it there instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.audit.model import Finding
from engine.data.model import Status
from engine.triage.shape import Need, Rule

A_DAMAGED: Final = "A-DAMAGED"
A_CORRUPT: Final = "A-CORRUPT"
A_SHORT: Final = "A-SHORT"
A_PARENT: Final = "A-PARENT"
A_LOOP: Final = "A-LOOP"
A_DATA: Final = "A-DATA"
A_BASE: Final = "A-BASE"
A_ILLEGAL: Final = "A-ILLEGAL"
A_MISSING: Final = "A-MISSING"
A_READ: Final = "A-READ"
A_FEATURE: Final = "A-FEATURE"
A_OUTSIDE: Final = "A-OUTSIDE"
A_DISAGREE: Final = "A-DISAGREE"
A_METADATA: Final = "A-METADATA"
A_UNSURE: Final = "A-UNSURE"
A_FORMAT: Final = "A-FORMAT"
A_DIRTY: Final = "A-DIRTY"
A_LEAKS: Final = "A-LEAKS"
A_DEPTH: Final = "A-DEPTH"
A_OVERSIZE: Final = "A-OVERSIZE"
A_BITMAPS: Final = "A-BITMAPS"
A_ABSOLUTE: Final = "A-ABSOLUTE"
A_EXTERNAL: Final = "A-EXTERNAL"
A_SNAPSHOTS: Final = "A-SNAPSHOTS"
A_ENCRYPTED: Final = "A-ENCRYPTED"
A_OPEN: Final = "A-OPEN"
A_REMNANT: Final = "A-REMNANT"
A_ORPHAN: Final = "A-ORPHAN"
A_UNSEEN: Final = "A-UNSEEN"

_BROKEN, _DEGRADED, _UNKNOWN, _FINE = Status.BROKEN, Status.DEGRADED, Status.UNKNOWN, Status.OPTIMIZED
_ON_A_COPY = "Copy the file first, and work on the copy: what a repair overwrites does not come back."
_STOP = "Stop the machine that uses it, and everything that stands on it, before you type the command."

# fmt: off
_TABLE: tuple[Rule, ...] = (
    # -- broken
    Rule(A_DAMAGED, "The header of the image contradicts itself or the file.", _BROKEN,
         "its header cannot be understood: {problem}",
         stuck="Take it from a backup. Nothing that is known here mends a header."),
    Rule(A_CORRUPT, "The tables of the image contradict each other, so some of its data is wrong or cannot be found.",
         _BROKEN, {"marked": "its header says that damage was found", "checked": "qemu-img check finds {count} "
                   "corruptions"},
         stuck=_ON_A_COPY, deep=Need.SOMETIMES, command=("qemu-img", "check", "-r", "all", "{path}")),
    Rule(A_SHORT, "The file ends before its data does: an incomplete download or copy, or a storage that was full.",
         _BROKEN, {"tables": "it is cut short: data is at {offset}, and the file ends at {length}",
                   "stated": "it is cut short: {source} says {size} bytes, and the file has {length}"},
         stuck="Copy it again from where it came. What is behind the end of the file is not in it."),
    Rule(A_PARENT, "The image holds only what differs from another one, and that one is not where its header says.",
         _BROKEN, "the image that it stands on is not there: {name}",
         stuck="Look for it under another name: the command writes the right name, and touches no data. " + _STOP,
         command=("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "FORMAT", "-b", "BASE", "{path}")),
    Rule(A_LOOP, "Following what each image stands on leads back to where it began. No program makes that by itself.",
         _BROKEN, "its chain runs in a circle, through {name}",
         stuck="Find out which image is the lowest one: it stands on nothing. " + _STOP,
         command=("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "", "{path}")),
    Rule(A_DATA, "The image keeps its data in another file, and that file is not where its header says.", _BROKEN,
         "the file that has its data is not there: {name}",
         stuck="Put the data file back at that place.",),
    Rule(A_BASE, "The image itself is in order; one that it stands on is not.", _BROKEN,
         "it stands on {name}: {reason}",
         stuck="Mend the image that it stands on; nothing is to be done here."),
    Rule(A_ILLEGAL, "oVirt has marked the volume as one that must not be used: a removal or a merge has not ended.",
         _BROKEN, "{source} marks it as illegal",
         stuck="Let the engine end the operation (remove the snapshot again), or look at the chain with vdsm-tool.",
         command=("vdsm-tool", "dump-volume-chains", "{domain}")),
    Rule(A_MISSING, "Something refers to an image that is not there.", _BROKEN,
         "{who} needs {name}, which is not there",
         stuck="Put it back there, or take it out of the definition that names it."),
    # -- unknown
    Rule(A_READ, "The storage did not give it just now, or this user may not read it.", _UNKNOWN,
         "it cannot be read: {problem}",
         stuck="Make it readable (run as root, look at the storage), then look again. Nothing is concluded meanwhile."),
    Rule(A_FEATURE, "The image uses a feature that this version does not know.", _UNKNOWN,
         "it uses features that are not known here (bits {bits})",
         stuck="Look at it with the qemu that wrote it."),
    Rule(A_OUTSIDE, "What the image stands on is not below a place that was given, so it was not looked at. Nothing is "
         "opened because an image names it.", _UNKNOWN,
         {"place": "it stands on {name}, which is in no place that was given",
          "network": "it stands on {name}, which is no file",
          "base": "it stands on {name}: {reason}"},
         stuck="Give the directory of that file too: diskwright audit PATH PATH."),
    Rule(A_DISAGREE, "The header of the image and the metadata of the system say two things, and one is wrong.",
         _UNKNOWN, {"parent": "its header says that it stands on {name}, and {source} says {stated}",
                    "format": "it begins as {format}, and {source} says {stated}",
                    "size": "its header says {size} bytes, and {source} says {stated}",
                    "metadata": "{source} says {stated}"},
         stuck="Find out which is right before anything is started, merged or moved: a machine follows the header."),
    Rule(A_METADATA, "The system that made the volume keeps a file of metadata beside it. Without that it does not see "
         "the volume, whose bytes are in use all the same.", _UNKNOWN,
         {"missing": "it has no metadata ({name} is not there), so its system does not see it",
          "unreadable": "its metadata cannot be understood: {problem}",
          "alone": "it is metadata of a volume that is not there ({name})"},
         stuck="An operation that made or removed it has not ended. Look in the engine's tasks for it first."),
    # -- degraded
    Rule(A_FORMAT, "The header does not say what format the image below has, or says another one. Then qemu looks at "
         "the content and guesses, and the content is the guest's.", _DEGRADED,
         {"missing": "its header does not say that {name} is {format}",
          "wrong": "its header says that {name} is {stated}, and it begins as {format}"},
         stuck="It changes one field of the header and touches no data. " + _STOP,
         command=("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "{format}", "-b", "{backing}", "{path}")),
    Rule(A_DIRTY, "The header says that its writer did not end in order, so reference counts may be wrong.", _DEGRADED,
         "its header says that it was not closed",
         stuck=_STOP, command=("qemu-img", "check", "-r", "leaks", "{path}")),
    Rule(A_LEAKS, "Clusters are allocated and used by nothing. No data is in danger.", _DEGRADED,
         "{count} clusters are leaked", stuck=_STOP, deep=Need.ALWAYS,
         command=("qemu-img", "check", "-r", "leaks", "{path}")),
    Rule(A_DEPTH, "Each image in the chain makes opening slower, and is one more file that can be lost.", _DEGRADED,
         "its chain has {depth} images, more than {most}",
         stuck="The command makes a flat copy; or let the system that made the chain merge it.",
         command=("qemu-img", "convert", "-f", "{format}", "-O", "qcow2", "{path}", "{path}.flat")),
    Rule(A_OVERSIZE, "The file takes clearly more room than all of its data can need.", _DEGRADED,
         "it occupies {over} more than its size of {size} needs",
         stuck="The command makes a fresh copy, which takes less room. Internal snapshots are not in it.",
         command=("qemu-img", "convert", "-f", "{format}", "-O", "{format}", "{path}", "{path}.fresh")),
    Rule(A_BITMAPS, "Programs for backup keep bitmaps of what was written in the image. Some are not right any more, "
         "so the next backup must be a full one.", _DEGRADED,
         {"use": "{count} of its {total} bitmaps were in use when its writer ended",
          "stale": "its bitmaps are out of date: a program wrote to it that does not know them",
          "unreadable": "its list of bitmaps cannot be understood"},
         stuck=_STOP + " Then make a full backup.",
         command=("qemu-img", "bitmap", "--remove", "{path}", "NAME")),
    # -- facts that are worth knowing before it is moved or imported
    Rule(A_ABSOLUTE, "The header names what the image stands on by an absolute path in another directory: the chain "
         "breaks when one of the two is moved or mounted elsewhere.", _FINE,
         "it stands on a file in another directory, by absolute path: {name}",
         stuck="It is in order as long as nothing is moved."),
    Rule(A_EXTERNAL, "The image keeps its data in another file: both belong together.", _FINE,
         "its data is in another file: {name}",
         stuck="Never move, copy or remove one of the two alone. To import it, make one image of it first.",
         command=("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", "{path}", "{path}.one")),
    Rule(A_SNAPSHOTS, "The image has internal snapshots. They are not in a copy or an import of it.", _FINE,
         "it has {count} internal snapshots",
         stuck="Keep the file as long as they are needed.", command=("qemu-img", "snapshot", "-l", "{path}")),
    Rule(A_ENCRYPTED, "The content is encrypted: the key is kept by the system that made it, not by the image.", _FINE,
         "it is encrypted", stuck="Keep the key with it: without it nothing can be read."),
    Rule(A_OPEN, "A program has the image open now.", _FINE, "it is open: {users}",
         stuck="Touch nothing of it while it is open."),
    Rule(A_REMNANT, "An operation that did not end has left it, as its name says.", _FINE,
         {"partial": "it is left of an operation that did not end",
          "removal": "its removal was begun and has not ended",
          "empty": "it is a directory without a volume"},
         stuck="Make sure that the operation does not run any more, here or on another host, before you remove it.",
         command=("rm", "-r", "--", "{path}")),
    Rule(A_ORPHAN, "Nothing refers to it. All places that could were given and readable, as you have said.", _FINE,
         {"image": "nothing refers to it", "base": "only orphans stand on it"},
         stuck="Look at it once more before you remove it: a copy elsewhere costs little. It does not come back.",
         command=("rm", "--", "{path}")),
    Rule(A_UNSEEN, "No reference to it was seen. That does not make it an orphan: something that was not given, or "
         "could not be read, may refer to it.", _FINE, "no reference to it was seen",
         stuck="Give what may refer to it (--vms PATH), and --complete when that is all there is."),
    Rule(A_UNSURE, "Something that could refer to images was not understood, so no image is called an orphan.", _FINE,
         "{problem}", stuck="Make it readable, give the place that it speaks of, or look at it yourself."),
)
# fmt: on

BY_CODE: Mapping[str, Rule] = {rule.code: rule for rule in _TABLE}
"""Every rule of an audit, in the order of the table: the worst first."""

_PLACES = {code: place for place, code in enumerate(BY_CODE)}


def finding(
    code: str,
    path: str,
    case: str = "",
    evidence: tuple[tuple[str, str], ...] = (),
    size_bytes: int = 0,
    command: tuple[str, ...] | None = None,
    **words: Any,
) -> Finding:
    """Return a finding of a rule, its blanks filled; ``command`` replaces that of the rule."""
    rule = BY_CODE[code]
    words = {"path": path, **words}
    says = rule.says if isinstance(rule.says, str) else rule.says[case]
    typed = tuple(word.format_map(words) for word in rule.command) if command is None else command
    return Finding(code, Status(rule.status), path, says.format_map(words), evidence, size_bytes, typed)


def place(code: str) -> int:
    """Return the place of a rule in the order of severity, 0 for the worst."""
    return _PLACES[code]
