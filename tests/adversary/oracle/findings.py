"""What the adversary says: a finding (something is wrong), or that it could not try."""

from dataclasses import dataclass


class CannotTry(Exception):
    """This machine lacks what an action needs."""


class NotThere(Exception):
    """What an action is about is not there (any more): other work was first, and the action is left out."""


@dataclass(frozen=True)
class Finding:
    """One thing that must not be. `kind` is what a shrunk story has to show again."""

    kind: str
    repository: str
    image: str
    says: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.repository}/{self.image or '-'}: {self.says}"
