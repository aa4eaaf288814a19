"""What an operator does in a random run, chosen by the tape: some acts are for when nobody runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.explore.oracle.reference import Key, Model
from sim.explore.random.machines import BLOCK
from sim.explore.random.operator import Meanwhile, Operator, known_disks
from sim.hosts.tape import Tape

_MANY = 10_000
"""More than a repository has objects."""


class Acts:
    """Chooses what is done before a round, among the acts that a world has."""

    def __init__(
        self, tape: Tape, operator: Operator, hosts: Sequence[str], repositories: Sequence[str],
        make_peace: Callable[[], None],
    ) -> None:  # fmt: skip
        """``operator`` does them; ``make_peace``: end all that runs."""
        self._tape, self.tools, self._hosts, self._repositories = tape, operator, hosts, repositories
        self._make_peace = make_peace

    def choose(self, names: Sequence[str], models: tuple[Model, ...]) -> Meanwhile | None:
        """Do one of these, or nothing; None: nothing was done."""
        what = self._tape.choose(2 * len(names), "operator")
        if not 0 < what <= len(names):
            return None
        repo = self._repositories[self._tape.choose(len(self._repositories), "repository")]
        return self.do(names[what - 1], repo, models)

    def do(self, name: str, repo: str, models: tuple[Model, ...]) -> Meanwhile | None:
        """Do one; None: there was nothing to do it to."""
        return _ACTS[name](self, repo, models)

    # -- for ever

    def _back_up(self, repo: str, models: tuple[Model, ...]) -> Meanwhile | None:
        self._make_peace()
        return self.tools.back_up(models[0], repo) if len(models) == 1 else None

    def _grow(self, repo: str, models: tuple[Model, ...]) -> Meanwhile | None:
        disk = self._disk(models)
        if disk is None:
            return None
        return self.tools.grow(models[0], *disk, flushed=bool(self._tape.choose(2, "flushed")))

    def _cut_short(self, repo: str, models: tuple[Model, ...]) -> Meanwhile | None:
        images = self.tools.may_be_cut(models[0]) if len(models) == 1 else []
        if not images:
            return None
        image = images[self._tape.choose(len(images), "disk")]
        return self.tools.cut_short(models[0], *image, self._tape.choose(4, "quarters"))

    def _disk(self, models: tuple[Model, ...]) -> Key | None:
        """A disk of which all is known."""
        if len(models) > 1:
            return None
        disks = known_disks(models[0])
        return disks[self._tape.choose(len(disks), "disk")] if disks else None

    def _rename(self, repo: str, models: tuple[Model, ...]) -> Meanwhile:
        return self.tools.rename_host(self._hosts[0], self._host())

    def _boot(self, repo: str, models: tuple[Model, ...]) -> Meanwhile:
        return self.tools.boot(self._host())

    def _lose_leases(self, repo: str, models: tuple[Model, ...]) -> Meanwhile:
        return self.tools.lose_leases(self._host())

    def _host(self) -> str:
        return self._hosts[self._tape.choose(len(self._hosts), "which host")]

    # -- for a round

    def _fill(self, repo: str, models: tuple[Model, ...]) -> Meanwhile:
        return self.tools.fill(self._tape.choose(3, "room") * BLOCK)

    def _take_rights(self, repo: str, models: tuple[Model, ...]) -> Meanwhile:
        number = self._tape.choose(_MANY, "object")
        return self.tools.take_rights(repo, number, bool(self._tape.choose(2, "for reading")))

    def _take_away(self, repo: str, models: tuple[Model, ...]) -> Meanwhile:
        self._make_peace()
        return self.tools.take_away(repo)

    def _clone_over(self, repo: str, models: tuple[Model, ...]) -> Meanwhile:
        self._make_peace()
        return self.tools.clone_over(repo, next(other for other in self._repositories if other != repo))

    def _restore(self, repo: str, models: tuple[Model, ...]) -> Meanwhile | None:
        self._make_peace()
        return self.tools.restore(repo) or self._back_up(repo, models)

    def _put_metadata_back(self, repo: str, models: tuple[Model, ...]) -> Meanwhile | None:
        self._make_peace()
        return self.tools.put_metadata_back(repo)

    def _upgrade(self, repo: str, models: tuple[Model, ...]) -> Meanwhile | None:
        """The whole of it, or one record."""
        self._make_peace()
        images = sorted(image for where, image in models[0].images if where == repo)
        what = self._tape.choose(1 + len(images), "of a newer program")
        if what:
            return self.tools.record_of_a_newer_program(repo, images[what - 1])
        return self.tools.upgrade(repo)


_ACTS: dict[str, Callable[[Acts, str, tuple[Model, ...]], Meanwhile | None]] = {
    "fill": Acts._fill, "away": Acts._take_away, "clone": Acts._clone_over, "restore": Acts._restore,
    "back up": Acts._back_up, "grow": Acts._grow, "rename": Acts._rename, "boot": Acts._boot,
    "chmod": Acts._take_rights, "truncate": Acts._cut_short, "upgrade": Acts._upgrade, "lost leases": Acts._lose_leases,
    "older metadata": Acts._put_metadata_back,
}  # fmt: skip
BESIDE_A_GROUP = ("away", "grow", "rename", "boot")
"""What can be done beside a volume group, or to its devices as a whole."""
ON_A_GROUP = (*BESIDE_A_GROUP, "fill", "clone", "restore", "back up", "chmod", "truncate")
"""And with other tools on it, as on files."""
WITH_TOOLS_OF_LVM = (*ON_A_GROUP, "older metadata")
ON_FILES = (*ON_A_GROUP, "upgrade")
ON_A_SERVER = (*ON_FILES, "lost leases")
