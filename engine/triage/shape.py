"""The shape of a rule: what a row of the tables of rules says (``rules``; of audits ``engine.audit.rules``)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from engine.data.model import FixType, Risk, WaitKind


class Need(StrEnum):
    """Whether a fix of a rule needs something."""

    NEVER = "never"
    SOMETIMES = "sometimes"
    """Each fix says for itself."""
    ALWAYS = "always"


class Leases(StrEnum):
    """Whose leases a fix holds alone while it runs, all taken before it is verified."""

    NONE = "none"
    """Each file, or image, is looked at again under its lease, where it has one; the executor takes it."""
    TARGET = "target"
    """The lease of the fix's target."""
    IMAGES = "images"
    """The leases of all images that the fix names."""


class Executor(StrEnum):
    """What runs a fix; ``engine.fixes.run`` has a function for each."""

    DELETE = "delete a tag"
    SCRAP = "delete replaced volumes"
    EVIDENCE = "delete kept evidence"
    ATTEMPT = "give an attempt up"
    LOSSES = "accept losses"
    RECORD = "give a record up"
    MEND_RECORD = "mend a record"
    LITTER = "delete small files"
    LOST = "delete a quarantined volume"
    PUT_BACK = "put a quarantined volume back"
    PART = "make a part of the repository"
    LOCKS = "make the lock file"
    USES = "enter who needs whom"
    QUARANTINE = "quarantine a volume"
    MERGE = "merge"
    CREATE = "make a disk"
    COPY = "copy"
    IMPORT = "import"
    ADOPT = "adopt"
    REPLICA = "bring a replica in"
    SALVAGE = "salvage"
    HOLD = "put a holder beside a machine"
    ADOPT_SIZE = "record the size that a volume has"
    ACCEPT_WRITTEN = "accept what was written to a volume"
    HEADER = "rewrite a header"
    REDUCE = "reduce a volume"
    LEAKS = "repair leaks"
    SPARSIFY = "punch holes into a volume"
    FLATTEN = "make a fresh flat volume"


Wording = str | Mapping[str, str]
"""A sentence with named blanks; or several, by the case that they are for."""


class Rule(NamedTuple):
    """One rule: a reason for a status, a fix that can be offered, or both."""

    code: str
    means: str
    """For the operator: what has happened."""
    status: str = ""
    """The status that it is the reason of, or that its fix is offered for; "" for no image's."""
    says: Wording = ""
    """The reason of the status."""
    type: FixType | None = None
    """None: no fix has this code."""
    offers: Wording = ""
    """The reason of the fix."""
    does: str = ""
    """For the operator: what the fix does."""
    stuck: str = ""
    """For the operator: what to do when it cannot run, or when there is none."""
    executor: Executor | None = None
    risk: Risk = Risk.REVERSIBLE
    """The highest; a fix of it may have a lower one."""
    leases: Leases = Leases.TARGET
    volumes: Need = Need.NEVER
    """Whether a fix makes, removes, renames or resizes volumes: then it runs on the manager (SRM) where there is
    one."""
    deep: Need = Need.NEVER
    """Found only by a deep check."""
    waits: tuple[WaitKind, ...] = ()
    """Things outside that a fix of it may have to wait for, besides room."""
    all_records: bool = False
    """A fix deletes or overwrites what no record needs, so all records must be understood."""
    mended_by: tuple[str, ...] = ()
    """Rules of the fixes for it, where they have codes of their own."""
    last: bool = False
    """Fixes of this rule run after all others, which leave something for them."""
    command: tuple[str, ...] = ()
    """What is to be typed where it is found, words with named blanks: for what only ``audit`` finds."""

    @property
    def frees(self) -> bool:
        """Its fix frees room, or leads to that, so it may use what is set apart for it."""
        return self.type is FixType.CLEAN or self.executor in (Executor.DELETE, Executor.PART, Executor.LOCKS)
