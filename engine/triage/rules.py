"""The one table of rules: why an image has its status, and which fixes can be offered.

Lives here, as plain data: code, wording, type, status, risk, needs, executor, and what the operator is told. Does not
live here: when a rule applies (the modules beside this one), and what its fix does (``engine.fixes``). Everything
else that knows rules asks this table: executors, order, the scenario language, ``diskwright why RULE``, docs/rules.md.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.data.model import FixType, Risk, Status, WaitKind
from engine.triage.shape import Executor, Leases, Need, Rule, Wording

B_CREATE: Final = "B-CREATE"
B_COPY: Final = "B-COPY"
B_IMPORT: Final = "B-IMPORT"
B_ADOPT: Final = "B-ADOPT"
B_SNAPSHOT: Final = "B-SNAPSHOT"
B_UNFINISHED: Final = "B-UNFINISHED"
B_PURGING: Final = "B-PURGING"
B_GONE: Final = "B-GONE"
B_LOST: Final = "B-LOST"
B_OLDER: Final = "B-OLDER"
B_DATA: Final = "B-DATA"
B_DIGEST: Final = "B-DIGEST"
B_CORRUPT: Final = "B-CORRUPT"
B_RECORD: Final = "B-RECORD"
B_PARENT: Final = "B-PARENT"
B_LOOP: Final = "B-LOOP"
B_BASE: Final = "B-BASE"
B_REPLICA: Final = "B-REPLICA"
B_SALVAGE: Final = "B-SALVAGE"
B_PART: Final = "B-PART"
B_LOCKS: Final = "B-LOCKS"
U_RECORD: Final = "U-RECORD"
U_VERSION: Final = "U-VERSION"
U_DATA: Final = "U-DATA"
U_READ: Final = "U-READ"
U_PARENT: Final = "U-PARENT"
U_BASE: Final = "U-BASE"
D_LOST: Final = "D-LOST"
O_DIRTY: Final = "O-DIRTY"
O_FLAT: Final = "O-FLAT"
O_DEPTH: Final = "O-DEPTH"
O_FORMAT: Final = "O-FORMAT"
O_OVERSIZE: Final = "O-OVERSIZE"
O_ZEROS: Final = "O-ZEROS"
O_GROWN: Final = "O-GROWN"
O_WRITTEN: Final = "O-WRITTEN"
O_UNHELD: Final = "O-UNHELD"
O_HEADER: Final = "O-HEADER"
O_LEAKS: Final = "O-LEAKS"
O_REDUCE: Final = "O-REDUCE"
O_USES: Final = "O-USES"
M_CHAIN: Final = "M-CHAIN"
C_REMOVED: Final = "C-REMOVED"
C_HIDDEN: Final = "C-HIDDEN"
C_SCRAP: Final = "C-SCRAP"
C_EVIDENCE: Final = "C-EVIDENCE"
C_ATTEMPT: Final = "C-ATTEMPT"
C_LOSSES: Final = "C-LOSSES"
C_RECORD: Final = "C-RECORD"
C_LITTER: Final = "C-LITTER"
C_LOST: Final = "C-LOST"
C_UNNAMED: Final = "C-UNNAMED"

_BROKEN, _DEGRADED, _UNKNOWN = Status.BROKEN, Status.DEGRADED, Status.UNKNOWN
_DAMAGE = (B_REPLICA, B_SALVAGE)
_FLAT = "{reason}; a fresh flat volume replaces it{unfinished}"
_MAKE_FLAT = (
    "Copies the image into a fresh flat volume, points the record at it in one step, and deletes the old volume. "
    "The image reads the same at every moment."
)
_BESIDE = _MAKE_FLAT + (
    " Where a machine has the disk open that can be spoken to by a monitor of its own, it mirrors the disk into that "
    "volume while it runs, and goes on there."
)
_NO_ROOM = "It needs room for a whole copy beside the old volume: clean or merge first, or leave it; it is usable."
_GO_ON = "Goes on at the last saved position, on any host; what was done is kept. One record makes the image whole."
_READABLE = "Make the storage readable (a server, a cable, a path), then look again. Nothing is offered on a guess."

# fmt: off
_TABLE: tuple[Rule, ...] = (
    # -- broken: an operation has not ended
    Rule(B_CREATE, "The disk was promised, and its volume has not been made.", _BROKEN,
         "{verb} has not finished{share}{rest}", FixType.MEND, "{reason}{cursor}",
         "Makes the volume, empty or on its base; a base in another repository is brought in first. " + _GO_ON,
         "If its base is gone for good, remove the image.",
         Executor.CREATE, volumes=Need.SOMETIMES, waits=(WaitKind.BASE, WaitKind.SOURCE)),
    Rule(B_COPY, "The copy was promised, and not all of its data is there.", _BROKEN,
         "{verb} has not finished{share}{rest}", FixType.MEND, "{reason}{cursor}",
         "Copies what is left from the source. " + _GO_ON,
         "Connect the repository that has the source. If the source is gone for good, remove the copy.",
         Executor.COPY, volumes=Need.SOMETIMES, waits=(WaitKind.SOURCE, WaitKind.BASE)),
    Rule(B_IMPORT, "The import was promised, and not all of the file has been read.", _BROKEN,
         "{verb} has not finished{share}{rest}", FixType.MEND, "{reason}{cursor}",
         "Checks the file, reads what is left of it, and seals the disk only if the file did not change. " + _GO_ON,
         "Put the same file back where it was (same size, time and inode). A host reads only files that were named on "
         "it: on another one than where the import was begun give its path, diskwright fix REPO FIX --path FILE. If "
         "the file is cut off or damaged, or is gone, remove the image.",
         Executor.IMPORT, volumes=Need.SOMETIMES, waits=(WaitKind.PATH, WaitKind.BASE)),
    Rule(B_ADOPT, "The file is to become a volume as it is, and has not all of that behind it.", _BROKEN,
         "{verb} has not finished{share}{rest}", FixType.MEND, "{reason}{cursor}",
         "Gives the file the name of a volume beside its own, checks it, and takes its own name away last; one record "
         "makes the image whole. Nothing is copied.",
         "To give it up, remove the image and clean it away: its file keeps the name that it had, or gets it again. "
         "Stop what has the file open. A base is taken over before what stands on it. On another host than where the "
         "adoption was begun give the file's path there: diskwright fix REPO FIX --path FILE.",
         Executor.ADOPT, volumes=Need.SOMETIMES, waits=(WaitKind.PATH, WaitKind.BASE)),
    Rule(B_SNAPSHOT, "A snapshot was begun and its record does not say that it counts. The disk is as it was.",
         _BROKEN, "{verb} has not finished{share}{rest}",
         stuck="Nothing needs to be saved: check offers to clean or merge what is left. Make the snapshot again."),
    Rule(B_UNFINISHED, "An operation that this version does not know has not ended.", _BROKEN,
         "{verb} has not finished{share}{rest}",
         stuck="Finish it with the version that began it, or remove the image."),
    Rule(B_PURGING, "Its deletion has begun, and something may still depend on it.", _BROKEN,
         "it is being deleted", FixType.MEND,
         {"taken back": "Its deletion was begun, and {whose} depends on it: this takes the deletion back",
          "goes on": "Its deletion was begun and goes on; {whose} needs it and was begun later"},
         "Takes the deletion back while nothing has been deleted; later than that it ends the deletion, and what was "
         "begun on it fetches its base anew.",
         "Wait for the host that deletes it, or stop it there.",
         Executor.DELETE, volumes=Need.SOMETIMES, waits=(WaitKind.RECORD,), all_records=True),
    # -- broken: the data is not what it should be
    Rule(B_GONE, "The volume that the record names is not there.", _BROKEN, "its data is gone: the volume is missing",
         stuck="Put the volume back (on LVM vgcfgrestore, if its metadata was put back; make nothing before that), or "
         "connect a repository that has the same snapshot. Else remove the image.",
         mended_by=(B_REPLICA, B_LOST)),
    Rule(B_LOST, "The volume that the record names stands in quarantine: the record came after it, from a backup or "
         "another copy.", _BROKEN, type=FixType.MEND,
         offers="{reason}; it stands in quarantine ({name}) and is put back",
         does="Renames the volume out of lost/. Nothing is deleted or replaced.",
         stuck="Look at what has its place, if it says that something has.", executor=Executor.PUT_BACK,
         volumes=Need.ALWAYS),
    Rule(B_OLDER, "The volume that the record of the disk names is a snapshot's by now: the newest record of the disk "
         "is gone, and an older one is there. Writing to the disk would change the snapshot.", _BROKEN,
         "its record is an older one: its volume is the data of snapshot {image}", FixType.MEND,
         "{reason}; the disk stands on the one volume above it that no record names",
         "Publishes a record that names that volume. No data is touched.",
         "Put the newest record of the disk back from a backup, or remove the disk: the snapshot stays as it is. If it "
         "is the record of the snapshot that was put back, and that was merged into the disk since, take it away.",
         Executor.MEND_RECORD),
    Rule(B_DATA, "The volume is there, and is not what the record says: its size, its format or its header.", _BROKEN,
         "its data is damaged: {problem}",
         stuck="Put the right volume back, or run what is offered.", mended_by=_DAMAGE),
    Rule(B_DIGEST, "The content was read, and is not what the snapshot's digest says.", _BROKEN,
         "its data is wrong: {problem}",
         stuck="Look for a replica. A salvage is offered only where it is known which parts are wrong.",
         deep=Need.ALWAYS, mended_by=_DAMAGE),
    Rule(B_CORRUPT, "qemu-img check finds that the tables of the volume contradict each other.", _BROKEN,
         "its data is damaged: qemu-img check finds {count} corruptions",
         stuck="Look for a replica, or salvage what can be read.", deep=Need.ALWAYS, mended_by=_DAMAGE),
    Rule(B_RECORD, "The checksum of the newest record is wrong: torn, overwritten, or edited. Or it is gone, and the "
         "one before it, which never counts again, says that it was there.", _BROKEN,
         "its record is damaged: {problem}", FixType.MEND,
         {"before": "{reason}; the record before it is intact, and all that it names is there. What the last change "
          "was is not known: user data may be older, and an image that was removed is there again",
          "replica": "{reason}; the same snapshot is intact in {where} and is copied from there. Its user data is "
          "that of the replica",
          "header": "{reason}; images stand on it, and one volume that no record names is what they stand on. Its "
          "user data and its exact size are not known any more"},
         "Publishes a record again, from the first witness that proves itself: the record before it, the same snapshot "
         "in another connected repository, or the header of the volume and the images that stand on it.",
         "Put the record back from a backup, or connect a repository that has the same snapshot. What no image that "
         "was not removed depends on can be given up. A record that is gone may come back (a restore that has not "
         "ended): the fix, after which it would not count any more, runs only when that is said.",
         Executor.MEND_RECORD, Risk.IRREVERSIBLE, waits=(WaitKind.RECORD,), mended_by=(C_RECORD,)),
    Rule(B_PARENT, "The image stands on a base that is gone, is larger than the image, or is being merged into another "
         "one.", _BROKEN,
         {"gone": "the base {base} is gone", "larger": "it is smaller than its base {base}",
          "merged": "its base {base} is being merged into image {image}"},
         stuck="Bring the base back (a copy keeps its id), or remove the image."),
    Rule(B_LOOP, "Following its bases leads back to itself. No operation makes that; somebody edited a record.",
         _BROKEN, "its chain runs in a circle", stuck="Put the right records back, or remove the images."),
    Rule(B_BASE, "The image itself is in order; one below it is broken.", _BROKEN, "needs image {image}: {reason}",
         stuck="Mend the image that it needs; nothing is to be done here."),
    Rule(B_REPLICA, "A snapshot is damaged, or has lost ranges, and the same snapshot may be whole elsewhere.", _BROKEN,
         type=FixType.MEND, offers={"found": "{reason}; the same snapshot is intact in {where}", "wanted": "{reason}"},
         does="Copies the replica into a fresh volume. Its content must have the recorded digest, or nothing is "
         "replaced. The damaged volume is kept as evidence.",
         stuck="Connect a repository that has the same snapshot, whole.",
         executor=Executor.REPLICA, volumes=Need.SOMETIMES, deep=Need.SOMETIMES, waits=(WaitKind.REPLICA,)),
    Rule(B_SALVAGE, "The data is damaged and no whole replica is known.", _BROKEN, type=FixType.MEND,
         offers="{reason}; what can still be read is copied into a fresh volume, the rest reads as zeros and is named",
         does="Copies what can be read into a fresh volume. What cannot is zeros, and the record names those ranges. "
         "The damaged volume is never written, and is kept as evidence.",
         stuck="Look for a replica or a backup first: this one only runs when it is asked for by name.",
         executor=Executor.SALVAGE, risk=Risk.LOSES_DATA, volumes=Need.ALWAYS, deep=Need.SOMETIMES),
    # -- broken: the repository, and no image
    Rule(B_PART, "A directory of the repository is missing, or the file that says who it is is missing or damaged. "
         "Images can be listed and read; what needs that part is refused.", _BROKEN,
         type=FixType.MEND,
         offers={"nothing": "The directory {name} of the repository is missing; this makes it again, empty",
                 "volumes": "The directory {name} of the repository is missing, with the data of all images; this "
                 "makes it again, empty, and images whose data was there are broken then",
                 "identity": "The file {name} of the repository is missing or damaged; this writes it again from its "
                 "other copy",
                 "names": "Names that say who needs whom are missing ({name}); this makes them from the records"},
         does="Makes the directory; or writes the file again from its other copy; or enters what all records need. No "
         "image is touched. Other hosts that have the repository connected may have to accept it: connect "
         "--accept-moved.",
         stuck="Look for the directory of the data first; making that one again only runs when asked for by name.",
         executor=Executor.PART, risk=Risk.LOSES_DATA, leases=Leases.NONE),
    Rule(B_LOCKS, "The lock file of the repository is missing. Images can be listed; whoever wants a lease is refused.",
         _BROKEN, type=FixType.MEND, offers="The lock file of the repository is missing; this makes it again",
         does="Makes the file when nobody, on any host, has the data of an image open, and all of it can be seen. Who "
         "had a lease finds out.",
         stuck="Tear down what is prepared and stop what runs, on every host. Hosts that had the repository connected "
         "refuse it afterwards, until it is said on each: connect --accept-moved. If data is lost for good and no host "
         "uses any for certain, make an empty file locks in the repository by hand, and say that on each host.",
         executor=Executor.LOCKS, leases=Leases.NONE, waits=(WaitKind.DATA,)),
    # -- unknown: nothing may be concluded
    Rule(U_RECORD, "The storage did not give the record just now.", _UNKNOWN, "its record cannot be read: {problem}",
         stuck=_READABLE),
    Rule(U_VERSION, "The record is whole, and has words that this version does not know: another version wrote it.",
         _UNKNOWN, "its record was written by another version of diskwright (the repository is {format}): {problem}",
         stuck="Use the version that wrote it. It is kept, and nothing is deleted that it may need."),
    Rule(U_DATA, "The storage did not give the volume just now.", _UNKNOWN, "its data cannot be read: {problem}",
         stuck=_READABLE),
    Rule(U_READ, "Some of the content could not be read just now; that does not prove that it is lost.", _UNKNOWN,
         "some of its data cannot be read: {problem}",
         stuck="Look at the disk, its cable and its path, then check with --deep again. If it is lost, take the "
         "replica or the salvage that is offered.", deep=Need.ALWAYS, mended_by=_DAMAGE),
    Rule(U_PARENT, "A part of the repository cannot be listed, and its base may be there.", _UNKNOWN,
         "the base {base} may be where nothing can be listed", stuck=_READABLE),
    Rule(U_BASE, "The image itself is in order; one below it could not be read.", _UNKNOWN,
         "needs image {image}: {reason}", stuck="Make the image that it needs readable; nothing is to be done here."),
    # -- degraded: usable, and could be represented better
    Rule(D_LOST, "Parts of it are known to be lost; they read as zeros. Copies, merges and disks on top inherit them.",
         _DEGRADED, "{count} bytes in {ranges} ranges are lost and read as zeros",
         stuck="If ranges below it are lost, mend the image that has them.", mended_by=(B_REPLICA, C_LOSSES)),
    Rule(O_DIRTY, "The qcow2 header says that its writer did not end in order.", _DEGRADED,
         "its qcow2 header says it was not closed", FixType.OPTIMIZE, _FLAT, _MAKE_FLAT, _NO_ROOM,
         Executor.FLATTEN, volumes=Need.ALWAYS),
    Rule(O_FLAT, "Performance was asked for, and reading it goes through several layers.", _DEGRADED,
         "it reads through {depth} layers and performance was asked for", FixType.OPTIMIZE, _FLAT, _BESIDE, _NO_ROOM,
         Executor.FLATTEN, volumes=Need.ALWAYS),
    Rule(O_DEPTH, "Each layer makes opening slower, and is one more volume that can be lost.", _DEGRADED,
         "its chain has {depth} layers, more than {most}", FixType.OPTIMIZE, _FLAT, _BESIDE, _NO_ROOM,
         Executor.FLATTEN, volumes=Need.ALWAYS),
    Rule(O_FORMAT, "It is flat, in another format than its strategy wants: raw for performance, qcow2 for space.",
         _DEGRADED, "it is {format} and {strategy} was asked for", FixType.OPTIMIZE, _FLAT, _BESIDE, _NO_ROOM,
         Executor.FLATTEN, volumes=Need.ALWAYS),
    Rule(O_OVERSIZE, "A fresh copy would take clearly less room.", _DEGRADED,
         "it occupies {over} bytes more than a fresh copy would", FixType.OPTIMIZE, _FLAT, _BESIDE, _NO_ROOM,
         Executor.FLATTEN, volumes=Need.ALWAYS, deep=Need.SOMETIMES),
    Rule(O_ZEROS, "Its raw volume takes room for zeros: a guest has written them, or it was made with all of its room, "
         "and nobody told the storage that they are not needed.", _DEGRADED,
         "zeros take {over} bytes of its volume", FixType.OPTIMIZE, "{reason}; this gives them back in place",
         "Punches holes where the volume holds nothing but zeros. The image reads the same at every moment, and no "
         "room is needed; a storage without holes (NFS before 4.2) gets a fresh flat volume instead.",
         "Wait until nobody uses the image.", Executor.SPARSIFY, deep=Need.ALWAYS),
    Rule(O_UNHELD, "A machine or a tool writes to it, and no holder has the lease for that: the holder was killed, or "
         "the volume was opened by hand. The data is protected as long as it is open: nothing is sealed, merged, "
         "replaced or deleted.", _DEGRADED, "in use by {users} without a holder", FixType.OPTIMIZE,
         "{reason}; this puts a new holder beside it",
         "Prepares the image for what has it open: a new holder takes the leases, at the same path if it was prepared "
         "before. The machine notices nothing, and diskwright teardown ends it. diskwright prepare REPO IMAGE "
         "--take-over does the same.",
         "Run it on the host of the machine. Or stop the machine; what else is to be done to the image is offered "
         "then.",
         Executor.HOLD, leases=Leases.NONE, waits=(WaitKind.HOST,)),
    Rule(O_GROWN, "A resize was interrupted, or another tool has made the volume of the disk longer than its record "
         "says. What lies behind the recorded size would be lost with the next copy, so nothing is built on it before "
         "its size is settled.", _DEGRADED,
         "its volume was made {size} bytes long by a resize that was interrupted or by another tool, and its record "
         "says {recorded}",
         FixType.OPTIMIZE, "{reason}; this makes {size} bytes its size",
         "Makes the length that the volume has durable, and records it. No data is touched; the disk can not be made "
         "shorter again.",
         "Stop the machine that uses the disk, so that it cannot be made longer meanwhile.",
         Executor.ADOPT_SIZE),
    Rule(O_WRITTEN, "The volume was written to while no machine had the image prepared, by another tool or by a "
         "machine that nobody knows of: its file says so. What it contains now may be wanted or not, so nothing is "
         "built on it before that is settled.", _DEGRADED,
         "its data was written to at {when} while nobody had it prepared", FixType.OPTIMIZE,
         {"disk": "{reason}; this makes what it contains now its content",
          "proven": "{reason}, and its digest proves that it is as it was; this takes it for unchanged",
          "unproven": "{reason}, and it has no digest that could tell whether its content is what it was; this makes "
          "what it contains now its content, also for what stands on it"},
         "Records what the volume looks like now, with a remark. No data is touched. A snapshot that has a digest is "
         "read whole by a deep check: it is as it was, or proven to be damaged.",
         "Look at what it contains first: prepare it read-only, or export it. For a snapshot that has a digest check "
         "with --deep. A replica or a backup may have what it was.",
         Executor.ACCEPT_WRITTEN, risk=Risk.LOSES_DATA, deep=Need.SOMETIMES),
    Rule(O_HEADER, "The backing name in its qcow2 header is wrong. Nothing here follows it; other programs might.",
         _DEGRADED, "the backing name in its header is not what its record says (it is derived and never followed)",
         FixType.OPTIMIZE, "{reason}; this rewrites the header only",
         "Rewrites the header from the record, and touches no data.", "Wait until nobody uses the image.",
         Executor.HEADER),
    Rule(O_LEAKS, "Clusters of its qcow2 volume are allocated and used by nothing. No data is in danger.", _DEGRADED,
         "{count} clusters of its volume are leaked", FixType.OPTIMIZE,
         "{reason}; this gives the leaked clusters back, touches nothing else",
         "Runs qemu-img check -r leaks.", "Wait until the host that may still write to it is back, or restarted.",
         Executor.LEAKS, deep=Need.ALWAYS, waits=(WaitKind.HOST,)),
    Rule(O_REDUCE, "A snapshot's logical volume has room at its end that it will never use.", Status.OPTIMIZED, "",
         FixType.OPTIMIZE,
         "It does not change any more, and its volume has room that it will never use; this gives that back",
         "Cuts the unused end off, after qemu-img check has told what is used.",
         "Wait until the host that may still write to it is back, or restarted.",
         Executor.REDUCE, volumes=Need.ALWAYS, waits=(WaitKind.HOST,)),
    Rule(O_USES, "The repository was made before it was noted who needs whom. What is asked about one image reads all "
         "records.", type=FixType.OPTIMIZE,
         offers="Nothing says which image needs which, so work on one reads all records; this enters it for each. "
         "Programs from before that refuse the repository afterwards",
         does="Has every program enter it from now on, enters it for all records that are there, and says then that it "
         "can be believed. Images can be used meanwhile; interrupted, it goes on where it was.",
         stuck="End programs of older versions on all hosts first, consoles too. While a record is being written it is "
         "refused: try again. A record that cannot be understood has to be mended or given up before.",
         executor=Executor.USES, risk=Risk.IRREVERSIBLE, leases=Leases.NONE, waits=(WaitKind.RECORD,)),
    # -- merge and clean: what no image needs
    Rule(M_CHAIN, "Hidden data has one image on it left and nothing else, so the two can be one.", "hidden",
         type=FixType.MERGE,
         offers={"": "Hidden data below image {image} has no other dependant and can become one with it{unfinished}",
                 "run": "{number} layers of hidden data below image {image} have no other dependant and can become "
                 "one with it in one pass{unfinished}"},
         does="Moves the smaller layer into the larger one, or both into a fresh volume where hosts share the "
         "repository. Four layers or more are moved in one pass into a fresh volume, where there is room for it, "
         "and then deleted; the lowest one stays where it is and takes in the others when it is the largest. Where "
         "a machine has the disk open that can be spoken to, it pulls up what is below while it runs. The image "
         "reads the same at every moment.",
         stuck="Tear the image down, or say how to speak to its machine (attach), or wait for who works on it. A merge "
         "that was begun goes on where it was; until it has ended, neither of its two is offered another one.",
         executor=Executor.MERGE, risk=Risk.IRREVERSIBLE, leases=Leases.IMAGES, volumes=Need.ALWAYS,
         waits=(WaitKind.RECORD,), all_records=True),
    Rule(C_REMOVED, "The image was removed; its data is still there, and it can be restored.", "removed",
         type=FixType.CLEAN, offers={"": "The image was removed; its data still holds space",
                                     "adopt": "The image was removed before its file was all taken over; this gives "
                                     "that up, and the file keeps the name that it had, or gets it again"},
         does="Deletes its volumes and its record; a file that was not all taken over is given back, not deleted. "
         "After that the image cannot be restored.",
         stuck="If a record cannot be understood, mend or give up that one first: it may need this data. On another "
         "host than where an adoption was begun, say where its file goes: diskwright fix REPO FIX --path FILE.",
         executor=Executor.DELETE, risk=Risk.IRREVERSIBLE, volumes=Need.SOMETIMES,
         waits=(WaitKind.RECORD, WaitKind.PATH), all_records=True),
    Rule(C_HIDDEN, "Data that was kept for an image which does not need it any more.", "hidden",
         type=FixType.CLEAN, offers="Hidden data that nothing needs any more",
         does="Deletes its volumes and its record.",
         stuck="If a record cannot be understood, mend or give up that one first: it may need this data.",
         executor=Executor.DELETE, volumes=Need.SOMETIMES, waits=(WaitKind.RECORD,), all_records=True),
    Rule(C_SCRAP, "An operation has replaced a volume of the image and ended before it deleted the old one.",
         type=FixType.CLEAN, offers="An older representation of the image is left over from a finished operation",
         does="Deletes the volumes that the record lists as scrap.",
         stuck="If a record cannot be understood, mend or give up that one first.",
         executor=Executor.SCRAP, volumes=Need.SOMETIMES, waits=(WaitKind.RECORD,), all_records=True),
    Rule(C_EVIDENCE, "The image was mended; its damaged volume was kept, so that it can be looked at.",
         type=FixType.CLEAN, offers="The damaged volume was kept as evidence after the image was mended",
         does="Deletes the damaged volume for good.",
         stuck="Export what you want to keep of it first; this one only runs when it is asked for by name.",
         executor=Executor.EVIDENCE, risk=Risk.LOSES_DATA, volumes=Need.SOMETIMES, waits=(WaitKind.RECORD,),
         all_records=True),
    Rule(C_ATTEMPT, "An operation on a usable image was interrupted, and what it was for does not hold any more.",
         type=FixType.CLEAN, offers="An unfinished {verb} is not wanted any more; its partial volume holds space",
         does="Gives the attempt up and deletes its partial volume. The image stays as it is.",
         stuck="If a record cannot be understood, mend or give up that one first.",
         executor=Executor.ATTEMPT, volumes=Need.SOMETIMES, waits=(WaitKind.RECORD,), all_records=True),
    Rule(C_LOSSES, "Ranges of the image are lost, and the operator may decide that zeros will do.", _DEGRADED,
         type=FixType.CLEAN,
         offers="{reason}; this accepts the zeros as the image's content and forgets which ranges they were",
         does="Takes the ranges out of the record; a snapshot gets a digest of what it reads now.",
         stuck="Look for a replica or a backup first: this one only runs when it is asked for by name.",
         executor=Executor.LOSSES, risk=Risk.LOSES_DATA),
    Rule(C_RECORD, "A record is damaged, nothing proves what it said, and no image that was not removed is known to "
         "depend on it.", _BROKEN, type=FixType.CLEAN,
         offers="Its record is damaged; this gives the record up and puts unnamed volumes into lost/",
         does="Replaces the record by one that says that the tag is gone. Its volumes are quarantined, not deleted.",
         stuck="Restore the record from a backup instead, if there is one.",
         executor=Executor.RECORD, risk=Risk.LOSES_DATA),
    Rule(C_LITTER, "Operations that were interrupted have left small files that nothing needs.",
         type=FixType.CLEAN, offers="{count} small files are left over from interrupted operations",
         does="Looks at each file again, under its lease where it has one, and deletes it.",
         stuck="Leave it: the files are small, and cost nothing else.",
         executor=Executor.LITTER, leases=Leases.NONE, volumes=Need.SOMETIMES, last=True),
    Rule(C_LOST, "A volume that no record named stands in quarantine.", type=FixType.CLEAN,
         offers="A volume that no record named stands in quarantine ({name}); this deletes it for good",
         does="Deletes the volume from lost/.",
         stuck="To keep it, import it from there first; this one only runs when it is asked for by name.",
         executor=Executor.LOST, risk=Risk.LOSES_DATA, leases=Leases.NONE, volumes=Need.ALWAYS,
         waits=(WaitKind.RECORD,), all_records=True),
    Rule(C_UNNAMED, "A volume is there that no record names. No operation leaves one: somebody put it there.",
         type=FixType.CLEAN,
         offers="No record names the volume {volume}; this moves it into quarantine (lost/), nothing is deleted",
         does="Lists all records again, and renames the volume into lost/.",
         stuck="It is not offered while a record cannot be understood, which may name it.",
         executor=Executor.QUARANTINE, leases=Leases.NONE, volumes=Need.ALWAYS),
)
# fmt: on

BY_CODE: Mapping[str, Rule] = {rule.code: rule for rule in _TABLE}
"""Every rule, in the order of the table."""

_ORDER = {FixType.MEND: 1, FixType.CLEAN: 2, FixType.MERGE: 3, FixType.OPTIMIZE: 4}


def run_by(*executors: Executor) -> frozenset[str]:
    """Return the codes of the rules whose fixes one of these executors runs."""
    return frozenset(rule.code for rule in _TABLE if rule.executor in executors)


REBUILDS = run_by(Executor.FLATTEN)
"""Degradations that are cured by a fresh flat volume."""
BESIDE = frozenset({O_FLAT, O_DEPTH, O_FORMAT, O_OVERSIZE})
"""Those of them that a running machine can cure: it goes on in that volume."""


def by_machine(code: str, images: Sequence[str], monitored: Mapping[str, bool], deep: bool = False) -> bool:
    """Tell whether the running machine of the first of its images does a fix of a rule. ``monitored``: as in ``View``;
    ``deep``: the fix itself needs a deep look."""
    if not images or images[0] not in monitored:
        return False
    return code == M_CHAIN or (code in BESIDE and not deep and monitored[images[0]])


LITTER_KINDS = ("temporary", "old-generation", "progress", "digest", "use")
"""Kinds of small files that are litter."""
UNFINISHED = run_by(Executor.CREATE, Executor.COPY, Executor.IMPORT, Executor.ADOPT)
"""Operations that are carried on."""
BY_ID_ONLY = run_by(Executor.USES)
"""What shuts older versions out for good: nobody who asks for all that is left means that."""


def rank(code: str) -> tuple[bool, int]:
    """Return the place of a rule's fixes among those of other rules, smallest first."""
    rule = BY_CODE[code]
    assert rule.type is not None, f"{code} has no fix"
    return rule.last, _ORDER[rule.type]


def reason(code: str, case: str = "", **words: Any) -> str:
    """Return the reason of a status with its blanks filled; ``case`` picks one of several wordings."""
    return _filled(BY_CODE[code].says, case, words)


def offer(code: str, case: str = "", **words: Any) -> str:
    """Return the reason of a fix with its blanks filled; ``case`` picks one of several wordings."""
    return _filled(BY_CODE[code].offers, case, words)


@functools.lru_cache(maxsize=64)
def sentence(text: str) -> str:
    """Return a reason as the beginning of a sentence; nearly all images have the same, and get one object."""
    return text[:1].upper() + text[1:]


def _filled(wording: Wording, case: str, words: dict[str, Any]) -> str:
    return (wording if isinstance(wording, str) else wording[case]).format_map(words)


def wordings(wording: Wording) -> tuple[str, ...]:
    """Return the sentences of a wording, none where it is empty."""
    return tuple(text for text in ((wording,) if isinstance(wording, str) else wording.values()) if text)
