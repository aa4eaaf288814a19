"""The console in a real browser: its screens, its runs, and whom it lets in."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.browser.kit import LARGE, PATIENCE_S, SMALL, Served, Tab, ended
from tests.doors.children import Gate

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

pytestmark = pytest.mark.slow
HOSTILE = '\x1b]0;owned\x07\x1b[2J[red]<img src=x onerror="document.title=1">'


def test_the_screens_are_those_of_a_terminal(open_tab: Callable[[], Tab], context: BrowserContext) -> None:
    """Triage without a click, at 80x24 and 160x50; keys move; w tells why; and nothing is asked of another host."""
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("page", lambda page: page.on("websocket", lambda opened: asked.append(opened.url)))
    tab = open_tab()
    assert tab.size() == (80, 24)
    first = tab.wait("✖ BRK=", "◐ DEG=4", "[1 Triage]")
    tab.keys("j", "w")
    why = tab.wait("Facts", "✖ BROKEN", gone="[1 Triage]")
    assert why.splitlines()[2].split()[1] in first
    tab.resize(LARGE)
    tab.wait("scanned", " images")
    assert tab.size() == (160, 50)
    tab.keys("Escape", "2")
    tab.wait("[2 Images]")
    tab.keys("1")
    tab.wait("Repos", "Why", "Fixes ")
    tab.resize({"width": 540, "height": 324})
    tab.wait("Need 80x24, have 60x18")
    tab.resize(SMALL)
    tab.wait("Fixes ", "q Quit")
    assert len(asked) > 5
    assert {urlsplit(url).hostname for url in asked} == {"localhost"}


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1080, 540), (720, 432)])
def test_a_tab_is_filled_from_the_start(width: int, height: int, browser: Browser, served: Served) -> None:
    """However large it is opened, without any change of its size."""
    context = browser.new_context(viewport={"width": width, "height": height})
    try:
        tab = Tab(context, served.url)
        shown = tab.wait("Fixes ", "q Quit", "OPT=").splitlines()
        columns, _ = tab.size()
        assert max(map(len, shown)) > columns - 4, shown
    finally:
        context.close()


def test_a_run_outlives_its_tab(open_tab: Callable[[], Tab], served: Served, copying: Gate) -> None:
    """Closed in the middle; the next tab shows the run, and its end."""
    tab = open_tab()
    tab.keys("/")
    tab.type("web-db")
    tab.keys("Enter", "Space", "p")
    tab.wait("VALID")
    tab.keys("r")
    tab.wait("RUNNING")
    consoles = served.consoles()
    tab.page.close()
    assert ended(consoles)
    again = open_tab()
    copying.open()
    again.keys("3")
    again.wait("DONE", "web-db")
    assert not [image for image in served.host.json("images", "demo")["images"] if "40 %" in image["reason"]]


def test_two_tabs_on_one_repository(open_tab: Callable[[], Tab], served: Served) -> None:
    """What is queued in one is seen in the other; closing one leaves the other."""
    one = open_tab()
    first = served.consoles()
    other = open_tab()
    one.keys("Space")
    other.wait("Plan 1 fix")
    one.page.close()
    assert ended(first)
    other.keys("Space")
    other.wait("Plan is empty")


def test_what_is_taken_out_reaches_the_browser(
    open_tab: Callable[[], Tab], context: BrowserContext, served: Served
) -> None:
    """y fills its clipboard; e is a download, not a file on the machine that serves."""
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab = open_tab()
    tab.keys("y")
    tab.wait("id of the image")
    tab.keys("c")
    tab.wait("Copied command")
    assert tab.page.evaluate("() => navigator.clipboard.readText()").startswith("diskwright fix demo ")
    tab.keys("e")
    tab.wait("json")
    with tab.page.expect_download(timeout=1000 * PATIENCE_S) as download:
        tab.keys("j")
    assert download.value.suggested_filename.endswith(".json")
    fixes = served.host.json("check", "demo")["fixes"]
    assert len(json.loads(Path(download.value.path()).read_text())) == len(fixes) > 10


def test_hostile_text_is_only_text(open_tab: Callable[[], Tab], served: Served) -> None:
    """Neither the terminal nor the page obeys a name."""
    served.host.run("create-disk", "demo", "1M", "--user-data", json.dumps({"name": HOSTILE}))
    tab = open_tab()
    tab.keys("2", "/")
    tab.type("owned")
    shown = tab.wait("Images 1 of", "[red]<img")
    assert "BRK=" in shown and "q Quit" in shown
    assert tab.page.title() == "diskwright"


def test_pages_of_strangers_cannot_reach_it(browser: Browser, served: Served) -> None:
    """Neither by a name that was pointed at this machine nor by a socket from elsewhere, even with the secret."""
    page = browser.new_page()
    rebound = page.goto(served.url.replace("localhost", "stranger.example"))
    assert rebound is not None and rebound.status == 403
    opened = page.evaluate(
        """url => new Promise(done => {
            const socket = new WebSocket(url);
            socket.onopen = () => done("open");
            socket.onerror = () => done("refused");
        })""",
        served.url.replace("http", "ws") + "ws",
    )
    assert opened == "refused"
    page.close()


def _ask(served: Served, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


def test_names_origins_and_the_secret_are_checked(served: Served) -> None:
    """The page and the socket; by numbers, by localhost through a tunnel's port, and by nothing else."""
    path = urlsplit(served.url).path
    socket = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
              "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    for host in ("localhost", "localhost:9000", f"127.0.0.1:{served.port}", "[::1]:80"):
        assert _ask(served, path, Host=host)[0] == 200, host
    for host in ("stranger.example", "localhost.stranger.example", "127.0.0.1.example", "", "[", "a;b", "localhost,x"):
        assert _ask(served, path, Host=host)[0] in (400, 403), host
    for origin in ("http://stranger.example", "http://localhost:1", "null", "http://["):
        assert _ask(served, path, Host="localhost", Origin=origin)[0] == 403, origin
        assert _ask(served, f"{path}ws", Host="localhost", Origin=origin, **socket)[0] == 403, origin
    assert _ask(served, f"{path}ws", Host="localhost", **socket)[0] == 403, "a browser always tells the origin"
    for wrong in ("/", "/ws", "/x/", f"/{'x' * 22}/", f"{path[:-2]}/", "/static/", "/page/"):
        assert _ask(served, wrong, Host="localhost")[0] in (403, 404), wrong
    headers = _ask(served, path, Host="localhost")[1]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"


def test_it_listens_on_this_machine_only(served: Served) -> None:
    """All its addresses are loopback."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, _, port = line.split()[1].rpartition(":")
            if int(port, 16) == served.port and line.split()[3] == "0A":
                found.append(address)
    assert found
    assert set(found) <= {"0100007F", "00000000000000000000000001000000"}


def test_the_end_of_the_server_ends_its_consoles(open_tab: Callable[[], Tab], served: Served) -> None:
    """At once by Ctrl-C, with a word on the page; and also when it is killed."""
    tab = open_tab()
    consoles = served.consoles()
    assert served.end() == 0
    assert ended(consoles)
    tab.page.get_by_text("This console has ended.").wait_for(timeout=1000 * PATIENCE_S)
    served.start()
    open_tab()
    consoles = served.consoles()
    assert served.end(signal.SIGKILL) == -signal.SIGKILL
    assert ended(consoles)
    served.start()
    assert served.host.run("tui", "--serve", str(served.port), code=5) == ""
