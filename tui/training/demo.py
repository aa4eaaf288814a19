"""``diskwright demo``: a directory with repositories to learn and to practise repairs on.

The directory belongs to the demo when it has the marker file, which is written and synced before
anything else is made in it, and which says whether the demo is complete. Only what a demo makes
is ever deleted there. A run that was interrupted leaves the marker saying so; the next one begins
again.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from engine.data.model import Fix, ImageReport, RepositoryReport
from engine.errors import Conflict, DiskwrightError, ImageBusy, Refused, from_os_error
from engine.tags.context import Connection
from tui.cli.commands.look import change, counts, report_json
from tui.cli.render import Output, is_terminal
from tui.cli.session import Session, host_name, shown_status, state_directory, user_directory
from tui.text.amounts import compact
from tui.text.printable import printable
from tui.training import demo_build
from tui.training.demo_build import ARCHIVE, FOLDERS, FORMAT, MAIN, OFFSITE

MARKER = "diskwright-demo.json"
LOCK = "diskwright-demo.lock"
WHAT = "diskwright demo"
_MARKER_LIMIT_BYTES = 1 << 20
_NAMES_TRIED = 100
_PATIENCE_S = 5.0


class Place(StrEnum):
    """What a directory is to the demo."""

    FREE = "free"
    """Not there, or empty."""
    PARTIAL = "partial"
    """Ours, and not complete."""
    COMPLETE = "complete"
    FOREIGN = "foreign"
    """Something is in it and it is not ours."""


def run(arguments: argparse.Namespace) -> int:
    """Make the demo where there is none, connect it on this host, and show what is in it."""
    out = Output(arguments.json, not arguments.no_color)
    host = host_name(arguments.host)
    session = Session(out, host, state_directory(arguments.state, host))
    try:
        site = Site(os.path.realpath(arguments.path or default_path()))
        created = _make_if_wanted(session, site, arguments.fresh)
        _show(session, site, created, arguments.state)
        out.flush()
    finally:
        session.close()
    return 0


def default_path() -> str:
    """Where a demo is made unless the operator says otherwise."""
    return os.path.join(user_directory("XDG_DATA_HOME", ".local/share"), "demo")


def _make_if_wanted(session: Session, site: Site, fresh: bool) -> bool:
    """Whether a demo was made now."""
    place = site.look()
    if place is Place.FOREIGN:
        raise Refused(
            f"{printable(site.root)} has files that no demo made", "Name an empty or a new directory with --path"
        )
    if place is Place.COMPLETE and not fresh and not _asked_for_again(session.out, site):
        return False
    if place is Place.FREE:
        site.claim()
    with site.locked():
        _take_away(session, site)
        session.out.say(f"Making a demo in {printable(site.root)}: every crash in it is a real one.")
        names = demo_build.build(site.root, session.host, lambda text: session.out.say(f"  {text}"))
        site.delete(demo_build.STATE)
        site.mark(Place.COMPLETE, names)
    return True


def _asked_for_again(out: Output, site: Site) -> bool:
    if out.json_wanted or not (is_terminal(sys.stdin) and out.terminal):
        return False
    sys.stderr.write(f"There is a demo in {printable(site.root)}. Delete it and make it again? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _take_away(session: Session, site: Site) -> None:
    """Delete what an earlier run made. Refused while anybody works on an image of it."""
    _end_holders(session, site)
    _refuse_busy(session, site)
    _disconnect(session, site)
    site.mark(Place.PARTIAL, {})
    for folder in (*FOLDERS.values(), demo_build.FILES, demo_build.STATE):
        site.delete(folder)


def _end_holders(session: Session, site: Site) -> None:
    """A run that was killed while it wrote as a machine left that image prepared."""
    from engine.host.state import HostState

    doors = session.engine.doors
    for entry in HostState(doors, f"{site.root}/{demo_build.STATE}").prepared():
        doors.processes.kill(entry.process)
        while doors.processes.state(entry.process) != "gone":
            doors.clock.sleep(0.005)


def _refuse_busy(session: Session, site: Site) -> None:
    """ImageBusy while a lease of the demo is held. What a killed run had started ends by itself, at once."""
    clock = session.engine.doors.clock
    deadline = clock.monotonic() + (_PATIENCE_S if site.look() is Place.PARTIAL else 0)
    while busy := _busy(session, site):
        if clock.monotonic() >= deadline:
            raise ImageBusy(
                f"image {busy} of the demo is in use",
                "Tear it down or stop it: diskwright tasks lists what runs here",
            )
        clock.sleep(0.01)


def _busy(session: Session, site: Site) -> str:
    """An image of the demo that somebody uses, "" when nobody uses any."""
    from engine.formats.registry import open_repository

    for name in FOLDERS:
        try:
            repository = open_repository(FORMAT, dict(site.parameters(name)), session.engine.doors)
        except DiskwrightError:
            continue  # never finished, or damaged: nobody can work in it
        try:
            for tag in repository.scan_tags():
                if repository.lease_held(tag):
                    return tag
        finally:
            repository.close()
    return ""


def _disconnect(session: Session, site: Site) -> None:
    """Disconnect the demo's repositories here, all or none."""
    gone: list[Connection] = []
    for name, connection in session.engine.list_repositories().items():
        if site.owns(connection):
            try:
                session.engine.disconnect_storage_repository(name)
            except DiskwrightError:
                for other in gone:
                    session.engine.connect_storage_repository(other.repo_id, other.format, other.parameters)
                raise
            gone.append(connection)


class Site:
    """The directory of a demo."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._marker = f"{root}/{MARKER}"

    def parameters(self, repository: str) -> dict[str, str]:
        """Connection parameters of one of its repositories."""
        return demo_build.parameters(self.root, repository)

    def owns(self, connection: Connection) -> bool:
        """Whether a connection of this host leads to one of its repositories."""
        path = connection.parameters.get("path")
        ours = [self.parameters(name)["path"] for name in FOLDERS]
        return isinstance(path, str) and os.path.realpath(path) in ours

    def look(self) -> Place:
        """What the directory is now."""
        with _doing(f"look at {self.root}"):
            try:
                found = os.listdir(self.root)
            except FileNotFoundError:
                return Place.FREE
            except NotADirectoryError:
                return Place.FOREIGN
            if MARKER in found:
                return self._read()[0]
        return Place.FREE if all(name.startswith(f"{MARKER}.") for name in found) else Place.FOREIGN

    def names(self) -> dict[str, str]:
        """Names of the images by id, as the marker tells them."""
        with _doing(f"read {self._marker}"):
            return self._read()[1]

    def _read(self) -> tuple[Place, dict[str, str]]:
        try:
            with open(self._marker, encoding="utf-8") as stream:
                data = json.loads(stream.read(_MARKER_LIMIT_BYTES))
            if data["what"] != WHAT:
                return Place.FOREIGN, {}
            state = Place.COMPLETE if data["state"] == Place.COMPLETE else Place.PARTIAL
            return state, {str(key): str(value) for key, value in data["names"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return Place.FOREIGN, {}

    def claim(self) -> None:
        """Make the directory and the marker in it; Conflict when another process did so just now."""
        with _doing(f"make {self.root}"):
            os.makedirs(self.root, exist_ok=True)
            for name in os.listdir(self.root):
                if name.startswith(f"{MARKER}."):
                    os.unlink(f"{self.root}/{name}")  # a run was killed before it had its marker
            temporary = self._write(Place.PARTIAL, {})
            try:
                os.link(temporary, self._marker)
            except FileExistsError:
                raise Conflict(f"another process makes a demo in {printable(self.root)}", "Wait for it") from None
            finally:
                os.unlink(temporary)
            self._sync()

    def mark(self, state: Place, names: dict[str, str]) -> None:
        """Replace the marker; durable on return."""
        with _doing(f"write {self._marker}"):
            os.replace(self._write(state, names), self._marker)
            self._sync()

    def _write(self, state: Place, names: dict[str, str]) -> str:
        temporary = f"{self._marker}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump({"what": WHAT, "state": state, "names": names}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        return temporary

    def _sync(self) -> None:
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who makes or deletes here; Conflict when another process does."""
        with _doing(f"lock {self.root}"):
            descriptor = os.open(f"{self.root}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"another process makes a demo in {printable(self.root)}", "Wait for it") from None
            yield
        finally:
            os.close(descriptor)

    def delete(self, folder: str) -> None:
        """Delete a directory that a demo made; no link is followed."""
        import shutil

        with _doing(f"delete {self.root}/{folder}"), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(f"{self.root}/{folder}")


@contextlib.contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, printable(what)) from error


# -- connecting


def _connect(session: Session, site: Site) -> dict[str, str]:
    """The handles of the two repositories that are to be connected here."""
    handles = {}
    for name, connection in session.engine.list_repositories().items():
        if not site.owns(connection):
            continue
        try:
            session.engine.context.repository(name)
        except DiskwrightError:  # an earlier demo's, which is not there any more
            session.engine.disconnect_storage_repository(name)
            continue
        folder = os.path.basename(os.path.realpath(str(connection.parameters["path"])))
        handles[next(key for key, value in FOLDERS.items() if value == folder)] = name
    free = _free_names(session, handles)
    for name in (MAIN, OFFSITE):
        if name not in handles:
            session.engine.connect_storage_repository(free[name], FORMAT, site.parameters(name))
            handles[name] = free[name]
    return handles


def _free_names(session: Session, handles: dict[str, str]) -> dict[str, str]:
    """Names "demo" and "demo-offsite", or with a number when this host uses these for something else."""
    taken = session.engine.list_repositories().keys()
    for number in range(1, _NAMES_TRIED):
        main = MAIN if number == 1 else f"{MAIN}-{number}"
        names = {MAIN: main, OFFSITE: main + OFFSITE.removeprefix(MAIN)}
        if not any(name in taken for key, name in names.items() if key not in handles):
            return names
    raise Conflict("all names for a demo are in use here", "Disconnect one: diskwright repos lists them")


# -- showing


class Shown(NamedTuple):
    """What is told about the demo."""

    handle: str
    report: RepositoryReport
    names: dict[str, str]

    def name(self, image: str) -> str:
        """What an image is called."""
        return printable(self.names.get(image, "-"))

    def images(self) -> list[ImageReport]:
        """Images in the order in which they matter."""
        order = ("broken", "unknown", "degraded", "removed", "optimized")
        visible = [image for image in self.report.images if not image.hidden]
        return sorted(visible, key=lambda image: (order.index(shown_status(image)), self.name(image.id)))


def _show(session: Session, site: Site, created: bool, state: str | None) -> None:
    handles = _connect(session, site)
    report = session.engine.inspect_repository(handles[MAIN])
    shown = Shown(handles[MAIN], report, site.names())
    commands = _commands(session, site, shown, state)
    document: dict[str, Any] = {
        "path": site.root,
        "created": created,
        "repositories": {handles[name]: site.parameters(name) for name in (MAIN, OFFSITE)},
        "not_connected": {ARCHIVE: site.parameters(ARCHIVE)},
        "names": shown.names,
        **report_json(handles[MAIN], report),
        "next": [command for command, _ in commands],
    }
    session.out.document(document)
    if session.out.json_wanted:
        return
    _show_images(session.out, shown)
    _show_fixes(session.out, shown)
    _show_commands(session.out, commands)


def _show_images(out: Output, shown: Shown) -> None:
    images = shown.images()
    ids = out.short([image.id for image in images])
    states = [shown_status(image) for image in images]
    out.line(f"{printable(shown.handle)}: {counts(shown.report)}")
    out.line()
    rows = [
        (
            ids[image.id],
            out.status(state, usable=False),
            shown.name(image.id),
            compact(image.size_bytes),
            compact(image.used_bytes),
            printable(image.reason),
        )
        for image, state in zip(images, states, strict=True)
    ]
    out.table(("ID", "STATUS", "NAME", "SIZE", "USED", "REASON"), rows, states, 1, frozenset({3, 4}))


def _show_fixes(out: Output, shown: Shown) -> None:
    out.line()
    ids = out.short([fix.id for fix in shown.report.fixes])
    if not ids:
        out.line("Nothing to fix.")
        return
    out.line("What check offers, in a safe order:")
    for fix in shown.report.fixes:
        told = fix.waits_for and fix.waits_for not in fix.why
        wait = f" It waits for {printable(fix.waits_for)}." if told else ""
        out.line(f"  {ids[fix.id]}  {_what(out, shown, fix)}")
        for line in _wrapped(f"{printable(fix.why)}.{wait}", out.columns - 6 if out.terminal else 0):
            out.line(f"      {line}")


def _what(out: Output, shown: Shown, fix: Fix) -> str:
    target = shown.name(fix.target) if fix.target else "the repository"
    state = change(out, fix, short=False)
    return f"{fix.type} {target}" + (f"   {out.paint(fix.status_before, state)}" if state != "-" else "")


def _wrapped(text: str, room: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(room, 20), break_long_words=False) if room else [text]


def _commands(session: Session, site: Site, shown: Shown, state: str | None) -> list[tuple[str, str]]:
    """Commands to type next, each with what it does."""
    known = shlex.join(["--state", state]) if state else ""
    program = " ".join(filter(None, ("diskwright", known)))
    repo = shlex.quote(shown.handle)
    ids = session.out.short([image.id for image in shown.images()])
    found = []
    first = next((fix.target for fix in shown.report.fixes if fix.target in ids), "")
    if first:
        found.append((f"{program} why {repo} {ids[first]}", f"what happened to {shown.name(first)}"))
    found.append((f"{program} plan {repo} --all", "what the fixes would do, step by step"))
    found.append((f"{program} fix {repo} --all", "do it"))
    if any(fix.waits_for for fix in shown.report.fixes):
        path = shlex.quote(f"path={site.parameters(ARCHIVE)['path']}")
        found.append((f"{program} connect {ARCHIVE} {FORMAT} {path}", "brings back what a fix waits for"))
    fresh = "" if site.root == os.path.realpath(default_path()) else f" --path {shlex.quote(site.root)}"
    found.append((f"{program} demo --fresh{fresh}", "begin again"))
    return found


def _show_commands(out: Output, commands: list[tuple[str, str]]) -> None:
    out.line()
    out.line("Next:")
    for command, what in commands:
        out.line(f"  {printable(command)}")
        out.line(f"      {what}")
