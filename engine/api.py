"""The storage API: the verbs of the RFC by their names, and what else operators need.

Every verb that changes something returns once its intent is committed to disk; the work goes on in a process of its own
and can be finished by any host after any number of crashes. Image ids are 32 hexadecimal digits. All verbs raise
:mod:`engine.errors`.

Modules that make or move data are imported by the method that needs them: a command that only looks must start quickly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine.data.adoption import Plan
from engine.data.model import Constraints, Fix, ImageReport, RepositoryReport, require_id
from engine.data.options import Options, parse
from engine.doors import Doors
from engine.errors import BadRequest, DiskwrightError, Refused
from engine.fixes.work import Work, require_known
from engine.formats.base import Manager, Repository
from engine.formats.registry import create_repository
from engine.host import connecting, mending, tasks
from engine.host.state import HostState, Prepared, Task
from engine.survey import status, survey
from engine.tags import leasing
from engine.tags.context import Connection, Context

OptionsArgument = Mapping[str, Any] | None


class Engine:
    """One host's engine. Connections, tasks and prepared images are kept in ``state_directory``, so several processes
    of one host share them; nothing there is needed to recover a repository."""

    def __init__(self, doors: Doors, state_directory: str) -> None:
        self.doors = doors
        self.state = HostState(doors, state_directory)
        self._context: Context | None = None

    # -- repositories

    def create_repository(self, repo_format: str, connection_parameters: Mapping[str, Any]) -> None:
        """Make an empty repository of ``repo_format`` ("localfs-1.0"), durable on return. Conflict when something is
        there already."""
        create_repository(repo_format, _parameters(connection_parameters), self.doors)

    def connect_storage_repository(
        self, repo_id: str, repo_format: str, connection_parameters: Mapping[str, Any], accept_moved: bool = False
    ) -> list[str]:
        """Connect a repository under the transient handle ``repo_id``.

        Conflict when the handle is in use, or when the same storage is connected under another. Moved when this host
        knew that storage as something else that stood elsewhere: it was replaced, restored or cloned. After an error
        nothing is left on this host that was not there before.

        ``accept_moved``: what stands there now is the one to use, and takes the place of the one that is connected
        under the handle; Refused while this host uses that, Conflict when it is another repository. Returns what
        differs from what was known, a part of a sentence each."""
        parameters = _parameters(connection_parameters)
        differing = connecting.connect(self.doors, self.state, repo_id, repo_format, parameters, accept_moved)
        self._forget()
        return differing

    def disconnect_storage_repository(self, repo_id: str) -> None:
        """Disconnect. Refused while an image of it is prepared or a task runs on this host. StorageError while its
        storage is in use otherwise, or does not let go: it is still connected then."""
        connection = connecting.find(self.state, repo_id)
        self._sweep()
        connecting.require_not_in_use(self.state, repo_id, connection.identity)
        self._forget()
        connecting.disconnect(self.doors, self.state, repo_id)

    def list_repositories(self) -> dict[str, Connection]:
        """Return what is connected on this host, by handle."""
        return self.state.connections()

    def get_storage_repository_constraints(self, repo_id: str) -> Constraints:
        """Return what the repository needs and can do."""
        return self.context.repository(repo_id).constraints()

    def host_warnings(self, repo_id: str) -> list[str]:
        """Return what this host lacks to keep images, and the other hosts of a repository, safe, a sentence each."""
        return self.context.repository(repo_id).warnings()

    def take_srm(self, repo_id: str, dead_host: str = "") -> None:
        """Make this host the manager (SRM) of a repository that needs one; success when it is the manager already.

        Refused, naming the manager, while another host is; unless ``dead_host`` names that one, which asserts that it
        is dead for certain and will not write any more. Where hosts share a repository any host that is not there can
        be named so: what it was writing to can be used again."""
        self._manager(repo_id).take(dead_host)
        self._forget()

    def release_srm(self, repo_id: str) -> None:
        """Give the role of manager up: nobody can change the repository until a host takes it. Refused while this
        host uses it."""
        manager = self._manager(repo_id)
        connecting.require_not_in_use(self.state, repo_id, self.context.repository(repo_id).identity)
        manager.release()
        self._forget()

    def get_srm(self, repo_id: str) -> str:
        """Return the host that manages the repository, "" when nobody is known to. Refused where nobody does by
        design."""
        return self._manager(repo_id).host()

    # -- the four image operations

    def create_virtual_disk(
        self,
        target_repo_id: str,
        size: int,
        base_snapshot_id: str | None = None,
        user_data: Any = None,
        options: OptionsArgument = None,
    ) -> str:
        """Commit a new virtual disk and return its id.

        ``size`` in bytes; with a base, at least as large. The base may be in any connected repository."""
        from engine.verbs import create

        parsed = parse("create_virtual_disk", options)
        image = create.virtual_disk(self.context, target_repo_id, size, base_snapshot_id, _default(user_data), parsed)
        self._auto_fix(target_repo_id, image, parsed)
        return image

    def create_snapshot(
        self, target_repo_id: str, base_virtual_disk_id: str, user_data: Any = None, options: OptionsArgument = None
    ) -> str:
        """Freeze the present content of a disk as a snapshot and return the snapshot's id.

        No data is copied; the disk keeps its id. While it is prepared for writing its machine's monitor must be known
        here, else ImageBusy. The snapshot has the disk's strategy unless an option says otherwise. With the option
        ``quiesce`` the file systems of a guest that runs are frozen for it, or nothing is done: Refused, ToolFailed."""
        from engine.verbs.live import snapshot

        disk, parsed = base_virtual_disk_id, parse("create_snapshot", options)
        self._sweep()
        return snapshot.snapshot_of(self.context, self.state, target_repo_id, disk, _default(user_data), parsed)

    def create_snapshot_group(
        self, target_repo_id: str, disk_ids: Sequence[str], user_data: Any = None, options: OptionsArgument = None
    ) -> dict[str, str]:
        """Freeze the present content of several disks of a repository, all of it as it is at one moment; return the
        snapshots' ids by disk. Interrupted, all of them are there or none.

        As ``create_snapshot``; Refused for disks of several machines that run. ``user_data`` is that of each."""
        from engine.verbs.live import group

        data, parsed = _default(user_data), parse("create_snapshot_group", options)
        self._sweep()
        return group.snapshots_of(self.context, self.state, target_repo_id, disk_ids, data, parsed)

    def copy_image(
        self,
        target_repo_id: str,
        image_id: str,
        base_image_id: str | None = None,
        user_data: Any = None,
        options: OptionsArgument = None,
    ) -> str:
        """Commit a copy of an image and return the id it has in the target.

        With a base (an image of the target) only the difference is copied, found by content. A snapshot keeps its id, a
        disk's copy gets a new one. A disk in use is copied as it is now where its monitor is known, else ImageBusy."""
        from engine.verbs.live import copy

        data, parsed = _default(user_data), parse("copy_image", options)
        self._sweep()
        image = copy.image(self.context, self.state, target_repo_id, image_id, base_image_id, data, parsed)
        self._auto_fix(target_repo_id, image, parsed)
        return image

    def resize_disk(self, repo_id: str, image_id: str, size: int, options: OptionsArgument = None) -> None:
        """Make a disk longer: ``size`` bytes, durable on return. What is gained reads as zeros; snapshots stay as they
        are. Interrupted, it has the old size or the new one. While it is prepared for writing its machine's monitor
        must be known here, else ImageBusy. BadRequest for a shorter one."""
        from engine.verbs.live import resize

        parse("resize_disk", options)
        resize.grow(self.context, self.state, repo_id, image_id, size)

    def revert_disk(
        self, repo_id: str, image_id: str, snapshot_id: str, user_data: Any = None, options: OptionsArgument = None
    ) -> str:
        """Have a disk contain what a snapshot of its repository does, at no cost and durable on return. What it
        contained becomes a snapshot with ``user_data`` that is removed: it can be restored until a clean fix ran.
        Returns its id. Interrupted, the disk is as it was or as the snapshot. ImageBusy while it is prepared."""
        from engine.verbs import revert

        parse("revert_disk", options)
        self._sweep()
        return revert.revert(self.context, repo_id, image_id, snapshot_id, _default(user_data))

    def remove_image(self, repo_id: str, image_id: str, options: OptionsArgument = None) -> None:
        """Commit the removal; data stays until a clean fix, and until then it can be restored.

        Repeating it is a success. An unfinished operation on the image ends, wherever it runs."""
        from engine.verbs import remove

        parse("remove_image", options)
        remove.remove(self.context, repo_id, image_id)

    def restore_image(self, repo_id: str, image_id: str, options: OptionsArgument = None) -> None:
        """Undo a removal. Refused once deletion or a merge of its data has begun."""
        from engine.verbs import remove

        parse("restore_image", options)
        remove.restore(self.context, repo_id, image_id)

    # -- status, check, fix

    def get_image_status(self, repo_id: str, image_id: str, options: OptionsArgument = None) -> ImageReport:
        """Return the image's status with its reason, the last persisted operation, and who works on it now."""
        return status.status_of(self.context, repo_id, image_id, parse("get_image_status", options).deep)

    def check_storage_repository(self, repo_id: str, options: OptionsArgument = None) -> list[Fix]:
        """Look for problems and return fixes, in an order in which it is safe to run them. Nothing is changed, but that
        volumes are no longer active here which were prepared, lost their holder, and are used by nobody; and that
        guests go on which wait for a process of this host that is gone."""
        return list(self.inspect_repository(repo_id, options).fixes)

    def inspect_repository(self, repo_id: str, options: OptionsArgument = None) -> RepositoryReport:
        """Look for problems as ``check_storage_repository`` does and return all that was seen."""
        parsed = parse("check_storage_repository", options)
        repository = self.context.repository(repo_id)
        tasks.clear_away(self.doors, self.state, repository)
        return survey.report(self.context, repository, parsed.deep)

    def fix_storage_repository(
        self,
        repo_id: str,
        fix: Fix | Mapping[str, Any],
        options: OptionsArgument = None,
        accept: Callable[[Fix], None] | None = None,
    ) -> Task:
        """Start a fix in a process of its own and return its task.

        The leases are taken and the fix is verified, by one scan, before this returns: StaleFix, ImageBusy. What a
        running machine does has those of its holder. Irreversible for one that cannot be undone, without the option
        ``irreversible``. With ``accept`` a fix whose facts have changed is not stale while its rule offers the same
        plan for the same target: ``accept`` is shown it as it is now, and raises what speaks against it."""
        from engine.fixes import run as fixes
        from engine.host import merging

        parsed = parse("fix_storage_repository", options)
        repository = self.context.repository(repo_id)
        wanted = fix if isinstance(fix, Fix) else Fix.from_json(fix)
        with merging.take_leases(self.context, self.state, repository, wanted) as leases:
            work = fixes.verify(self.context, repository, wanted, accept)
            require_known([work.fix], parsed.irreversible)
            return tasks.start(self.context, self.state, repo_id, [work], leases, parsed.rate)

    def run_fixes(self, repo_id: str, wanted: Sequence[Fix], options: OptionsArgument = None) -> Task:
        """Start several fixes, one after the other in one process; one that fails does not stop the rest.

        Irreversible, and none is started, if one cannot be undone, unless the option ``irreversible`` is true."""
        parsed = parse("run_fixes", options)
        if not wanted:
            raise BadRequest("no fix was named", "diskwright check lists them")
        self.context.repository(repo_id)
        require_known(wanted, parsed.irreversible)
        return tasks.start(self.context, self.state, repo_id, [*map(Work, wanted)], leasing.LeaseSet({}), parsed.rate)

    def run_fix_here(self, repo_id: str, fix: Fix) -> None:
        """Run one fix to its end in this process. The caller has made sure that what cannot be undone is wanted."""
        from engine.host import merging

        merging.execute(self.context, self.state, repo_id, fix)

    # -- tasks

    def list_tasks(self) -> list[Task]:
        """Return the tasks that run on this host."""
        return self.state.tasks()

    def task_events(self, task: Task) -> list[dict[str, Any]]:
        """Return what a task has said so far: events start, done, stale, failed, end."""
        return tasks.events(self.doors, task)

    def task_image(self, task: Task) -> str:
        """Return the image a task works on now; "" between two fixes, and for a fix of the repository itself."""
        return tasks.image(self.doors, task)

    def task_is_running(self, task: Task) -> bool:
        """Tell whether the task's process is alive (also when it is stopped by a signal)."""
        return tasks.is_running(self.doors, task)

    def wait_for_task(self, task: Task, tick: Callable[[], None] = lambda: None) -> None:
        """Return when the task's process has ended; ``tick`` is called several times a second."""
        while tasks.is_running(self.doors, task):
            tick()
            self.doors.clock.sleep(tasks.LOOK_AGAIN_S)

    def stop_task(self, repo_id: str, image_id: str) -> None:
        """Stop what runs on an image on this host; return when it has stopped. The work is kept, of several fixes the
        rest does not begin. NotFound when nothing runs on it, Refused when another host works on it."""
        tasks.stop(self.context, self.state, repo_id, require_id(image_id, "image_id"))

    def limit_task(self, repo_id: str, image_id: str, rate: int) -> None:
        """Have what runs on an image on this host move ``rate`` bytes per second at most from now on, 0: as fast as it
        goes. NotFound, Refused as ``stop_task``."""
        tasks.limit(self.context, self.state, repo_id, require_id(image_id, "image_id"), rate)

    # -- images and their data

    def list_images(self, repo_id: str) -> list[ImageReport]:
        """Return the images of a repository with their statuses, removed ones that hold space included. Where storage
        shares blocks between files, each one's used bytes are "at most" and need not add up."""
        return [image for image in self.inspect_repository(repo_id).images if not image.hidden]

    def get_user_data(self, repo_id: str, image_id: str) -> Any:
        """Return the user data of an image."""
        return self.context.visible(repo_id, image_id).user_data

    def set_user_data(self, repo_id: str, image_id: str, user_data: Any) -> None:
        """Replace the user data of an image: any JSON up to MAX_USER_DATA_BYTES. Atomic."""
        from engine.verbs import attributes

        attributes.set_user_data(self.context, repo_id, image_id, user_data)

    def set_strategy(self, repo_id: str, image_id: str, strategy: str) -> None:
        """Change what is valued for an image; check then offers the better representation."""
        from engine.verbs import attributes

        attributes.set_strategy(self.context, repo_id, image_id, strategy)

    def record_digest(self, repo_id: str, image_id: str) -> str:
        """Read a snapshot whole, record its content digest, and return it."""
        from engine.fixes import repair

        record = self.context.visible(repo_id, image_id)
        return repair.record_digest(self.context, self.context.repository(repo_id), record)

    def verify_image(self, repo_id: str, image_id: str) -> None:
        """Read an image back and hold it against its digest. Damaged when it differs, Refused when it has none."""
        from engine.fixes import repair

        repair.verify(self.context, self.context.repository(repo_id), self.context.visible(repo_id, image_id).id)

    def import_image(
        self, target_repo_id: str, path: str, format: str, user_data: Any = None, options: OptionsArgument = None
    ) -> str:
        """Commit the import of an image file as a new virtual disk and return its id.

        ``format`` (raw, qcow2, vmdk, vhdx, vhd, vdi, compressed raw as ``raw.xz``, ``raw.gz`` or ``raw.zst``, or a disk
        of an archive as ``ova:1``) is stated, never probed; a file that refers to others is refused."""
        from engine.verbs import import_image

        parsed = parse("import_image", options)
        image = import_image.disk(self.context, target_repo_id, path, format, _default(user_data), parsed)
        self._auto_fix(target_repo_id, image, parsed)
        return image

    def plan_adoption(self, repo_id: str, paths: Sequence[str], format: str) -> Plan:
        """Return what ``adopt_images`` would do, and what it would refuse and why. Nothing is written."""
        from engine.verbs import adopt

        return adopt.plan(self.context, repo_id, paths, format)

    def adopt_images(self, repo_id: str, plan: Plan, options: OptionsArgument = None) -> dict[str, str]:
        """Commit that the files of a plan become images as they are, with their chains; return ids by path, bases
        first."""
        from engine.verbs import adopt

        parsed = parse("adopt_images", options)
        made = adopt.commit(self.context, repo_id, plan, parsed)
        if parsed.auto_fix:
            with contextlib.suppress(DiskwrightError):
                mending.start_all(self.context, self.state, repo_id, list(made.values()))
        return made

    def name_import_file(self, repo_id: str, image_id: str, path: str) -> None:
        """Say that this host may read ``path`` to finish the import of a disk that another host began, or take it over
        to finish an adoption. Where it is not the very file that an import began with, that starts again. Durable on
        return; check then offers the fix.

        Refused when the image is neither, or the file is another one for certain."""
        from engine.verbs import import_image

        import_image.name_file(self.context, repo_id, image_id, path)

    def export_image(
        self, repo_id: str, image_id: str, path: str, format: str, progress: Callable[[int], None] = lambda done: None,
        options: OptionsArgument = None,
    ) -> None:  # fmt: skip
        """Write an image to a new file; returns when it is complete and durable. Raw: exact length. ``format``: raw,
        qcow2, qcow2-zstd (compressed), vmdk, vhdx, vhd, vdi. A disk in use: as ``copy_image``. Its rate can be changed
        (``limit_task``) where it was begun with that option."""
        from engine.verbs.live import copy

        copy.export_of(self.context, self.state, repo_id, image_id, path, format, progress, options)

    def stream_image(
        self, repo_id: str, image_id: str, write: Callable[[bytes | memoryview], None], options: OptionsArgument = None
    ) -> None:
        """Give ``write`` all bytes of an image in order, raw, with its exact length. Errors of ``write`` pass."""
        from engine.verbs.live import copy

        copy.stream_of(self.context, self.state, repo_id, image_id, write, options)

    def prepare_image(
        self, repo_id: str, image_id: str, writable: bool = True, take_over: bool = False, monitor: str = "",
        name: str = "",
    ) -> Prepared:  # fmt: skip
        """Make an image usable on this host under a lease, for reading several times; the path is valid until teardown
        or boot. ``take_over``: a machine of this host has it open that lost its holder, and gets a new one, at the same
        path. ``monitor``: how to speak to the machine that will write, "qmp:PATH". ``name``: for the path of a disk."""
        from engine.host import preparing

        return preparing.prepare(self.context, self.state, repo_id, image_id, writable, take_over, monitor, name)

    def attach_monitor(self, repo_id: str, image_id: str, monitor: str) -> Prepared:
        """Say how to speak to the machine that has a prepared disk open: "qmp:PATH". Refused when it has not."""
        from engine.host import machines

        return machines.attach(self.context, self.state, repo_id, image_id, monitor)

    @contextlib.contextmanager
    def lend_image(self, repo_id: str, image_id: str, writable: bool = True) -> Iterator[tuple[Prepared, list[int]]]:
        """Prepare an image for one program. It must inherit the descriptors, which are open until the end of the block:
        then it keeps the lease whoever dies. Tear the image down after the block."""
        from engine.host import preparing

        with preparing.lent(self.context, self.state, repo_id, image_id, writable) as found:
            yield found

    def teardown_image(self, repo_id: str, image_id: str, path: str = "") -> None:
        """Undo ``prepare_image``; ``path`` says which, where an image is prepared several times for reading. ImageBusy
        naming the process while a machine has the image open."""
        from engine.host import preparing

        preparing.teardown(self.context, self.state, repo_id, image_id, path)

    def list_prepared(self) -> list[Prepared]:
        """Return the images that are prepared on this host."""
        self._sweep()
        return self.state.prepared()

    def list_unheld(self) -> list[Prepared]:
        """Return the images that are in use on this host as they were prepared, and have lost their holder."""
        self._sweep()
        return self.state.unheld()

    def close(self) -> None:
        """Close what is open in this process; connections stay."""
        self._forget()

    # -- inside

    @property
    def context(self) -> Context:
        """The connected repositories as this process sees them."""
        if self._context is None:
            self._context = Context(self.doors, self.state.connections(), self.state, self._take_over)
        return self._context

    def _forget(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None

    def _manager(self, repo_id: str) -> Manager:
        """Return the role of the manager of a repository, or raise Refused where there is none by design."""
        manager = self.context.repository(repo_id).manager
        if manager is None:
            raise Refused(f"{repo_id} needs no storage repository manager", "A host that has it can change it")
        return manager

    def _sweep(self) -> None:
        """Forget prepared images that nobody holds or uses; also before a disk is frozen, to which their paths lead."""
        if self.state.unheld():
            from engine.host import preparing

            preparing.sweep(self.context, self.state)

    def _take_over(self, context: Context, repository: Repository, image: str) -> None:
        from engine.host import preparing

        preparing.take_over(self.state, context, repository, image)

    def _auto_fix(self, repo_id: str, image: str, wanted: Options) -> None:
        """Start the fix that makes a committed image usable soonest. What prevents it is no error of
        the verb, whose intent is on disk: the status says what it was, and check offers the fix."""
        if wanted.auto_fix:
            with contextlib.suppress(DiskwrightError):
                mending.start(self.context, self.state, repo_id, image, wanted.rate)


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(parameters, Mapping):
        raise BadRequest("connection_parameters must be an object")
    return dict(parameters)


def _default(user_data: Any) -> Any:
    return {} if user_data is None else user_data
