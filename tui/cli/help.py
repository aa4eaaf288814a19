"""What ``diskwright --help`` says: it must suffice alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """A command: where it is, what it does in one line, and an example."""

    group: str
    summary: str
    module: str
    """The module whose table ``HANDLERS`` says what fills the parser, and what runs the command."""
    example: str


_SIM = """\
diskwright sim run scenarios/
  diskwright sim run --backend local scenarios/copy/killed_goes_on.yaml -v
  diskwright sim explore
  diskwright sim fuzz --seconds 60 --seed 7

run FILE|DIR ...   play scenario files; scenarios/README.md describes the format
  --backend sim|local|lab  the simulator (default); real files, tools and kills; machines of the lab
  --junit OUT.xml        write JUnit XML
  --trace OUT.jsonl      write each event with its effects and the repositories then, for `tui --trace`
  --seed N               of ids and of what is left to chance
  -q, -v                 verdicts only; also the numbered effects of each step
  Exit codes: 0 what can be played here passed, 1 an expectation was violated, 2 a scenario is
  wrong (file:line says where), 3 nothing was played: all of it needs another backend.
explore ...        every crash state of each verb and fix, until no new state appears
fuzz ...           random verbs by several hosts with faults, then recovery

What is prepared, made or damaged there is never one of your repositories."""

_LAB = """\
diskwright lab up --hosts 3 --nfs
  diskwright lab run host-a -- sh -c 'vgcreate lab /dev/ubda && vgs'
  diskwright lab run host-a -- diskwright create-repo localfs-1.0 path=/run/lab/keep/images
  diskwright lab kill host-a; diskwright lab boot host-a
  diskwright lab down

up            boot hosts (User-Mode Linux guests) that share the disks /dev/ubda and /dev/ubdc; /dev/ubdb is its own
status        the hosts, whether they run, their addresses
run HOST -- COMMAND   run it as root there; its exit code is ours (127: it could not be started)
console HOST  what its kernel has said, in all its lives
kill HOST     the host dies at once; what it had not written to its disks is lost
boot HOST     boot it again, with the same disks; shutdown HOST switches it off in good order
freeze, thaw HOST     time stops for it, and goes on
cut, mend HOST        pull its network cable, plug it in
down          kill all and delete the lab; --keep leaves the disks for the next up
torture       random operations on hosts that are killed and frozen: --format, --rounds, --seed
powercut      what a real kernel may lose in a power cut: --on, --kind, --states, --seed
              Both have a lab of their own, print their seed, and end with 1 when something is wrong.

A host sees the files of this machine read-only; /run /tmp /srv /mnt /var/tmp are its own, in memory.
/run/lab/keep survives its death. It has its own name, notes and connections (diskwright --host is set)."""

GROUPS = ("Repositories", "Images", "Looking", "Fixing", "Using", "Trying out")


def _command(group: int, module: str, summary: str, example: str) -> Command:
    return Command(GROUPS[group], summary, f"tui.cli.commands.{module}", example)


COMMANDS: dict[str, Command] = {
    "create-repo": _command(
        0, "repositories", "make an empty repository",
        "diskwright create-repo localfs-1.0 path=/srv/images\n"
        "  diskwright create-repo localfs-1.0 path=/srv/vms owner=libvirt-qemu group=kvm mode=660\n"
        "  diskwright create-repo lvm-1.0 volume_group=images devices=/dev/sdb\n\n"
        "owner, group and mode are those of all volumes, for machines of another user; connect changes them.",
    ),
    "connect": _command(
        0, "repositories", "give a repository a name on this host",
        "diskwright connect main localfs-1.0 path=/srv/images\n"
        "  diskwright connect nas nfs-1.0 server=nas.example export=/srv/images directory=web\n"
        "  diskwright connect main localfs-1.0 path=/srv/images owner=libvirt-qemu group=kvm\n\n"
        "owner, group and mode change whose the volumes are, also of one that is connected so already.\n"
        "An NFS export is mounted when it is needed, and unmounted by disconnect. By default a call that the server\n"
        "does not answer for 30 s is an error, also of a machine; options=timeo=600 or options=hard change that, and\n"
        "options=soft says that it is meant.",
    ),
    "disconnect": _command(
        0, "repositories", "forget that name; the repository stays as it is",
        "diskwright disconnect main",
    ),
    "repos": _command(0, "repositories", "list what is connected here", "diskwright repos"),
    "constraints": _command(
        0, "repositories", "what a repository needs and can do", "diskwright constraints main --json"
    ),
    "srm": _command(
        0, "repositories", "who manages a repository (SRM), where one host must: take, release, status",
        "diskwright srm status main\n  diskwright srm take main\n  diskwright srm take main --dead host-a\n\n"
        "On lvm the manager is the only host that changes anything; LVM itself (its system ID) keeps the others out.\n"
        "--dead asserts that the host named is dead for certain: if it is not, both write and data is lost.",
    ),
    "create-disk": _command(
        1, "images", "make a virtual disk, empty or from a snapshot",
        "diskwright create-disk main 10G --user-data '{\"name\": \"web\"}'\n"
        "  diskwright create-disk main 20G --base 3f2a --strategy performance --wait",
    ),
    "create-snapshot": _command(
        1, "images", "freeze the present content of a disk",
        "diskwright create-snapshot main 3f2a\n  diskwright create-snapshot main web --quiesce\n\n"
        "The machine of a prepared disk goes on meanwhile, if its monitor is known: prepare --monitor, attach.\n"
        "With --quiesce the agent in its guest freezes all its file systems before, and thaws them after it, whoever\n"
        "dies. An agent that is not known or does not answer: refused, with nothing done. A disk that no machine has\n"
        "open needs none.",
    ),
    "create-snapshot-group": _command(
        1, "images", "freeze several disks as they are at one moment, all or none",
        "diskwright create-snapshot-group main web-root web-data --name monday\n\n"
        "Prints the snapshots in the order of the disks; each has the name. Disks of one machine that runs are frozen\n"
        "while it goes on, if its monitor is known (prepare --monitor, attach). Disks of several machines that run\n"
        "are refused, and so are disks of several repositories.",
    ),
    "copy": _command(
        1, "images", "copy an image, all of it or the difference to a base",
        "diskwright copy backup 3f2a --wait\n  diskwright copy backup 3f2a --base 91cc --hint 3f2a=main\n\n"
        "A disk whose machine runs is copied as it is now, if its monitor is known: prepare --monitor, attach.",
    ),
    "import": _command(
        1, "incoming", "make a disk of an image file",
        "diskwright import main ./debian.qcow2 --format qcow2 --wait --verify\n"
        "  curl -s https://example.org/debian.qcow2.xz | diskwright import main - --format qcow2.xz\n"
        "  diskwright import main ./appliance.ova --format ova:1\n\n"
        "A file that names others (backing files, extents, parents) is refused, and nothing that it names is opened.",
    ),
    "adopt": _command(
        1, "incoming", "make image files, with their chains, images as they are; nothing is copied",
        "diskwright adopt main /var/lib/libvirt/images --format qcow2 --dry-run\n"
        "  diskwright adopt main ./web.qcow2 ./base.qcow2 --format qcow2 --wait\n"
        "  diskwright adopt san /dev/vmdisks/web /dev/vmdisks/base --format qcow2 --wait\n\n"
        "The files must be on the repository's file system, or logical volumes of its group, and nobody may use them.\n"
        "Until they are images remove and a clean fix give them back. A base is looked for only among those given.\n"
        "State qcow2 for a directory only if no file in it is the raw disk of a guest, which can write what looks\n"
        "like a header.",
    ),
    "export": _command(
        1, "images", "write an image to a file",
        "diskwright export main 3f2a ./web.raw --format raw\n  diskwright export main 3f2a ./web.vmdk --format vmdk\n"
        "  diskwright export main 3f2a - --format raw | zstd >web.zst\n\n"
        "A disk whose machine runs is written as it is now, if its monitor is known: prepare --monitor, attach.",
    ),
    "remove": _command(
        1, "images", "remove an image; its data stay until a clean fix", "diskwright remove main 3f2a"
    ),
    "restore": _command(1, "images", "undo a removal", "diskwright restore main 3f2a"),
    "rename": _command(1, "images", "give an image another name", "diskwright rename main 3f2a web-1"),
    "user-data": _command(
        1, "images", "read or replace the JSON kept with an image",
        "diskwright user-data get main 3f2a\n  diskwright user-data set main 3f2a @web.json",
    ),
    "revert": _command(
        1, "images", "have a disk contain what a snapshot does, at once", "diskwright revert main web 91cc\n\n"
        "What the disk contained becomes a snapshot that is removed: restore brings it back until a clean fix ran.",
    ),
    "resize": _command(
        1, "images", "make a disk longer", "diskwright resize main 3f2a 20G\n  diskwright resize main 3f2a +5G\n\n"
        "What is gained reads as zeros, and snapshots stay as they are. While the disk is prepared its machine makes\n"
        "it longer, if it is known how to speak to that (prepare --monitor, attach). No disk is made shorter.",
    ),
    "strategy": _command(
        1, "images", "value space or performance for an image", "diskwright strategy main 3f2a performance"
    ),
    "digest": _command(
        1, "images", "read a snapshot whole and record its digest", "diskwright digest main 3f2a"
    ),
    "images": _command(
        2, "listing", "list images with status and reason, the worst first",
        "diskwright images main\n  diskwright images --limit 5\n"
        "  diskwright images main --status broken --name 'web-*' --sort used --wide\n"
        "  diskwright images main --tree --name web-db\n  diskwright images main --watch\n\n"
        "--tree shows what stands on what: a picture, nothing to build on, for every fix may change it. OWN is what\n"
        "an image's layer occupies, SHARED what the layers below it do, which it reads through and others may too.",
    ),
    "status": _command(
        2, "look", "one image, the last operation on it, and the machine that has it",
        "diskwright status main 3f2a\n  diskwright status main web --ask\n\n"
        "Of an image that is prepared here it tells which process has it open, by which monitor that is spoken to,\n"
        "since when, whether its holder lives, the layers below, and what is done to them. What waits until it is\n"
        "torn down is told by why. With --ask its machine is asked too: what it has open, and its jobs. A QMP monitor\n"
        "has one client, so a snapshot finds it taken meanwhile: not for a script that looks again and again.",
    ),
    "why": _command(
        2, "look", "why an image is as it is, and what to do about it; or what a rule means",
        "diskwright why main 3f2a\n  diskwright why B-COPY\n\n"
        "A rule is the code behind a status or a fix. With one alone it tells what the rule means, what its fix does,\n"
        "risks and needs, and what to do when there is none. docs/rules.md has all of them.",
    ),
    "check": _command(
        2, "look", "look for problems and offer fixes; changes nothing",
        "diskwright check main\n  diskwright check main --deep --json > fixes.json\n"
        "  diskwright check main --exit-code\n\n"
        "With --exit-code: 0 nothing to do, 10 only space to clean or layers to merge, 11 an image is degraded\n"
        "(usable), 12 one is broken or unknown. Any other code is that of an error.",
    ),
    "audit": _command(
        2, "audit", "look at image files of libvirt, Proxmox VE, oVirt; changes nothing",
        "diskwright audit /var/lib/libvirt/images\n"
        "  diskwright audit /var/lib/libvirt/images /srv/bases --vms /etc/libvirt --complete\n"
        "  diskwright audit /var/lib/vz --vms /etc/pve --complete --json\n"
        "  diskwright audit /rhev/data-center/mnt/nas:_vms --deep\n"
        "  diskwright audit vg:guests --vms /etc/libvirt --complete\n\n"
        "Needs no repository. vg:NAME is a volume group of LVM, in which nothing is activated (a directory of such a\n"
        "name: ./vg:NAME). Nothing outside of the places that are named is opened, whatever an image or a definition\n"
        "says. An image is called an orphan only with --complete, your word that --vms names all that may\n"
        "refer to it, and if all of that could be read; else it is one to which no reference was seen.\n"
        "With --exit-code: as check. docs/audit.md tells what is looked for.",
    ),
    "tasks": _command(2, "running", "what runs and what is prepared on this host, and by which machines",
        "diskwright tasks\n  diskwright tasks --watch --json | while read -r line; do …; done\n\n"
        "Of each image that is prepared: the process that has it open, since when, and the process that holds its\n"
        "lease. What needs somebody is first: a machine that lost its holder (prepare --take-over), and what is left\n"
        "of one that has ended.",),
    "log": _command(
        2, "log", "who did what on this host, when, and what came of it",
        "diskwright log\n  diskwright log main web-db --limit 200",
    ),
    "plan": _command(
        3, "plan", "what fixes would do, in order, with space and risk",
        "diskwright plan main\n  diskwright plan main --type clean",
    ),
    "fix": _command(
        3, "fix", "run fixes and follow them",
        "diskwright fix main --all\n  diskwright fix main 8d21 --no-wait\n  diskwright fix main --file fixes.json\n"
        "  diskwright fix main --plan 3f2a\n\n"
        "--all and --type run, check and run again until nothing new can be run. What cannot be undone (removed\n"
        "images are deleted, images merged, data given up) needs --irreversible; on a terminal you are asked and\n"
        "type the repository's name instead. Without either it is left: --all never means it, and a fix that was\n"
        "chosen in any other way ends with exit code 5 (after the others ran). Exit code 0: nothing failed; what\n"
        "is left is listed with its reason.\n"
        "Ctrl-C detaches (130): the round that was started goes on.",
    ),
    "stop": _command(3, "fix", "stop what runs on an image; the work is kept", "diskwright stop main 3f2a"),
    "rate": _command(
        3, "fix", "let what runs on an image move so much in a second",
        "diskwright rate main 3f2a 50M\n  diskwright rate main 3f2a off\n\n"
        "--rate of fix, copy, import and export starts work with it. It is kept in the note of the task, which looks\n"
        "about once a second; a running machine that moves the data is told too. An export that goes on on this host\n"
        "is limited the same way.",
    ),
    "prepare": _command(
        4, "prepare", "make an image usable as a path, for a command or until teardown",
        "diskwright prepare main 3f2a\n  diskwright prepare main 3f2a --read-only -- qemu-img info {}\n"
        '  eval "qemu-system-x86_64 -m 2048 $(diskwright prepare main web --print qemu)"\n\n'
        "With a COMMAND, {} is replaced by the path, DISKWRIGHT_DISK and DISKWRIGHT_DISK_FORMAT are in its\n"
        "environment, the image is torn down when it ends, and its exit code is ours (127: no such command).\n"
        "It keeps the lease itself, whoever dies.\n"
        "Without, the path alone is printed; its format is told on standard error, and with --json. That of a disk\n"
        "is /run/diskwright/disks/REPO/IMAGE/disk each time, with the name that was given, or the id, where /run\n"
        "is kept in memory; elsewhere it is another one after each boot. Prepare before each start of a machine.\n"
        "With --monitor qmp:PATH (a QMP socket of the machine), or libvirt:URI/DOMAIN, snapshots and copies\n"
        "are taken, disks made longer and layers merged while the machine runs. With --agent PATH (the socket of its\n"
        "guest agent; libvirt knows that itself) its guest is frozen for a snapshot with --quiesce.",
    ),
    "attach": _command(
        4, "prepare", "say how to speak to the machine of a disk, to work on it while it runs",
        "diskwright attach main 3f2a qmp:/run/web.qmp\n"
        "  diskwright attach main 3f2a qmp:/run/web.qmp --agent /run/web.agent",
    ),
    "teardown": _command(4, "prepare", "undo prepare", "diskwright teardown main 3f2a"),
    "hook": _command(
        4, "hook", "have libvirt prepare the disks of its domains, and tear them down",
        "diskwright hook install\n  diskwright hook remove\n\n"
        "A domain whose definition has /run/diskwright/disks/REPO/IMAGE/disk is started with that disk prepared, and\n"
        "its monitor known; when it has ended, the disk is torn down. One that cannot be prepared keeps its domain\n"
        "from starting, and libvirt tells why. Other domains are not concerned.",
    ),
    "demo": _command(
        5, "demo", "make a repository with broken images, see it mended", "diskwright demo --fresh"
    ),
    "tui": Command(
        GROUPS[5], "the console: all of this on one screen, with keys and a mouse", "tui.console.command",
        "diskwright tui\n  diskwright tui --demo\n  diskwright tui main --readonly",
    ),
    "completion": _command(
        5, "completion", "print what a shell needs to complete commands, images and fixes",
        "diskwright completion bash >~/.local/share/bash-completion/completions/diskwright\n"
        '  eval "$(diskwright completion zsh)"       # in ~/.zshrc, after compinit\n'
        "  diskwright completion fish | source       # in ~/.config/fish/config.fish",
    ),
    "sim": _command(
        5, "simulate", "play scenarios, explore crash states, fuzz: the same engine", _SIM,
    ),
    "lab": _command(
        5, "lab", "hosts with real LVM and NFS on this machine, to try out and to crash", _LAB,
    ),
}  # fmt: skip

TOPICS = {
    "statuses": "what an image's status means",
    "fixes": "kinds, risks, how to choose and run them",
    "rules": "the codes behind statuses and fixes",
    "exit-codes": "what a command's end tells a script",
    "configuration": "options, environment, files",
    "json": "what --json prints, and what programs may rely on",
}

HEAD = """\
usage: diskwright [options] COMMAND ...

diskwright keeps the disk images of virtual machines in repositories that hold nothing else.
  A verb returns when its intent is on disk; the work goes on in a process of its own.
  Any crash leaves an image optimized, degraded (usable, can be better) or broken, with the reason.
  There is no recovery mode: check finds what is to be done, fix does it, on any host.
  Nothing is destroyed on a guess: removed images can be restored until a clean fix ran.
  An image id is 32 hexadecimal digits; its first 4 or more do where they are unique.
  The name of an image does as well: create it with --name, change it with rename.
"""

EXIT_CODES = """\
Exit codes
  0    done
  1    unexpected; see crash.log
  2    wrong usage or request
  3    no such repository, image, fix, file
  4    somebody holds it, or it exists
  5    the state forbids it: the message says what to do first; it cannot be undone: --irreversible
  6    the storage or a tool failed; a retry is safe
  7    what is on disk cannot be understood
  8    another host was first; look and try again
  9    stopped by an operator; the work is kept
  130  Ctrl-C: started work goes on (0 of --watch)
  141  standard output was closed
  prepare -- COMMAND: that of COMMAND; check --exit-code: 10, 11, 12, see there"""

_TAIL = """\
Options of every command
  --json          one JSON document on standard output; narration goes to standard error
  --host NAME     name of this host
  --state DIR     where this host keeps its notes (in DIR/NAME); no repository depends on them
  --no-color      no colours
  --version       print the version, and the formats on disk that it writes
  -h, --help      this help; after a COMMAND the help of that

{exit_codes}

Environment
  DISKWRIGHT_HOST    as --host
  DISKWRIGHT_STATE   as --state
  DISKWRIGHT_DEBUG   1: show tracebacks
  NO_COLOR           no colours
  COLUMNS            width of lines

Examples
  diskwright create-repo localfs-1.0 path=/srv/images
  diskwright connect main localfs-1.0 path=/srv/images
  disk=$(diskwright create-disk main 10G)
  diskwright prepare main $disk -- qemu-io -c 'write 0 1M' {}
  diskwright create-snapshot main $disk
  diskwright images main
  diskwright check main && diskwright fix main --all
"""


def top_help(commands: Mapping[str, Command] = COMMANDS) -> str:
    """The help of the whole program."""
    width = max(map(len, commands))
    parts = [HEAD]
    for group in GROUPS:
        lines = [f"  {name:<{width}}  {item.summary}" for name, item in commands.items() if item.group == group]
        parts.append("\n".join([group, *lines]) + "\n")
    topics = "\n".join(f"  {name:<{width}}  {about}" for name, about in TOPICS.items())
    tail = _TAIL.replace("{exit_codes}", EXIT_CODES)
    return "\n".join([*parts, f"Topics: diskwright help TOPIC\n{topics}\n", tail]).rstrip("\n")
