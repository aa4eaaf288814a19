"""A host with a repository, and a demo that is made once and copied for each test that changes it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.api import Engine
from tests.console_model.kit import engine_of
from tui.notes import Notes, notes_of
from tui.training import demo_build
from tui.training.demo import DemoFolder, DemoState
from tui.training.demo_build import FORMAT, MAIN, OFFSITE


class Host(NamedTuple):
    """A host of the test."""

    engine: Engine
    notes: Notes
    state: str
    """The directory of the host's notes."""


class Demo(NamedTuple):
    """A demo that is connected on a host, and the ids of its images by name."""

    engine: Engine
    notes: Notes
    root: Path
    ids: dict[str, str]
    identity: str


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host without any repository."""
    engine = engine_of(str(tmp_path / "state"))
    yield Host(engine, notes_of(engine), engine.state.directory)
    engine.close()


@pytest.fixture
def repo(host: Host, tmp_path: Path) -> str:
    """A connected, empty repository named ``main``."""
    parameters = {"path": str(tmp_path / "main")}
    host.engine.create_repository(FORMAT, parameters)
    host.engine.connect_storage_repository("main", FORMAT, parameters)
    return "main"


@pytest.fixture(scope="session")
def demo_template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A demo that nobody changes."""
    folder = DemoFolder(str(tmp_path_factory.mktemp("demo") / "demo"))
    folder.claim()
    names = demo_build.build(folder.root, "host-a", lambda text: None)
    folder.delete(demo_build.STATE)
    folder.mark(DemoState.COMPLETE, names)
    return Path(folder.root), {name: image for image, name in names.items()}


@pytest.fixture
def demo(demo_template: tuple[Path, dict[str, str]], host: Host, tmp_path: Path) -> Demo:
    """A demo of the test's own."""
    template, ids = demo_template
    subprocess.run(["cp", "-r", "--sparse=always", str(template), str(tmp_path / "demo")], check=True)
    for name in (MAIN, OFFSITE):
        host.engine.connect_storage_repository(name, FORMAT, demo_build.parameters(str(tmp_path / "demo"), name))
    file = f"{template}/{demo_build.FILES}/{demo_build.KILLED_IMPORT}.raw"
    host.engine.name_import_file(MAIN, ids[demo_build.KILLED_IMPORT], file)
    identity = host.engine.list_repositories()[MAIN].identity
    return Demo(host.engine, host.notes, tmp_path / "demo", ids, identity)
