"""The adversary finds nothing, as far as it is not known; and it can tell wrong from right."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adversary.__main__ import main, programme, report, run
from tests.adversary.choices import extents
from tests.adversary.doors.machines import NbdClient
from tests.adversary.doors.quick import Quick
from tests.adversary.doors.sites import Here
from tests.adversary.known import KNOWN
from tests.adversary.oracle.contents import BLOCK, Content, block_bytes, extent_bytes, judge
from tests.adversary.oracle.findings import Finding
from tests.adversary.oracle.model import ABSENT, PRESENT, REMOVED, Change, Image, Said, halves, states_after, undecided
from tests.adversary.plots import PLOTS
from tests.adversary.shrinking import shrink
from tests.adversary.stories import Played, Stage, Story

SEED = 20_000


@pytest.mark.slow
def test_the_adversary_finds_nothing_for_a_while(tmp_path):
    """What several hosts do at once, killed anywhere, and what is mended of the world outside, shows nothing wrong. As
    many commands as in three minutes if each were a program of its own; `make adversary` starts them so."""
    command = shutil.which("diskwright", path=str(Path(sys.executable).parent))
    assert command
    quick = Quick()
    try:
        stage = Stage(tmp_path, Here(command, quick))
        wrong = run(stage, seconds=100, seed=SEED, plots=programme(SEED, lacks=Here.lacks), shrink_s=60)
    finally:
        quick.close()
    assert not wrong, report(wrong[0])


def test_what_is_known_is_a_plot():
    """The list of what is known names plots that exist."""
    assert set(KNOWN) <= set(PLOTS)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_plot_is_told_by_its_seed_and_kept_in_a_file(plot):
    """The same seed tells the same plot, and a story is the same after it was kept."""
    import random

    first, second = (PLOTS[plot].make(random.Random(7)) for _ in range(2))
    assert first == second
    story = Story(7, plot, {"main": "directory"}, first, {1})
    assert Story.load(story.dump()) == story


def test_a_lost_write_is_told(tmp_path):
    """An older write, zeros, another length and a block in another's place are wrong; the right bytes are not."""
    content = Content(4 * BLOCK)
    content.write(1, 0, 4, certain=True, durable=True)
    content.write(2, 1, 1, certain=True, durable=True)
    path = tmp_path / "image"
    path.write_bytes(block_bytes(1, 0) + block_bytes(2, 1) + extent_bytes(1, 2, 2))
    assert content.wrong(path) == ""
    path.write_bytes(extent_bytes(1, 0, 4))
    assert "block 1 holds write 1, not write 2" in content.wrong(path)
    path.write_bytes(block_bytes(1, 0) + bytes(BLOCK) + extent_bytes(1, 2, 2))
    assert "block 1 holds zeros" in content.wrong(path)
    path.write_bytes(block_bytes(1, 0) + block_bytes(2, 1) + extent_bytes(1, 2, 1))
    assert "bytes instead of" in content.wrong(path)
    path.write_bytes(block_bytes(1, 0) + block_bytes(2, 1) + extent_bytes(1, 3, 1) + extent_bytes(1, 2, 1))
    assert "2 of 4 blocks differ" in content.wrong(path)


def test_an_unfinished_write_may_be_there_or_not_and_then_stays(tmp_path):
    """A killed machine's block may hold either write, each sector for itself; what was seen once is what is there."""
    content = Content(BLOCK)
    content.write(1, 0, 1, certain=True, durable=True)
    content.write(2, 0, 1, certain=False, durable=False)
    path = tmp_path / "image"
    for data in (block_bytes(1, 0), block_bytes(2, 0), block_bytes(2, 0)[:512] + block_bytes(1, 0)[512:]):
        path.write_bytes(data)
        assert content.wrong(path) == ""
    path.write_bytes(block_bytes(2, 0))
    content.settle(path)
    path.write_bytes(block_bytes(1, 0))
    assert content.wrong(path)


def test_a_power_cut_takes_only_what_was_not_flushed(tmp_path):
    """After a cut a block that was not durable may be older; one that was durable may not."""
    content = Content(2 * BLOCK)
    content.write(1, 0, 2, certain=True, durable=True)
    content.write(2, 0, 1, certain=True, durable=False)
    content.write(3, 1, 1, certain=True, durable=True)
    content.cut()
    path = tmp_path / "image"
    path.write_bytes(block_bytes(1, 0) + block_bytes(3, 1))
    assert content.wrong(path) == ""
    path.write_bytes(block_bytes(2, 0) + block_bytes(1, 1))
    assert content.wrong(path)


def test_a_mixture_of_two_moments_is_wrong(tmp_path):
    """A copy may show one moment of its source or another, never some blocks of each."""
    moments = [Content(2 * BLOCK), Content(2 * BLOCK)]
    for write, moment in enumerate(moments, 1):
        moment.write(write, 0, 2, certain=True, durable=True)
    path = tmp_path / "image"
    path.write_bytes(extent_bytes(2, 0, 2))
    assert judge(moments, path) == (moments[1], "")
    path.write_bytes(block_bytes(1, 0) + block_bytes(2, 1))
    assert judge(moments, path)[0] is None


def test_acknowledged_changes_are_there_and_refused_ones_are_not():
    """After an acknowledged removal the image is removed; side by side with a restore it may be either."""
    remove = Change("remove", Said.DONE, 1.0, 3.0)
    assert states_after({PRESENT}, [remove], cleaned=False) == {REMOVED}
    assert states_after({PRESENT}, [remove], cleaned=True) == {REMOVED, ABSENT}
    assert states_after({PRESENT}, [Change("remove", Said.MAYBE, 1.0, 3.0)], cleaned=False) == {PRESENT, REMOVED}
    assert states_after({PRESENT}, [Change("remove", Said.NO, 1.0, 3.0)], cleaned=True) == {PRESENT}
    beside, after = (Change("restore", Said.DONE, began, 5.0) for began in (2.0, 4.0))
    assert states_after({PRESENT}, [remove, beside], cleaned=False) == {PRESENT, REMOVED}
    assert states_after({PRESENT}, [remove, after], cleaned=True) == {PRESENT}


def test_a_removal_may_be_forgotten_where_its_record_was_damaged():
    """The image is there again then. No other one is, and one that was there is not removed."""
    removed, present, torn = (Image("i", "disk", "1", [], {state}, "i") for state in (REMOVED, PRESENT, REMOVED))
    removed.damaged("record")
    present.damaged("record")
    torn.damaged("volume")
    assert [removed.may_be(state) for state in (PRESENT, REMOVED, ABSENT)] == [True, True, True]
    removed.states = {PRESENT}
    assert removed.may_be(REMOVED)
    assert [present.may_be(state) for state in (PRESENT, REMOVED, ABSENT)] == [True, False, True]
    assert [torn.may_be(state) for state in (PRESENT, REMOVED, ABSENT)] == [False, True, True]


def test_of_a_group_all_are_there_or_none():
    """As long as nobody knows whether they were made; of one that was acknowledged each must be there by itself."""
    undecided_ones = [Image(name, "snapshot", "", [], {PRESENT, ABSENT}, "i", group="g") for name in ("g-a", "g-b")]
    known = Image("h-a", "snapshot", "1", [], {PRESENT}, "i", group="h")
    groups = undecided([*undecided_ones, known])
    assert groups == {"g": {"g-a", "g-b"}}
    assert [bool(halves(groups, there)) for there in (["g-a", "g-b"], ["h-a"], ["g-b", "h-a"])] == [False, False, True]


def test_a_story_is_shrunk_to_what_shows_it():
    """Actions that are not needed for the finding are left out."""
    rounds = [[{"do": "a"}, {"do": "b"}], [{"do": "c"}], [{"do": "d"}, {"do": "e"}], [{"do": "f"}]]
    story = Story(1, "", {}, rounds, {2})

    def replay(shorter: Story) -> Played:
        verbs = {action["do"] for actions in shorter.rounds for action in actions}
        found = [Finding("content", "main", "x", "")] if {"b", "e"} <= verbs else []
        return Played(shorter, found, [], [])

    small = shrink(replay(story), replay, 60).story
    assert small.rounds == [[{"do": "b"}], [{"do": "e"}]]
    assert small.settles == set()


def test_extents_lie_in_the_image():
    """What is chosen to be written ends before the image does."""
    import random

    for seed in range(200):
        assert all(first + count <= 256 for first, count in extents(random.Random(seed), 256 * BLOCK))


def test_requests_of_two_threads_do_not_run_into_each_other():
    """One is answered before the next is sent: else the data of one is taken for that of the other."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(3) as pool:
        client = NbdClient.__new__(NbdClient)
        client._socket, client._handle, client._alone = ours, 0, threading.Lock()
        server = pool.submit(_serve, theirs, 40)
        blocks = [pool.submit(client.write, at * BLOCK, bytes([at]) * BLOCK * 20) for at in range(40)]
        for block in blocks:
            block.result(60)
        assert sorted(server.result(60)) == [(at * BLOCK, bytes([at]) * BLOCK * 20) for at in range(40)]


@pytest.mark.parametrize(("words", "told"), [
    (["--format", "nfs", "--command", "/bin/false"], "lab up"),
    (["--only", "host_dies", "--command", "/bin/false"], "on local there is no host_dies"),
])  # fmt: skip
def test_what_cannot_be_tried_here_is_no_finding(words, told, capsys):
    """A lab that does not come up, or a plot that the storage cannot have, which would be begun again and again."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--minutes", "0.1"])
    assert end.value.code == 2 and told in capsys.readouterr().err


def test_a_program_that_is_started_in_a_fork_is_a_program(tmp_path):
    """Arguments, environment, output, exit code, what it leaves behind and its death are those of a process."""
    script = tmp_path / "program"
    script.write_text(
        "import fractions, os, subprocess, sys\n"
        "for stream in (sys.stdin, sys.stdout, sys.stderr): stream.reconfigure(errors='backslashreplace')\n"
        "print(sys.argv[1:], os.environ['MINE'], os.getsid(0) == os.getpid())\n"
        "subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print('no', file=sys.stderr)\n"
        "os.kill(os.getpid(), 9) if sys.argv[1] == 'die' else sys.exit(5)\n"
    )
    environment = {"MINE": "yes", "PATH": os.environ["PATH"]}
    quick = Quick()
    try:
        for word, code in (("a b", 5), ("die", -9)):
            started = quick.start([str(script), word], environment)
            out, err = started.communicate(60)
            assert (started.returncode, out, err) == (code, f"['{word}'] yes True\n".encode(), b"no\n") or word == "die"
            assert started.returncode == code
            for pid in [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]:
                with contextlib.suppress(OSError):
                    if os.getsid(pid) == started.pid:
                        os.kill(pid, signal.SIGKILL)
    finally:
        quick.close()


def _serve(connection, requests):
    """Answer so many writes; return what was written where."""
    stream, found = connection.makefile("rb"), []
    for _ in range(requests):
        _, _, _, handle, offset, length = struct.unpack(">IHHQQI", stream.read(28))
        found.append((offset, stream.read(length)))
        connection.sendall(struct.pack(">IIQ", 0x67446698, 0, handle))
    return found
