"""Guided tours: what to press, what is said about it, and what must be on the screen then.

Plain data. A driver plays them at reading speed, as a test without waiting, or up to a step from which the
operator goes on. Keys are names as the console's key map has them; ``text`` is typed after them.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import StorageError, from_os_error
from engine.triage import rules


class TourStep(NamedTuple):
    """One thing to do and to understand."""

    caption: str
    keys: tuple[str, ...] = ()
    text: str = ""
    expect: str = ""
    """Words that are on the screen once the step has had its effect."""
    hint: str = ""
    """What to look at."""
    pause_s: float = 12.0
    """How long the caption is worth reading."""


class Tour(NamedTuple):
    """A tour of about five minutes."""

    name: str
    title: str
    needs: str
    """"demo": the demo repository as it was made; "trace": the trace that ``make_trace`` writes."""
    steps: tuple[TourStep, ...]
    hand_over: str
    """What is said at the end, where the operator goes on."""

    @property
    def minutes(self) -> float:
        """At reading speed."""
        return sum(step.pause_s for step in self.steps) / 60


REPAIR = Tour(
    "repair",
    "Repair a repository",
    "demo",
    (
        TourStep(
            "This repository is damaged, and every damage in it is real: programs were killed while they worked. "
            "The header counts what cannot be used (BRK), what could be better (DEG) and what is fine (OPT).",
            expect="BRK",
            hint="DEL is not a status of images: removed ones still hold space.",
            pause_s=20,
        ),
        TourStep(
            "Each line is a fix that the engine offers, the most urgent first. P1 is for now, P4 for some day. "
            "NOW and AFTER say what it changes, RUN ON whether this host can do it.",
            keys=("1", "g"),
            expect="P1",
            pause_s=20,
        ),
        TourStep(
            "The filter understands fields and plain words. We look for one image.",
            keys=("slash",),
            text="web-db",
            expect="web-db",
        ),
        TourStep("Enter keeps the filter.", keys=("enter",), expect="web-db", pause_s=6),
        TourStep(
            "w says why. A copy was killed at 40 %: that is a fact with a rule, B-COPY, and a record on the disk.",
            keys=("w",),
            expect=rules.B_COPY,
            hint="Action says what the fix does; Later what would make the image optimal.",
            pause_s=25,
        ),
        TourStep("esc goes back, always.", keys=("escape",), expect="web-db", pause_s=5),
        TourStep(
            "space puts the fix into the plan. Nothing is done by that; the queue is kept on this host.",
            keys=("space",),
            expect="1",
            hint="The line at the bottom tells what the plan would do.",
            pause_s=15,
        ),
        TourStep("esc takes the filter away.", keys=("escape",), expect="mail-spool", pause_s=5),
        TourStep("A second one: an import that was killed.", keys=("slash",), text="mail-spool", expect="mail-spool"),
        TourStep("It goes into the plan too.", keys=("enter", "space", "escape"), expect="web-db", pause_s=10),
        TourStep(
            "Changed your mind? z takes the last change back, Z makes it again. It works over restarts, and between "
            "two consoles.",
            keys=("z", "Z"),
            expect="web-db",
            pause_s=12,
        ),
        TourStep(
            "p shows the plan before anything runs: the order, the free space after each step and at its lowest, how "
            "long it takes as far as that was measured, what can never be undone, and what stays broken.",
            keys=("p",),
            expect="VALID",
            hint="The last line is the command that does exactly the same.",
            pause_s=30,
        ),
        TourStep(
            "r runs it, in a process of its own: you can quit, or kill this console, and it goes on.",
            keys=("r",),
            expect="DONE",
            hint="Each line is a step; the log below tells what was saved when.",
            pause_s=20,
        ),
        TourStep(
            "Both images can be used again: the header counts two broken ones less, read from the disk just now. What "
            "is still broken was not in the plan.",
            keys=("2",),
            expect="BRK=2",
            pause_s=12,
        ),
        TourStep(
            "The timeline keeps what happened: which host did what, where it died, who went on.",
            keys=("4",),
            expect="web-db",
            pause_s=15,
        ),
        TourStep(
            "Now a crash of our own. In the demo, and only there, ! kills a repair at a random moment. We choose the "
            "flattening of web-01.",
            keys=("1", "slash"),
            text="web-01",
            expect="web-01",
            pause_s=12,
        ),
        TourStep("That is the one.", keys=("enter",), expect="optimize", pause_s=5),
        TourStep(
            "Killed in the middle, and the image is as usable as before. The box says what was saved, and what check "
            "offers now.",
            keys=("exclamation_mark",),
            expect="web-01",
            hint="Whatever the moment: what counts is on disk, or nothing of it is.",
            pause_s=25,
        ),
    ),
    "The repository is yours: queue what is left, run it, crash it. t plays the tour again, in a new one.",
)

REPLAY = Tour(
    "replay",
    "Look into a crash",
    "trace",
    (
        TourStep(
            "This is a recorded run of the simulator: the same engine, on a simulated disk. All screens show the "
            "repository as it was at one step, and nothing can be changed.",
            keys=("4",),
            expect="REPLAY",
            pause_s=20,
        ),
        TourStep("] goes one step on, [ one back.", keys=("right_square_bracket",), expect="step 2", pause_s=8),
        TourStep(
            "Each step is a change that was made durable, or the end of a command of the story.",
            keys=("right_square_bracket", "right_square_bracket", "left_square_bracket"),
            expect="step 3",
            pause_s=15,
        ),
        TourStep(
            "} goes to the next crash. Host a was killed in the middle of a copy.",
            keys=("right_curly_bracket",),
            expect="KILLED",
            hint="Lost, saved, and who will go on with it.",
            pause_s=25,
        ),
        TourStep(
            "Triage shows what check would have offered at that moment: a mend, on any host.",
            keys=("1",),
            expect=rules.B_COPY,
            pause_s=20,
        ),
        TourStep(
            "Its reason is the same text as in live use.",
            keys=("w",),
            expect=rules.B_COPY,
            pause_s=15,
        ),
        TourStep("Back to the steps.", keys=("escape", "4"), expect="REPLAY", pause_s=5),
        TourStep(
            "Host b resumes: it read everything that it needed from the disk.",
            keys=("right_square_bracket",) * 3,
            expect="b",
            pause_s=20,
        ),
        TourStep(
            "The power fails. What was not durable is gone, in a combination that the file system allows.",
            keys=("right_curly_bracket",),
            expect="power_cut",
            pause_s=25,
        ),
        TourStep(
            "And still nothing that was promised is lost: the expectations of the story hold.",
            keys=("right_square_bracket", "right_square_bracket"),
            expect="expectations",
            pause_s=20,
        ),
        TourStep(
            "{ goes back. The screen is exactly what it was.",
            keys=("left_curly_bracket",),
            expect="REPLAY",
            pause_s=12,
        ),
    ),
    "Walk through it yourself; b begins a live simulation from the step that you see. esc leaves.",
)

TOURS = {tour.name: tour for tour in (REPAIR, REPLAY)}

STORY = """\
title: 'A copy, a crash, and a power cut'
story: Host a dies in a copy; host b finishes it; then the power fails for everybody.
backends: [sim]
repositories: [main, backup]
hosts: [a, b]
steps:
  - create_disk: {in: main, size: 4MiB, as: web}
  - write: {disk: web, pattern: web, length: 3MiB}
  - create_snapshot: {of: web, as: monday}
  - copy: {image: monday, to: backup, as: replica}
    crash: {before: images.open_session.write, nth: 2}
  - expect: {image: replica, status: broken, rule: B-COPY}
  - fix: {in: backup, type: mend}
    host: b
  - expect: {image: replica, status: optimized, content: {as: monday}}
  - create_snapshot: {of: web, as: tuesday}
    host: b
  - power_cut: all
  - expect: {image: tuesday, status: optimized}
  - expect: {image: replica, status: optimized, content: {as: monday}}
"""
"""What the second tour looks at."""


def make_trace(path: str) -> None:
    """Play ``STORY`` on the simulator and write its trace, replacing the file. StorageError."""
    from sim.scenario.language import parse
    from sim.scenario.play.play import play
    from sim.scenario.report import text

    verdict = play(parse.parse("tour.yaml", STORY), "sim", record=True)
    if verdict.result != "passed":
        raise StorageError(f"the story of the tour does not run: {verdict.message}", "Report this")
    verdict.events[0]["source"] = STORY  # it stands in no file
    try:
        with open(path, "wb") as stream:
            stream.write(text.trace([verdict]))
    except OSError as error:
        raise from_os_error(error, f"write {path!r:.200}") from error
