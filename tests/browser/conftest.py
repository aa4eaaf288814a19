"""One browser and one demo for all tests of this folder; each test has tabs of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.kit import SMALL, Served, Tab, chromium
from tests.doors.children import Gate

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The system's chromium. Names of strangers lead to this machine, as after a DNS rebinding."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not chromium():
        pytest.skip("there is no chromium")
    options = ["--host-resolver-rules=MAP *.example 127.0.0.1", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=options)
        yield started
        started.close()


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on a host with a demo."""
    home: Path = tmp_path_factory.mktemp("served")
    made = Served(home)
    made.host.run("demo", "--json")
    made.host.environment["PATH"] = made.copying.path
    made.start()
    yield made
    if made.process is not None:
        made.end()


@pytest.fixture
def copying(served: Served) -> Iterator[Gate]:
    """Copies of data wait at their beginning: a fix is seen while it runs."""
    served.copying.close()
    yield served.copying
    served.copying.open()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport=SMALL, accept_downloads=True)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.fixture
def open_tab(context: BrowserContext, served: Served) -> Callable[[], Tab]:
    """Opens tabs of one window, when Triage with its first scan is on their screen."""

    def opened() -> Tab:
        tab = Tab(context, served.url)
        tab.wait("Fixes ", "q Quit", "OPT=")
        return tab

    return opened
