"""Connecting: a field for each parameter, what is wrong is told beside it, and nothing is tried before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.console.kit import FixedSite, console, golden, idle, press, running, screen_text
from tui.console.app import ConsoleApp
from tui.console.dialogs.connect import Connect
from tui.work import places


def dialog(app: ConsoleApp) -> Connect:
    return cast(Connect, app.screen)


async def chosen(pilot: Pilot[Any], form: str) -> None:
    """The dialog with a name and a format."""
    await press(pilot, "c", *"mine")
    while dialog(cast(ConsoleApp, pilot.app)).format_name != form:
        await press(pilot, "ctrl+f")


async def fill(app: ConsoleApp, values: dict[str, str]) -> None:
    names = [field.name for field in places.fields_of(dialog(app).format_name)]
    for name, value in values.items():
        app.screen.query_one(f"#field-{names.index(name)}", Input).value = value


@pytest.mark.parametrize("form", ["nfs-1.0", "lvm-1.0"])
async def test_each_format_has_its_fields(form: str, tmp_path: Path) -> None:
    """With what is taken where nothing is written, on the smallest screen."""
    async with running(console(FixedSite(tmp_path / "state"))) as pilot:
        await chosen(pilot, form)
        golden(f"connect-{form}-80x24", screen_text(pilot.app))


@pytest.mark.parametrize(
    ("form", "values", "field", "text"),
    [
        ("localfs-1.0", {}, "path", "Path is needed"),
        ("nfs-1.0", {"server": "nas"}, "export", "Export is needed"),
        ("nfs-1.0", {"server": "nas", "path": "/mnt"}, "path", "Path stands alone"),
        ("lvm-1.0", {"devices": "/dev/sdb"}, "volume_group", "Volume_group is needed"),
        ("lvm-1.0", {"volume_group": "v", "shared": "maybe"}, "shared", "Shared is no or yes"),
        ("lvm-1.0", {"volume_group": "v", "hosts": "65"}, "hosts", "Hosts is a number from 2 to 64"),
        ("lvm-1.0", {"volume_group": "v", "shared": "no", "hosts": "8"}, "shared", "Hosts goes with shared yes"),
        ("lvm-1.0", {"volume_group": "v", "devices": "/dev/sdb", "files": "/x"}, "files", "leave one empty"),
        ("lvm-1.0", {"volume_group": "v", "file_bytes": "9"}, "files", "File_bytes goes with files"),
    ],
)
async def test_what_is_wrong_is_told_and_the_cursor_is_there(
    form: str, values: dict[str, str], field: str, text: str, tmp_path: Path
) -> None:
    """The engine is not asked; what was typed stays."""
    site = FixedSite(tmp_path / "state")
    async with running(console(site)) as pilot:
        await chosen(pilot, form)
        await fill(pilot.app, values)
        await press(pilot, "enter")
        assert text.lower() in " ".join(screen_text(pilot.app).lower().split())
        names = [item.name for item in places.fields_of(form)]
        assert pilot.app.focused.id == f"field-{names.index(field)}"
        assert dialog(pilot.app).values() == {name: values.get(name, "") for name in names}


async def test_creating_and_connecting_is_remembered_for_the_runbook(tmp_path: Path) -> None:
    """Both commands, as a shell would need them; errors of the engine stay in the dialog."""
    site = FixedSite(tmp_path / "state")
    async with running(console(site)) as pilot:
        app = pilot.app
        await chosen(pilot, "localfs-1.0")
        await fill(app, {"path": f"{tmp_path}/no folder/repo"})
        await press(pilot, "ctrl+n")
        await idle(pilot)
        assert "Connect a repository" in screen_text(app) and not app.session_log.entries
        await fill(app, {"path": f"{tmp_path}/my repo"})
        await press(pilot, "ctrl+n")
        await idle(pilot)
        where = f"'path={tmp_path}/my repo'"
        assert [entry.command for entry in app.session_log.entries] == [
            f"diskwright create-repo localfs-1.0 {where}", f"diskwright connect mine localfs-1.0 {where}"
        ]  # fmt: skip
        with site.engine() as engine:
            assert list(engine.list_repositories()) == ["mine"]
