"""A repository of files: its identity, what its storage can do, and the order of a scan.

``layout`` says what is where; tags, volumes, progress logs, digest lists, leases and litter have a module each.
What localfs and NFS do differently is in their own modules.
"""

from __future__ import annotations

import contextlib
import errno

from engine.data.model import ALIGNMENT_BYTES, MAX_IMAGE_BYTES, Constraints
from engine.doors.files import Abilities, Access
from engine.errors import DiskwrightError, StorageError, from_os_errors
from engine.formats.base import DEVICE, Missing, Scan
from engine.formats.files import entering, layout, setup
from engine.formats.files.ballast import Ballast
from engine.formats.files.digests import DigestLists
from engine.formats.files.litter import FOREIGN as FOREIGN_LITTER
from engine.formats.files.litter import OLD_GENERATION, LitterBox
from engine.formats.files.parts import USES, Parts, Said
from engine.formats.files.progress import ProgressLogs
from engine.formats.files.tags import Tags
from engine.formats.files.tree import Tree, is_gone
from engine.formats.files.volumes import Adoption, Volumes
from engine.formats.groups import Grouped
from engine.tools.local.threads import collector_off

_NOTHING_SPECIAL = Abilities(direct_io=False, reflink=False, hole_punching=False, max_file_bytes=MAX_IMAGE_BYTES)


_LATER = f"the later file of {layout.IDENTITY_FILE}"
"""The anchor of a repository that was given uses."""


class FileStore:
    """An open repository of files. Stateless but for caches: any number may be open at once. Files are always usable,
    grow as they are written, and every host that has the repository may make them."""

    activation = None
    extents = None
    manager = None

    type_name: str
    shared: bool
    """Several hosts may have it connected at once."""
    fencing: str
    read_errors_count: bool

    def __init__(
        self, tree: Tree, found: layout.Identity, threads: bool, volumes: Volumes, progress: ProgressLogs
    ) -> None:
        """Open the repository in ``tree``. ``threads``: a scan may use some when the storage is slow."""
        self.ballast = Ballast(tree)
        self._said = Said(tree, found)
        self._records = Tags(tree, threads, self._keep, self._said)
        self.tags = Grouped(self._records)
        self.parts = Parts(tree, found.identity, self._said.text, self._enter_uses)
        self.volumes = volumes
        self.adoption = Adoption(tree)
        self.progress = progress
        self.digests = DigestLists(tree)
        self.leases = tree.leases
        self.litter = LitterBox(tree, self._records)
        self._tree = tree
        self._abilities: Abilities | None = None

    def _enter_uses(self) -> None:
        entering.enter(self._tree, self._records, self._said, self.parts)

    def _keep(self) -> None:
        """Have what repositories that were made before lack."""
        self.parts.keep_copy()
        self.ballast.keep()

    def give(self, access: Access) -> None:
        """Write ``access.json``, and go through all volumes."""
        setup.give(self._tree, access)
        self._tree.access = access
        self._said.found = self._said.found._replace(access=access, unclear="")

    def warnings(self) -> list[str]:
        """Return none."""
        return []

    def constraints(self) -> Constraints:
        """Put together what ``abilities`` found, and what the format says."""
        can = self.abilities()
        return Constraints(
            needs_srm=False,
            alignment_bytes=ALIGNMENT_BYTES,
            max_image_bytes=min(MAX_IMAGE_BYTES, can.max_file_bytes),
            direct_io=can.direct_io,
            reflink=can.reflink,
            hole_punching=can.hole_punching,
            discard=can.hole_punching,
            write_zeroes=can.hole_punching,
            shared=self.shared,
            fencing=self.fencing,
        )

    def abilities(self) -> Abilities:
        """Return what the storage can do, tried out at the first call with a file in ``tmp``. Where that is impossible
        (full, or read-only) the answer is that it can do nothing special, and the next call tries again."""
        if self._abilities is None:
            try:
                path, lease = self._tree.claim_temporary("probe")
            except DiskwrightError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.EIO, errno.ETIMEDOUT):
                    raise  # it is away: whoever goes on would wait for it again
                return _NOTHING_SPECIAL
            try:
                self._abilities = self._tree.files.probe(path)
            except OSError:
                return _NOTHING_SPECIAL
            finally:
                lease.release()
        return self._abilities

    @property
    def format(self) -> str:
        """Type and the version that is on disk."""
        return f"{self.type_name}-{self._said.found.version}"

    @property
    def identity(self) -> str:
        """The id in ``repository.json``."""
        return self._said.found.identity

    @property
    def place(self) -> str:
        """The path of the directory."""
        return self._tree.root

    def anchors(self) -> dict[str, int | str]:
        """Ask for the inodes of the directory, of the file with the identity and of the lock file, which is that of all
        leases, and for what tells files from earlier ones of the same number; a file that is missing tells nothing.
        A device has a new number at each NFS mount: it counts on local file systems only."""
        files, root = self._tree.files, self._tree.root
        try:
            stat = files.stat(root)
            found: dict[str, int | str] = {"the directory": stat.inode}
            if not self.shared:
                found[DEVICE] = stat.device
            found |= self._marks(layout.LOCKS_FILE) | self._marks_of_identity()
        except OSError as error:
            if not is_gone(error):
                return {}  # whoever works with it is told
            raise StorageError(f"there is no repository at {root} any more", "Mount it again, or put it back") from None
        return found

    def _marks_of_identity(self) -> dict[str, int]:
        """The file is another one in each state on the way to uses (``entering``): no mark of it holds before the last,
        which has marks of its own; and none while the state cannot be read. A program that knows no uses takes that for
        another repository."""
        last, marks = self._said.found.uses, self._marks(layout.IDENTITY_FILE)
        if not marks:
            self._tree.files.stat(self._tree.path(layout.COPY_FILE))
        elif not last:
            try:
                self._said.again()  # after the look at the file: what is seen here came before it was changed
            except OSError:
                return {}
            except DiskwrightError as error:
                if isinstance(error.__cause__, OSError):
                    return {}
        if not self._said.found.later:
            return marks
        return {name.replace(layout.IDENTITY_FILE, _LATER): mark for name, mark in marks.items()} if last else {}

    def _marks(self, name: str) -> dict[str, int]:
        """What tells a file from others, and from earlier ones with its number where that can be told; nothing when it
        is missing."""
        path, generation = self._tree.path(name), None
        try:
            inode = self._tree.files.stat(path).inode
        except FileNotFoundError:
            return {}
        with contextlib.suppress(OSError):
            generation = self._tree.files.inode_generation(path)
        return {name: inode} | ({} if generation is None else {f"the inode generation of {name}": generation})

    def space(self) -> tuple[int, int]:
        """Ask for the file system."""
        with from_os_errors("ask for the space of the repository"):
            space = self._tree.files.space(self._tree.root)
        return space.total_bytes, space.free_bytes

    def scan(self) -> Scan:
        """List volumes first, then tags, then the rest. Neither a damaged record nor a directory that cannot be listed
        stops it; StorageError when not even the directories can be named."""
        with collector_off():
            return self._scan()

    def _scan(self) -> Scan:
        with contextlib.suppress(OSError, DiskwrightError):
            self._said.again()
        missing, strangers = self.parts.look()
        volumes, litter, unlisted = self.litter.volumes()
        shards = self._records.shards()
        unlisted += [(shard.name, shard.problem) for shard in shards if shard.problem]
        tags = {entry.id: entry for shard in shards for entry in shard.entries}
        doubts: dict[str, tuple[str, ...]] = {}
        for shard in shards:
            for use in shard.uses:
                if use.user in tags and tags[use.user].problem:
                    doubts[use.subject] = (*doubts.get(use.subject, ()), use.user)
            litter += self.litter.uses(shard.uses, tags, {name for name, _ in unlisted})
            litter += self.litter.named(OLD_GENERATION, shard.older)
            litter += self.litter.named(FOREIGN_LITTER, shard.foreign)
        if not self.tags.knows_users:
            missing.append(Missing(USES, ""))
        elif any(entering.missing_uses(self._records, shards)):
            missing.append(Missing(USES, "names"))
        litter += self.litter.named(FOREIGN_LITTER, strangers)
        others, unread = self.litter.others(volumes, tags)
        unread += [(layout.ACCESS_FILE, self._said.found.unclear)] if self._said.found.unclear else []
        return Scan(
            volumes,
            self.tags.meant(tags),
            litter + others,
            tuple(unlisted),
            missing=tuple(missing),
            unread=tuple(unread),
            doubts=doubts if self.tags.knows_users else None,
        )

    def close(self) -> None:
        """Do nothing: nothing is kept open."""
