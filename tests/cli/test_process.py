"""The command as a process: start-up, closed pipes, signals, terminals."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command, start, write_disk
from tests.doors.children import Gate, gate, wait_ended

ESCAPES = re.compile(r"\x1b\[[0-9;]*[mK]")
HEAVY = {"asyncio", "dataclasses", "pathlib", "platformdirs", "shutil", "socket", "subprocess", "tempfile", "textual"}


def test_looking_imports_nothing_heavy(run: Command, main_repo: str):
    """The modules that would cost most at start-up are not loaded to list images."""
    script = (
        "import sys; from tui.cli.main import main; assert main(['images', 'main']) == 0; print(*sorted(sys.modules))"
    )
    # Without site (-S): what a .pth file of some package loads is not our doing.
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) & HEAVY == set()


def test_a_closed_pipe_ends_quietly(run: Command, main_repo: str):
    """When nobody reads the output the command ends with 141 and says nothing."""
    run("create-disk", main_repo, "1M")
    reader, writer = os.pipe()
    os.close(reader)
    for words in (("images", main_repo), ("--help",), ("images", main_repo, "--json")):
        process = start(*words, stdout=writer)
        assert (process.communicate()[1], process.returncode) == (b"", 141)
    os.close(writer)


def test_a_full_output_is_an_error(run: Command, main_repo: str):
    """Output that cannot be written is told, and the exit code is not 0."""
    with open("/dev/full", "wb") as full:
        process = start("images", main_repo, "--json", stdout=full)
        said = process.communicate()[1]
    assert process.returncode == 6 and b"write the output" in said


def test_without_utf8_the_signs_are_ascii(run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch):
    """Where standard output cannot carry the signs they are x ~ + o ?, and arrows and ellipses are ASCII."""
    disk = run.id("create-disk", main_repo, "1M")
    run("remove", main_repo, disk)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    for words, sign in ((("images", main_repo), b"o REMOVED"), (("check", main_repo), b"o REMOVED -> GONE")):
        process = start(*words)
        out, err = process.communicate()
        assert process.returncode == 0, err
        assert sign in out and out.isascii()


def on_terminal(*words: object, columns: int = 100, check: Callable[[str], bool] | None = None) -> tuple[int, str]:
    """Run on a pseudo-terminal; returns the exit code and what was shown. When ``check`` is true of
    what was shown so far, Ctrl-C is typed, once."""
    controller, terminal = pty.openpty()
    os.environ["COLUMNS"] = str(columns)

    def own_terminal() -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background was started with it ignored
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    try:
        process = start(*words, stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=own_terminal)
    finally:
        os.close(terminal)
        del os.environ["COLUMNS"]
    shown = ""
    with contextlib.suppress(OSError):  # EIO: the other side was closed
        while piece := os.read(controller, 65536):
            shown += piece.decode("utf-8", "replace")
            if check is not None and check(shown):
                check = None
                os.write(controller, b"\x03")
    os.close(controller)
    return process.wait(), shown


def test_a_terminal_gets_colour_and_fitting_lines(run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch):
    """On a terminal statuses are coloured and lines fit its width, ids and reasons cut; --no-color and
    NO_COLOR take the colour away and nothing else."""
    monkeypatch.setenv("TERM", "xterm")
    run("create-disk", main_repo, "1M")
    code, coloured = on_terminal("images", main_repo, columns=80)
    assert code == 0 and "\x1b[38;5;74m● OPTIMIZED" in coloured
    plain = ESCAPES.sub("", coloured)
    assert all(len(line) <= 80 for line in plain.splitlines()) and "…" in plain
    assert on_terminal("images", main_repo, "--no-color", columns=80)[1] == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert on_terminal("images", main_repo, columns=80)[1] == plain


@pytest.fixture
def copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Every copy of data waits at its beginning."""
    with gate(tmp_path / "held") as closed:
        monkeypatch.setenv("PATH", closed.path)
        yield closed


@pytest.fixture
def source(run: Command, main_repo: str, backup_repo: str) -> str:
    """A snapshot of some size in ``main``, and an empty repository ``backup``."""
    disk = run.id("create-disk", main_repo, "96M")
    write_disk(run, main_repo, disk, "write -P 5 0 96M")
    return run.id("create-snapshot", main_repo, disk)


def test_progress_is_shown_on_a_terminal(run: Command, source: str, monkeypatch: pytest.MonkeyPatch):
    """copy --wait prints the id first and ends with the status; no escape of the bar is left on the last line."""
    monkeypatch.setenv("TERM", "xterm")
    code, shown = on_terminal("copy", "backup", source, "--wait")
    assert code == 0 and shown.startswith(source)
    assert "OPTIMIZED" in ESCAPES.sub("", shown).splitlines()[-1]


def test_ctrl_c_detaches_and_the_work_goes_on(
    run: Command, source: str, copying: Gate, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C while waiting ends the command with 130 and says how to look; the copy goes on and is finished."""
    monkeypatch.setenv("TERM", "xterm")

    def is_at_work(shown: str) -> bool:
        return "copy" in shown.replace(source, "") or "mend" in shown  # the bar has drawn it

    code, shown = on_terminal("copy", "backup", source, "--wait", check=is_at_work)
    assert code == 130 and f"diskwright status backup {source}" in shown
    tasks = run.json("tasks")["tasks"]
    assert [task["image"] for task in tasks] == [source]
    copying.open()
    run("copy", "backup", source, "--wait")
    assert run.json("status", "backup", source)["status"] == "optimized"


def test_what_runs_can_be_stopped_and_goes_on(run: Command, source: str, copying: Gate):
    """stop ends what runs on an image, its status says who stopped it, and the mend goes on to the end. Until then it
    is told how fast it may go.

    The mend is one of several fixes that run in one process."""
    run("copy", "backup", source, "--no-auto-fix")
    removed = run.id("create-disk", "backup", "1M")
    run("remove", "backup", removed)
    run("fix", "backup", "--all", "--irreversible", "--no-wait", "--rate", "20M")
    while (task := run.json("tasks")["tasks"][0])["image"] != source:
        pass
    run("disconnect", "backup", code=5)
    assert run.json("status", "backup", source)["task"]["pid"] == task["pid"]
    run("rate", "backup", source, "1.5G")
    assert (task["rate"], run.json("tasks")["tasks"][0]["rate"]) == (20 << 20, 3 << 29)
    assert "1.5 GiB/s" in run("tasks").out and run.json("rate", "backup", source, "off")["rate"] == 0
    os.kill(task["pid"], signal.SIGSTOP)  # so that it hears of the end before anything else
    copying.open()
    run("stop", "backup", source)
    assert run.json("tasks")["tasks"] == []
    assert "stopped" in run.json("status", "backup", source)["reason"]
    assert len(run.json("fix", "backup", "--all", "--irreversible")["done"]) == 2


def test_prepare_hands_ctrl_c_to_the_command(run: Command, main_repo: str, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C during prepare -- COMMAND is the command's; when that ended the image is torn down."""
    monkeypatch.setenv("TERM", "xterm")
    disk = run.id("create-disk", main_repo, "1M")
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done"
    code, shown = on_terminal(
        "prepare", main_repo, disk, "--", "sh", "-c", script, check=lambda shown: "ready" in shown
    )
    assert code == 5 and "caught" in shown
    assert run.json("tasks")["prepared"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_prepare_passes_signals_on(run: Command, main_repo: str, number: signal.Signals):
    """A signal that would end us ends the command, and the image is torn down all the same."""
    disk = run.id("create-disk", main_repo, "1M")
    process = start("prepare", main_repo, disk, "--", "sh", "-c", "echo ready; exec sleep 30")
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 128 + number
    assert run.json("tasks")["prepared"] == []


def test_the_command_keeps_the_lease_whoever_dies(run: Command, main_repo: str, tmp_path: Path):
    """prepare -- COMMAND: holder and diskwright are killed, and the lease is the command's until it ends."""
    disk = run.id("create-disk", main_repo, "1M")
    os.mkfifo(tmp_path / "end")
    script = f"echo ready; read line < {tmp_path}/end"
    process = start("prepare", main_repo, disk, "--", "sh", "-c", script)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    holder = run.json("tasks")["prepared"][0]["pid"]
    for pid in (holder, process.pid):
        os.kill(pid, signal.SIGKILL)
        wait_ended(pid)
    assert "in use" in run("prepare", main_repo, disk, code=4).err
    (tmp_path / "end").write_text("now\n")
    process.communicate()  # the command has its output open until it ends
    run("prepare", main_repo, disk, "--", "true")
