"""The words for what others do who are not the engine: machines that use prepared images, and operators with tools of
their own."""

from __future__ import annotations

from sim.hosts.machine import CACHES
from sim.scenario.language.fields import IMAGE, IN, PIECE, PLACE, Field, Verb

_HERE = ("sim", "local")
_MACHINE = Field("name", "which one", True)

VERBS: dict[str, Verb] = {
    "start_machine": Verb(
        "a machine opens the path that `prepare` gave on the host, and keeps it open, whoever dies meanwhile",
        {
            "image": IMAGE, "in": IN, "as": Field("new", "a name for the machine", True),
            "cache": Field("choice", "`unsafe`: its flushes reach no storage (default writeback)", choices=CACHES),
            "monitor": Field("flag", "true: it can be spoken to, and its host is told how (`attach`)"),
        },
        backends=_HERE,
    ),
    "machine_writes": Verb(
        "a running machine writes into its disk, and flushes",
        {"machine": _MACHINE, **PIECE, "flush": Field("flag", "false: it does not flush (default true)")},
        backends=_HERE,
    ),
    "freeze_machine": Verb("it stands still as by SIGSTOP", {"machine": _MACHINE}, "machine", backends=_HERE),
    "thaw_machine": Verb("it goes on", {"machine": _MACHINE}, "machine", backends=_HERE),
    "kill_machine": Verb(
        "it dies; what it has not flushed may be lost with it", {"machine": _MACHINE}, "machine", backends=_HERE
    ),
    "stop_machine": Verb("it is shut down, and writes its caches back", {"machine": _MACHINE}, "machine",
                         backends=_HERE),
    "kill_holder": Verb(
        "the process that holds a prepared image on the host dies; a machine that uses the image goes on",
        {"image": IMAGE, "in": IN}, "image",
    ),
    "write_file": Verb(
        "somebody writes into an image file outside of all repositories",
        {"file": Field("name", "which one", True), **PIECE},
        backends=_HERE,
    ),
    "resize_behind": Verb(
        "somebody makes the data of an image longer with a tool of his own; a logical volume also shorter",
        {"image": IMAGE, "in": IN, "size": Field("size", "how long", True)},
    ),
    "swap": Verb(
        "two repositories exchange their places",
        {"repository": PLACE, "with": Field("repository", "the other", True)},
        backends=_HERE,
    ),
    "rename_host": Verb(
        "a host gets another name, perhaps that of another one",
        {"name": Field("host", "which one", True), "to": Field("text", "its name from now on", True)},
        backends=("sim",),
    ),
    "chmod": Verb(
        "somebody changes the rights to a part of a repository: `none`; of a directory `read`, its names cannot be "
        "changed; `all`, as it was. On LVM: `read`, the volume of an image is read-only",
        {
            "in": PLACE, "path": Field("text", "where in the repository it is; empty: the repository itself"),
            "image": Field("image", "instead: a file of this image"),
            "part": Field("choice", "with image: which one (default data)", choices=("record", "data")),
            "rights": Field("choice", "what everybody may do", True, choices=("none", "read", "all")),
        },
        backends=("sim", "lab"),
    ),
    "lose_leases": Verb(
        "the server takes a host for dead: what its processes have locked on the storage is free, and fails for them",
        {"name": Field("host", "which one", True)}, "name", backends=("sim",),
    ),
}  # fmt: skip
