"""A file server that dies and stays away: whoever works there ends soon, says so, and what is done is kept."""

from __future__ import annotations

import errno

import pytest

from engine.doors.files import Stat
from engine.errors import DiskwrightError, OutcomeUnknown
from engine.formats.nfs.patience import LATE_S, REST_S, Patience, with_patience
from sim.disk.files import Fault
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.oracle.recovery import recover
from sim.hosts.processes import SimProcess
from sim.hosts.world import NFS, World, on_server

TIMEOUT_S = 30.0
STEP = 2
"""Every second call is enough: from there on they all fail."""


class Away:
    """A hook: from one call on the server of a repository does not answer, and each call takes its time to fail."""

    def __init__(self, repository: str, since: int) -> None:
        self._place = f"/srv/{repository}/"
        self._left = since
        self.world: World | None = None
        self.timeouts = 0
        self._program = False

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        if self._place not in on_server(what):
            return Fault.NONE
        self._left -= 1
        if self._left < 0:
            assert self.world is not None
            program = call.startswith("handle.")
            self.timeouts += not (program and self._program)  # a program that fails asks for more than one thing
            self._program = program
            self.world.advance(TIMEOUT_S)
            raise OSError(errno.EIO, "Input/output error", what)
        return Fault.NONE


@pytest.fixture(scope="module")
def driver() -> Driver:
    """A copy from a to b that has yet to be made."""
    return prepared(Case("copy", images.a_committed_copy, lambda driver: None, format=NFS), "nfs")


@pytest.mark.parametrize("repository", ["a", "b"])
def test_a_copy_ends_after_two_timeouts(driver: Driver, repository: str):
    """Wherever it is when the server of its source or of its target dies; the error is one of operating, and when the
    server is back another host finishes the copy. Found so: each step of tidying up asked the dead server again."""
    ended = most = 0
    for since in range(0, 400, STEP):
        away = Away(repository, since)
        world = driver.world.fork(driver.world.storage.clone())
        away.world = world
        engine = world.host("one")
        (fix,) = engine.check_storage_repository("b")
        world.process_of(engine).hook = away
        try:
            engine.run_fix_here("b", fix)
        except DiskwrightError as error:
            ended += 1
            told = "[EIO]" in error.message or "[ETIMEDOUT]" in error.message
            assert told or isinstance(error, OutcomeUnknown), error
        if not away.timeouts:
            break
        most = max(most, away.timeouts)
        assert away.timeouts <= 2, f"{away.timeouts} timeouts after {since} calls"
        world.bury("one")
        assert not recover(world, driver.models)
    assert ended > 10 and most == 2


def test_after_a_rest_the_server_is_asked_again(driver: Driver):
    """An error that comes at once says nothing about the server; one that comes late is believed for a while."""
    world = World()
    process = world.machine("one").process("direct")
    patience = Patience(process.doors.clock, process.doors.files.privileged)
    asked: list[float] = []

    def failing(after_s: float) -> None:
        asked.append(world.now)
        world.advance(after_s)
        raise OSError(errno.EIO, "Input/output error")

    for late in (0.0, LATE_S[errno.EIO] / 2, LATE_S[errno.EIO], LATE_S[errno.EIO]):
        with pytest.raises(OSError):
            patience.call(failing, late)
    assert len(asked) == 3, "what a server answered after a while is not a server that is away"
    world.advance(REST_S)
    with pytest.raises(OSError):
        patience.call(failing, 0.0)
    assert len(asked) == 4
    stat = with_patience(process.doors).files.stat("/srv")
    assert isinstance(stat, Stat)
