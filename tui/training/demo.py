"""The demo: a directory with repositories to learn and to practise repairs on.

The directory belongs to the demo when it has the marker file, which is written and synced before
anything else is made in it, and which says whether the demo is complete. Only what a demo makes
is ever deleted there. A run that was interrupted leaves the marker saying so; the next one begins
again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from enum import StrEnum

from engine.api import Engine
from engine.errors import Conflict, DiskwrightError, ImageBusy, from_os_errors
from engine.tags.context import Connection
from engine.triage import rules
from tui.directories import user_directory
from tui.text.printable import printable
from tui.training import demo_build
from tui.training.demo_build import ARCHIVE, FOLDERS, FORMAT, MAIN, OFFSITE

MARKER = "diskwright-demo.json"
LOCK = "diskwright-demo.lock"
WHAT = "diskwright demo"
_MARKER_LIMIT_BYTES = 1 << 20
_NAMES_TRIED = 100
_PATIENCE_S = 5.0


class DemoState(StrEnum):
    """What a directory is to the demo."""

    FREE = "free"
    """Not there, or empty."""
    PARTIAL = "partial"
    """Ours, and not complete."""
    COMPLETE = "complete"
    FOREIGN = "foreign"
    """Something is in it and it is not ours."""


def default_path() -> str:
    """Where a demo is made unless the operator says otherwise."""
    return os.path.join(user_directory("XDG_DATA_HOME", ".local/share"), "demo")


def make(engine: Engine, host: str, folder: DemoFolder, say: Callable[[str], None]) -> None:
    """Make the demo, in place of one that was there; ``say`` is told each step. It is complete on return.

    ImageBusy while anybody works on an image of it, Conflict while another process makes it."""
    if folder.look() is DemoState.FREE:
        folder.claim()
    with folder.locked():
        _take_away(engine, folder)
        say(f"Making a demo in {printable(folder.root)}: every crash in it is a real one.")
        names = demo_build.build(folder.root, host, lambda text: say(f"  {text}"))
        folder.delete(demo_build.STATE)
        folder.mark(DemoState.COMPLETE, names)


def _take_away(engine: Engine, folder: DemoFolder) -> None:
    """Delete what an earlier run made. Refused while anybody works on an image of it."""
    _end_holders(engine, folder)
    _refuse_busy(engine, folder)
    _disconnect(engine, folder)
    folder.mark(DemoState.PARTIAL, {})
    for name in (*FOLDERS.values(), demo_build.FILES, demo_build.STATE):
        folder.delete(name)


def _end_holders(engine: Engine, folder: DemoFolder) -> None:
    """A run that was killed while it wrote as a machine left that image prepared."""
    from engine.host.state import HostState

    doors = engine.doors
    for entry in HostState(doors, f"{folder.root}/{demo_build.STATE}").prepared():
        doors.processes.kill(entry.process)
        while doors.processes.state(entry.process) != "gone":
            doors.clock.sleep(0.005)


def _refuse_busy(engine: Engine, folder: DemoFolder) -> None:
    """ImageBusy while a lease of the demo is held. What a killed run had started ends by itself, at once."""
    clock = engine.doors.clock
    deadline = clock.monotonic() + (_PATIENCE_S if folder.look() is DemoState.PARTIAL else 0)
    while busy := _busy(engine, folder):
        if clock.monotonic() >= deadline:
            raise ImageBusy(
                f"image {busy} of the demo is in use",
                "Tear it down or stop it: diskwright tasks lists what runs here",
            )
        clock.sleep(0.01)


def _busy(engine: Engine, folder: DemoFolder) -> str:
    """An image of the demo that somebody uses, "" when nobody uses any."""
    from engine.formats.registry import open_repository

    for name in FOLDERS:
        try:
            repository = open_repository(FORMAT, dict(folder.parameters(name)), engine.doors)
        except DiskwrightError:
            continue  # never finished, or damaged: nobody can work in it
        try:
            for tag in repository.tags.scan():
                if repository.leases.held(tag):
                    return tag
        finally:
            repository.close()
    return ""


def _disconnect(engine: Engine, folder: DemoFolder) -> None:
    """Disconnect the demo's repositories here, all or none."""
    gone: list[Connection] = []
    for name, connection in engine.list_repositories().items():
        if folder.owns(connection):
            try:
                engine.disconnect_storage_repository(name)
            except DiskwrightError:
                for other in gone:
                    engine.connect_storage_repository(other.repo_id, other.format, other.parameters)
                raise
            gone.append(connection)


class DemoFolder:
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

    def look(self) -> DemoState:
        """What the directory is now."""
        with from_os_errors(f"look at {self.root}"):
            try:
                found = os.listdir(self.root)
            except FileNotFoundError:
                return DemoState.FREE
            except NotADirectoryError:
                return DemoState.FOREIGN
            if MARKER in found:
                return self._read()[0]
        return DemoState.FREE if all(name.startswith(f"{MARKER}.") for name in found) else DemoState.FOREIGN

    def names(self) -> dict[str, str]:
        """Names of the images by id, as the marker tells them."""
        with from_os_errors(f"read {self._marker}"):
            return self._read()[1]

    def _read(self) -> tuple[DemoState, dict[str, str]]:
        try:
            with open(self._marker, encoding="utf-8") as stream:
                data = json.loads(stream.read(_MARKER_LIMIT_BYTES))
            if data["what"] != WHAT:
                return DemoState.FOREIGN, {}
            state = DemoState.COMPLETE if data["state"] == DemoState.COMPLETE else DemoState.PARTIAL
            return state, {str(key): str(value) for key, value in data["names"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return DemoState.FOREIGN, {}

    def claim(self) -> None:
        """Make the directory and the marker in it; Conflict when another process did so just now."""
        with from_os_errors(f"make {self.root}"):
            os.makedirs(self.root, exist_ok=True)
            for name in os.listdir(self.root):
                if name.startswith(f"{MARKER}."):
                    os.unlink(f"{self.root}/{name}")  # a run was killed before it had its marker
            temporary = self._write(DemoState.PARTIAL, {})
            try:
                os.link(temporary, self._marker)
            except FileExistsError:
                raise Conflict(f"another process makes a demo in {printable(self.root)}", "Wait for it") from None
            finally:
                os.unlink(temporary)
            self._sync()

    def mark(self, state: DemoState, names: dict[str, str]) -> None:
        """Replace the marker; durable on return."""
        with from_os_errors(f"write {self._marker}"):
            os.replace(self._write(state, names), self._marker)
            self._sync()

    def _write(self, state: DemoState, names: dict[str, str]) -> str:
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
        with from_os_errors(f"lock {self.root}"):
            descriptor = os.open(f"{self.root}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"another process makes a demo in {printable(self.root)}", "Wait for it") from None
            yield
        finally:
            os.close(descriptor)

    def delete(self, name: str) -> None:
        """Delete a directory that a demo made; no link is followed."""
        import shutil

        with from_os_errors(f"delete {self.root}/{name}"), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(f"{self.root}/{name}")


# -- connecting


def connect(engine: Engine, folder: DemoFolder) -> dict[str, str]:
    """Connect the two repositories that are to be connected here; return their names on this host."""
    handles = {}
    for name, connection in engine.list_repositories().items():
        if not folder.owns(connection):
            continue
        try:
            engine.context.repository(name)
        except DiskwrightError:  # an earlier demo's, which is not there any more
            engine.disconnect_storage_repository(name)
            continue
        base = os.path.basename(os.path.realpath(str(connection.parameters["path"])))
        handles[next(key for key, value in FOLDERS.items() if value == base)] = name
    free = _free_names(engine, handles)
    for name in (MAIN, OFFSITE):
        if name not in handles:
            engine.connect_storage_repository(free[name], FORMAT, folder.parameters(name))
            handles[name] = free[name]
    _name_files(engine, handles[MAIN], folder)
    with contextlib.suppress(DiskwrightError):  # it is, or the name is taken; this host is to know where it was
        engine.connect_storage_repository(ARCHIVE, FORMAT, folder.parameters(ARCHIVE))
        engine.disconnect_storage_repository(ARCHIVE)
    return handles


def _name_files(engine: Engine, name: str, folder: DemoFolder) -> None:
    """Say that this host may read the demo's own file for the import that was killed."""
    with contextlib.suppress(DiskwrightError):  # it is done, or the file is gone: the fix says so
        for image in engine.list_images(name):
            if image.rule == rules.B_IMPORT and image.name == demo_build.KILLED_IMPORT:
                engine.name_import_file(
                    name, image.id, f"{folder.root}/{demo_build.FILES}/{demo_build.KILLED_IMPORT}.raw"
                )


def _free_names(engine: Engine, handles: dict[str, str]) -> dict[str, str]:
    """Names "demo" and "demo-offsite", or with a number when this host uses these for something else."""
    taken = engine.list_repositories().keys()
    for number in range(1, _NAMES_TRIED):
        main = MAIN if number == 1 else f"{MAIN}-{number}"
        names = {MAIN: main, OFFSITE: main + OFFSITE.removeprefix(MAIN)}
        if not any(name in taken for key, name in names.items() if key not in handles):
            return names
    raise Conflict("all names for a demo are in use here", "Disconnect one: diskwright repos lists them")
