"""The console on a real terminal, with a real repository whose damage is real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.terminal import COMMAND, PATIENCE_S, Terminal
from tests.contracts.source import ROOT
from tests.doors.children import Gate, gate

ESCAPE = "\x1b"
FIXES = "Fixes 16"
"""Of a copied demo: in one the file of the killed import is another, so what was read of it is scrap."""
DEMO = ("✖ BRK=4", "◐ DEG=4", "○ DEL=2")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A host with a demo repository that nobody changes."""
    made = Terminal(tmp_path_factory.mktemp("template"))
    made.run("demo", "--json")
    return made


@pytest.fixture
def demo(template: Terminal, terminal: Terminal) -> Terminal:
    """A host with a demo repository of its own: a copy, as to make one takes seconds."""
    subprocess.run(["cp", "-a", "--sparse=always", template.home / "data", terminal.home], check=True)
    terminal.run("demo", "--json")
    return terminal


@pytest.fixture
def copying(demo: Terminal) -> Iterator[Gate]:
    """Every copy of data waits at its beginning, so that a fix is seen while it runs."""
    with gate(demo.home / "held") as closed:
        demo.environment["PATH"] = closed.path
        yield closed


# -- start and exit


@pytest.mark.slow
def test_first_run_and_the_demo_by_one_key(terminal: Terminal) -> None:
    """d alone makes a repository that is really broken: the command line says the same."""
    terminal.start()
    first = terminal.wait("No repository is connected.")
    for key in ("d ", "c ", "t ", "o "):
        assert f"   {key}" in first
    terminal.keys("d")
    shown = terminal.wait(*DEMO, "Fixes 15")
    images = terminal.json("images", "demo")["images"]
    assert sum(image["status"] == "broken" and not image["removed"] for image in images) == 4
    assert sum(image["removed"] for image in images) == 2
    assert all(len(line) <= 80 for line in shown.splitlines())
    terminal.keys("q")
    terminal.wait("ENDED 0", "BEFORE")


@pytest.mark.slow
def test_a_second_demo_asks(demo: Terminal) -> None:
    """Nothing that is there is deleted without being asked for."""
    demo.start()
    demo.wait(FIXES)
    demo.keys(":")
    demo.wait("What do you want to do?")
    demo.keys(*"create the demo", "Enter")
    demo.wait("There is a demo already")
    demo.keys("Escape")
    demo.wait(FIXES, gone="There is a demo already")


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_without_a_terminal_it_is_a_table(words: tuple[str, ...], terminal: Terminal) -> None:
    """No escape bytes, exit code 0."""
    done = subprocess.run(
        [*COMMAND, "tui", *words], env=terminal.environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0
    assert ESCAPE.encode() not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_dumb_terminal_gets_the_table_and_a_poor_one_ascii(demo: Terminal) -> None:
    """TERM=dumb; and a locale without UTF-8 gets the console in ASCII."""
    demo.start(TERM="dumb")
    shown = demo.wait("ENDED 0")
    assert "demo" in shown and "Traceback" not in shown
    demo.close()
    demo.start(LANG="C", LC_ALL="C")
    shown = demo.wait(FIXES, "x BRK=4")
    assert shown.isascii()


@pytest.mark.slow
def test_a_signal_ends_it_and_restores_the_screen(demo: Terminal) -> None:
    """SIGTERM: with the code of the signal and the screen as before."""
    demo.start()
    demo.wait(FIXES)
    os.kill(demo.pid(), signal.SIGTERM)
    shown = demo.wait("ENDED 143", "BEFORE", gone="Fixes")
    assert "Traceback" not in shown


# -- runs


@pytest.mark.slow
def test_quit_and_kill_while_a_fix_runs(demo: Terminal, copying: Gate) -> None:
    """Quitting waits for no fix and says what goes on; a killed console loses neither run nor queue; the next one
    shows both."""
    demo.start()
    demo.wait(FIXES)
    demo.keys("/", *"web-db", "Enter", "Space", "Escape")
    demo.wait("Plan 1 fix", FIXES)
    demo.keys("p")
    demo.wait("VALID")
    demo.keys("r")
    demo.wait("RUNNING")
    demo.keys("q")
    demo.wait("goes on. Look:", "ENDED 0")
    assert demo.json("tasks")["tasks"], "the run goes on"
    demo.again()
    demo.wait("3 Runs(1)", "mail-spool")
    demo.keys("1", "/", *"mail-spool", "Enter", "Space")
    demo.wait("Plan 1 fix")
    os.kill(demo.pid(), signal.SIGKILL)
    demo.again()
    demo.wait("Plan 1 fix")
    copying.open()
    demo.keys("3")
    demo.wait("DONE", "web-db")
    states = {image["status"] for image in demo.json("images", "demo")["images"] if "40 %" in image["reason"]}
    assert not states


@pytest.mark.slow
def test_stopping_keeps_the_work_and_resuming_goes_on(demo: Terminal, copying: Gate) -> None:
    """s stops at the next save; r goes on from there."""
    demo.start()
    demo.wait(FIXES)
    demo.keys("/", *"web-db", "Enter", "Space", "p")
    demo.wait("VALID")
    demo.keys("r")
    demo.wait("RUNNING")
    copying.wait_reached()  # stopped before, it would not be seen STOPPING
    demo.keys("s")
    demo.wait("STOPPING")
    copying.open()
    demo.wait("STOPPED   0 of 1")
    report = next(image for image in demo.json("images", "demo")["images"] if "40 %" in image["reason"])
    assert report["status"] == "broken", "what was copied before is kept"
    demo.keys("r")
    demo.wait("DONE", "attempt 2")


@pytest.mark.slow
def test_a_change_by_another_command_makes_the_plan_stale(demo: Terminal) -> None:
    """Seen while the plan is shown, without a key."""
    demo.start()
    demo.wait(FIXES)
    demo.keys("/", *"web-db", "Enter", "Space", "p")
    demo.wait("VALID")
    fix = next(fix["id"] for fix in demo.json("check", "demo")["fixes"] if "40 %" in fix["why"])
    demo.run("fix", "demo", fix)
    demo.wait("STALE")


@pytest.mark.slow
def test_what_cannot_be_undone_is_asked_for(demo: Terminal) -> None:
    """Enter keeps; the name deletes, and the space is there."""
    demo.start()
    demo.wait(FIXES)
    demo.keys("/", *"ci-4411", "Enter", "Space", "p")
    demo.wait("VALID", "never")
    demo.keys("r")
    demo.wait("Type ci-4411")
    demo.keys("Enter")
    demo.wait("VALID", gone="Type ci-4411")
    assert sum(image["removed"] for image in demo.json("images", "demo")["images"]) == 2
    demo.keys("r")
    demo.wait("Type ci-4411")
    demo.keys(*"ci-4411", "Enter")
    demo.wait("DONE")
    assert sum(image["removed"] for image in demo.json("images", "demo")["images"]) == 1


@pytest.mark.slow
def test_a_crash_drill_kills_and_explains(demo: Terminal) -> None:
    """! in the demo; what is left can be mended."""
    demo.start()
    demo.wait(FIXES)
    demo.keys("/", *"web-01", "Enter", "!")
    demo.wait("Crash drill", "web-01 was DEG")


# -- screen


@pytest.mark.slow
def test_resizing_in_one_session(demo: Terminal) -> None:
    """160x50, 80x24, 60x18 and back, with the cursor and the filter as they were, whatever size is exported."""
    demo.start(size=(160, 50), COLUMNS="80", LINES="24")
    demo.wait(FIXES, "Repos", "Why")
    demo.keys("/", *"web", "Enter", "j")
    shown = demo.wait("filter: web")
    assert all(len(line) <= 160 for line in shown.splitlines())
    demo.resize(80, 24)
    demo.wait("filter: web", "q Quit", gone="Repos")
    demo.resize(60, 18)
    demo.wait("Need 80x24, have 60x18", gone="filter")
    demo.resize(80, 24)
    shown = demo.wait("filter: web", "q Quit")
    assert all(len(line) <= 80 for line in shown.splitlines())


@pytest.mark.slow
def test_no_color_sends_no_colour(demo: Terminal) -> None:
    """No SGR colour at all, and each status has its word."""
    demo.start(NO_COLOR="1")
    shown = demo.wait(FIXES, "BRK", "DEG", "OPT", "DEL")
    assert shown
    colours = re.findall(r"\x1b\[[0-9;]*?(?:3[0-7]|4[0-7]|38;|48;|9[0-7]|10[0-7])[0-9;]*m", demo.coloured())
    assert not colours


@pytest.mark.slow
def test_copying_reaches_the_clipboard_of_the_terminal(demo: Terminal) -> None:
    """By the terminal's own escape sequence, which tmux takes into a buffer."""
    demo.start()
    demo.tmux("set-option", "-s", "set-clipboard", "on")
    demo.wait(FIXES)
    demo.keys("y")
    demo.wait("id of the image")
    demo.keys("c")
    demo.wait("Copied command")
    assert demo.tmux("show-buffer").startswith("diskwright fix demo ")


def test_the_console_is_the_only_part_that_needs_textual() -> None:
    """Engine, command line, model and simulator are imported where there is no Textual."""
    script = """
import importlib, pkgutil, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("textual", "rich"):
            raise ImportError(name)
sys.meta_path.insert(0, Wall())
for package in ("engine", "sim", "tui"):
    for module in pkgutil.walk_packages([package], package + "."):
        if not module.name.startswith("tui.console") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_killed_runner_is_told_and_resumed(demo: Terminal, copying: Gate) -> None:
    """FAILED or OLD, with the key that goes on."""
    demo.start()
    demo.wait(FIXES)
    demo.keys("/", *"web-db", "Enter", "Space", "p")
    demo.wait("VALID")
    demo.keys("r")
    demo.wait("RUNNING")
    copying.wait_reached()
    (task,) = demo.json("tasks")["tasks"]
    os.kill(task["pid"], signal.SIGKILL)
    copying.open()
    demo.wait("FAILED   0 of 1")  # not the log alone; the run may be about to end yet: then it is waited for
    demo.keys("r")
    demo.wait("DONE", "attempt 2")


@pytest.mark.slow
def test_settings_with_a_wrong_key_are_told(demo: Terminal) -> None:
    """File, key, line and the nearest right name; the rest of the file counts."""
    folder = demo.home / "config" / "diskwright"
    folder.mkdir(parents=True)
    (folder / "console.toml").write_text('theme = "light"\n\n[keys]\nresacn = "x"\nrescan = "f2"\n')
    demo.start()
    shown = " ".join(demo.wait("line 4", "did you").replace("│", " ").split())
    assert "did you mean rescan?" in shown
