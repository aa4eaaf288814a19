"""Making and changing images from the console: on a real repository, with the questions that each act needs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

from textual.pilot import Pilot

from engine.data.model import FixType, Wait, WaitKind
from engine.errors import Moved
from engine.tags.context import Connection
from tests.console.kit import (
    FixedSite,
    console,
    fix,
    idle,
    press,
    running,
    sample_report,
    sample_view,
    screen_text,
    told,
)
from tui.console.app import ConsoleApp
from tui.console.control.images import group_text
from tui.console.dialogs.fields import completed
from tui.console.pages.images.page import ImagesPage
from tui.console.site import Site
from tui.view.machines import MachineRow, MachineState
from tui.work.noted import NotedEngine


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Pilot[Any], ConsoleApp, Site]]:
    """A console on an empty repository, on the page of its images."""
    site = Site("host-a", str(tmp_path / "state"), time.time)
    with site.engine() as engine:
        engine.create_repository("localfs-1.0", {"path": str(tmp_path / "pool")})
        engine.connect_storage_repository("pool", "localfs-1.0", {"path": str(tmp_path / "pool")})
    app = console(site)
    async with running(app) as pilot:
        await press(pilot, "2")
        yield pilot, app, site


def images(site: Site) -> dict[str, str]:
    """Names of the images with their statuses, "removed" for what is."""
    with site.engine() as engine:
        return {image.name: "removed" if image.removed else str(image.status) for image in engine.list_images("pool")}


async def test_an_image_is_made_changed_removed_and_restored(tmp_path: Path) -> None:
    """create, snapshot, rename, copy, export, remove, restore: each asks, is done, and the cursor is on the image."""
    async with opened(tmp_path) as (pilot, app, site):
        await press(pilot, "a", *"web", "down", "backspace", "backspace", "backspace", *"1M", "enter")
        assert images(site) == {"web": "optimized"} and "The disk web was created." in told(app)
        await press(pilot, "s", "enter")
        assert images(site)["web (snapshot)"] == "optimized"
        row = cast(ImagesPage, app.page_shown).row()
        assert row is not None and row.label == "web (snapshot)"
        await press(pilot, "m", "enter")
        await press(pilot, "m", *["backspace"] * 14, *"monday", "enter")
        assert set(images(site)) == {"web", "monday"}
        await press(pilot, "slash", *"monday", "enter", "m", *["backspace"] * 6, *"sunday", "enter")
        row = cast(ImagesPage, app.page_shown).row()
        assert row is not None and row.label == "sunday", "the filter does not hide it under its new name"
        await press(pilot, "m", *["backspace"] * 6, *"monday", "enter")
        await press(pilot, "X")
        assert "u restores it" in " ".join(screen_text(app).replace("│", " ").split())
        await press(pilot, "enter")
        assert images(site)["monday"] == "optimized", "enter alone keeps it"
        await press(pilot, "X", "X")
        assert images(site)["monday"] == "removed"
        await press(pilot, "s")
        assert "monday is removed, u restores it" in told(app)
        await press(pilot, "u")
        assert images(site)["monday"] == "optimized"
        await press(pilot, "E")
        assert "diskwright export writes it without one." in " ".join(screen_text(app).replace("│", " ").split())
        await press(pilot, *f"{tmp_path}/out.raw", "enter")
        assert (tmp_path / "out.raw").stat().st_size == 1 << 20
        assert app.session_log.entries[0].command == "diskwright create-disk pool 1M --name web"
        assert app.session_log.entries[-1].command.endswith(f"{tmp_path}/out.raw --format raw")


async def test_several_disks_are_frozen_at_one_moment(tmp_path: Path) -> None:
    """Those that are marked: what happens to each is said before, and they are not marked any more afterwards."""
    async with opened(tmp_path) as (pilot, app, site):
        with site.engine() as engine:
            disks = {name: engine.create_virtual_disk("pool", 1 << 20, user_data={"name": name}) for name in "abc"}
        page = cast(ImagesPage, app.page_shown)
        await press(pilot, "R", "space", "space", "up", "space")
        assert len(page.marked) == 1, "space takes it back, too"
        await press(pilot, "up", "space", "s", *"monday")
        text = " ".join(screen_text(app).replace("│", " ").split())
        assert "all are made, or none" in text and text.count("nobody uses it; until all are made nobody can") == 2
        marked = page.marked
        await press(pilot, "enter")
        with site.engine() as engine:
            names = sorted(image.name for image in engine.list_images("pool"))
        assert names == ["a", "b", "c", "monday", "monday"] and not page.marked
        assert "Snapshots of 2 disks were made" in told(app)
        row = page.row()
        assert row is not None and row.label == "monday"
        await press(pilot, "w")
        assert "of one moment with" in screen_text(app)
        await press(pilot, "escape")
        wanted = f"diskwright create-snapshot-group pool {' '.join(marked)} --name monday"
        assert app.session_log.entries[-1].command == wanted and set(marked) < set(disks.values())
        await press(pilot, "space")
        assert "only disks change" in told(app) and not page.marked


def test_what_a_group_does_to_whom_is_said() -> None:
    """To such as nobody uses, to a machine that can be spoken to, and to one that cannot; two have no moment."""
    vm = MachineRow("/run/a", "pool", "1" * 32, "web", True, "qcow2", "/run/a", "qmp:/run/vm", 0.0, 7, True)
    other, silent = vm._replace(monitor="qmp:/run/other"), vm._replace(monitor="", state=MachineState.RUNS)
    text = group_text([("web", vm), ("db", None), ("mail", other), ("log", silent)])
    assert [any(words in line for line in text) for words in (
        "web: its machine goes on", "db: nobody uses it", "log:", "no monitor is known", "They have 2 machines",
    )] == [True] * 5  # fmt: skip
    assert "no moment is the same" not in " ".join(group_text([("web", vm), ("db", vm)]))
    assert group_text([("web", None)] * 9)[-1] == "and 3 more"


async def test_a_name_that_another_image_has_is_told(tmp_path: Path) -> None:
    """As the command line tells it: rename and create alike; a name that stays as it is has no other."""
    async with opened(tmp_path) as (pilot, app, site):
        for name in ("web", "db"):
            await press(pilot, "a", *name, "down", "backspace", "backspace", "backspace", *"1M", "enter")
        assert "too:" not in told(app)
        await press(pilot, "m", "enter")
        assert "is called db now" in told(app)
        await press(pilot, "m", "backspace", "backspace", *"web", "enter")
        with site.engine() as engine:
            ids = {image.id[:8] for image in engine.list_images("pool")}
        assert told(app).endswith("has the name web too: commands need the id of the one that is meant.")
        assert told(app)[:8] in ids


async def test_a_name_of_which_a_part_is_shown_stays_whole(tmp_path: Path) -> None:
    """What is left as it is in a form means the name, not what there was room for."""
    long = "web " + "x" * 200
    async with opened(tmp_path) as (pilot, app, site):
        with site.engine() as engine:
            engine.create_virtual_disk("pool", 1 << 20, user_data={"name": long})
        await press(pilot, "R", "m")
        assert "…" in screen_text(app)
        await press(pilot, "enter")
        await press(pilot, "s", "enter")
        assert set(images(site)) == {long, f"{long} (snapshot)"}


async def test_what_is_wrong_stays_in_the_form(tmp_path: Path) -> None:
    """A size that is none, a base that nobody knows, a file that is there: what was typed is kept."""
    async with opened(tmp_path) as (pilot, app, site):
        await press(pilot, "a", "down", *"x", "enter")
        assert "is not a size" in screen_text(app)
        await press(pilot, "backspace", "down", *"nobody", "enter")
        assert "No image in the connected repositories has the name 'nobody'" in screen_text(app)
        await press(pilot, *["backspace"] * 6, "enter")
        assert list(images(site).values()) == ["optimized"]
        await press(pilot, "E", *f"{tmp_path}/pool", "enter")
        assert "There is a file" in screen_text(app) and app.page_shown is not app.screen
        await press(pilot, "down", *"x", "enter")
        assert "Image format 'rawx' is unknown" in screen_text(app)


async def test_nothing_is_changed_read_only(tmp_path: Path) -> None:
    """Each of the acts says why."""
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]), readonly=True)) as pilot:
        await press(pilot, "2")
        for key in ("a", "s", "d", "m", "X", "u"):
            await press(pilot, key)
            assert "--readonly" in told(pilot.app)


class AskedEngine:
    """What is called of an engine."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def name_import_file(self, *given: Any) -> None:
        self.calls.append(("name", *given))

    def list_repositories(self) -> dict[str, Any]:
        return {"pool-nfs": Connection("pool-nfs", "nfs-1.0", {"path": "/srv/pool"}, "5" * 32, {})}

    def connect_storage_repository(self, *given: Any, accept_moved: bool = False) -> None:
        self.calls.append(("connect", *given, accept_moved))


class AskedSite(FixedSite):
    """Repositories whose engine only notes what is called."""

    asked: AskedEngine | None = None

    @contextmanager
    def engine(self) -> Iterator[NotedEngine]:
        if self.asked is None:
            with super().engine() as engine:
                yield engine
        else:
            yield self.asked  # type: ignore[misc]


async def test_the_file_of_an_interrupted_import_is_asked_for(tmp_path: Path) -> None:
    """space tells which key asks; the path is made absolute."""
    wait = Wait(WaitKind.PATH, "/old/a.img", "an operator to name its file on this host (--path)")
    fixes = (fix(1, FixType.MEND, "B-IMPORT", 2, "Import has not finished", "broken", "optimized", wait=wait),)
    site = AskedSite(tmp_path / "state", [sample_view(report=sample_report()._replace(fixes=fixes))])
    async with running(console(site)) as pilot:
        await press(pilot, "space")
        assert "F names it" in told(pilot.app)
        site.asked = AskedEngine()
        await press(pilot, "F", *"/tmp/../tmp/b.img", "enter")
        assert site.asked.calls == [("name", "pool-nfs", fixes[0].target, "/tmp/b.img")]


async def test_a_repository_that_was_replaced_is_taken_only_when_confirmed(tmp_path: Path) -> None:
    """A says what differs; enter alone leaves it refused."""
    site = AskedSite(
        tmp_path / "state", [sample_view(problem="it is another one", problem_code=Moved.code, problem_at=1.0)]
    )
    async with running(console(site)) as pilot:
        assert "A takes what is there" in screen_text(pilot.app)
        site.asked = AskedEngine()
        await press(pilot, "A", "enter")
        assert site.asked.calls == []
        await press(pilot, "A", "A")
        assert site.asked.calls == [("connect", "pool-nfs", "nfs-1.0", {"path": "/srv/pool"}, True)]
        assert "--accept-moved" in pilot.app.session_log.entries[-1].command


def test_a_path_is_completed_as_far_as_there_is_one_way(tmp_path: Path) -> None:
    """Directories end in a slash, hidden ones need their point, lists go by their last part; what would repaint the
    screen is left out."""
    for name in ("images", "imports", ".hidden", "escape\x1b]0;x", "bytes\udce9"):
        (tmp_path / name).mkdir()
    (tmp_path / "file.img").touch()
    assert completed(f"{tmp_path}/i") == (f"{tmp_path}/im", ["images/", "imports/"])
    assert completed(f"{tmp_path}/ima") == (f"{tmp_path}/images/", ["images/"])
    assert completed(f"{tmp_path}/")[1] == ["file.img", "images/", "imports/"]
    assert completed(f"{tmp_path}/e") == (f"{tmp_path}/e", []) and not completed(f"{tmp_path}/b")[1]
    assert completed(f"/dev/null,{tmp_path}/fi") == (f"/dev/null,{tmp_path}/file.img", ["file.img"])
    assert completed(f"{tmp_path}/none/x") == (f"{tmp_path}/none/x", [])


async def test_tab_completes_the_path_of_a_repository(tmp_path: Path) -> None:
    """And goes to the next field when there is nothing to complete."""
    (tmp_path / "images").mkdir()
    async with running(console(FixedSite(tmp_path / "empty", [sample_view()]))) as pilot:
        await press(pilot, "c", *"x", "down", *f"{tmp_path}/im", "tab")
        assert pilot.app.focused.value == f"{tmp_path}/images/"
        field = pilot.app.focused
        await press(pilot, "tab")
        await idle(pilot)
        assert pilot.app.focused is not field
