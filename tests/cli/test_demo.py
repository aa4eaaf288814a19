"""``diskwright demo``: real repositories with real damage, made, shown, repaired and made again."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.survey.deep import compute
from tests.cli.conftest import Command, start
from tui.training import demo_build
from tui.training.demo import LOCK, MARKER

pytestmark = pytest.mark.slow

MiB = 1 << 20
USABLE = ("optimized", "degraded")


class Demo(NamedTuple):
    """A demo as it was made, to be copied before anything is done to it."""

    root: Path
    out: str
    err: str
    state: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Made by the command in a process without a terminal."""
    tmp = tmp_path_factory.mktemp("made")
    words = ("demo", "--path", tmp / "demo", "--state", tmp / "state", "--host", "host-a")
    out, err, code = finish(start(*words, **piped()))
    assert code == 0, err
    return Demo(tmp / "demo", out, err, tmp / "state")


@pytest.fixture
def demo(made: Demo, tmp_path: Path, run: Command) -> Path:
    """A copy of the demo, connected on this test's host as demo and demo-offsite."""
    root = tmp_path / "demo"
    subprocess.run(["cp", "-a", "--sparse=always", str(made.root), str(root)], check=True)
    run("demo", "--path", root)
    return root


def piped() -> dict[str, Any]:
    return {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def finish(process: subprocess.Popen[Any]) -> tuple[Any, Any, int]:
    out, err = process.communicate()
    return out, err, process.returncode


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """All names below a directory with sizes and modification times."""
    return {str(p.relative_to(root)): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in root.rglob("*")}


def images(run: Command, repo: str = "demo") -> dict[str, Any]:
    return {image["id"]: image for image in run.json("check", repo)["images"]}


def digests(repo: str) -> dict[str, str]:
    """Content of each usable image, by what a reader sees of it."""
    engine = Engine(real_doors("reader"), f"{os.environ['DISKWRIGHT_STATE']}/host-a")
    try:
        repository = engine.context.repository(repo)
        records = {tag: entry.record for tag, entry in repository.tags.scan().items()}
        found = {}
        for image in engine.list_images(repo):
            record = records[image.id]
            if image.status in USABLE and not image.removed and record is not None:
                found[image.id] = compute(engine.context, repository, record).root()
        return found
    finally:
        engine.close()


def raw(size: int, pieces: list[tuple[int, bytes]]) -> bytes:
    data = bytearray(size)
    for start_at, piece in pieces:
        data[start_at : start_at + len(piece)] = piece
    return bytes(data)


def test_it_is_made_shown_and_explained_without_a_terminal(made: Demo):
    """Exit 0; plain text with every image by name, every fix with its reason, and commands to type;
    what goes on is told on standard error; less than 60 MB are used."""
    assert "\x1b" not in made.out + made.err
    for name in ("web-db", "mail-spool", "erp-data", "base-debian12", "ci-runner", "ci-4411"):
        assert name in made.out
    for word in ("BROKEN", "DEGRADED", "OPTIMIZED", "REMOVED", "goes on at 16.0 MiB of 40.0 MiB"):
        assert word in made.out
    for command in ("diskwright --state", " why demo ", " plan demo --all", " fix demo --all", " demo --fresh --path "):
        assert command in made.out
    assert "a copy that is killed at 40 %" in made.err
    used = sum(path.lstat().st_blocks * 512 for path in made.root.rglob("*"))
    assert used < 60_000_000


def test_its_statuses_are_those_of_check(made: Demo, run: Command):
    """Demo and check --json tell the same of each image, and everything that the demo promises is there. (Not of a
    copy: in one the file of the killed import is another, so what was read of it is scrap.)"""
    shown = run.json("demo", "--path", made.root)
    assert shown["created"] is False and shown["repositories"].keys() == {"demo", "demo-offsite"}
    checked = run.json("check", "demo")
    assert shown["images"] == checked["images"] and shown["fixes"] == checked["fixes"]
    names = shown["names"]
    state = {names[i["id"]]: "removed" if i["removed"] else i["status"] for i in checked["images"]}
    assert {name for name, what in state.items() if what == "broken"} == {
        "web-db", "mail-spool", "crm-db-monday", "dr-standby"
    }  # fmt: skip
    assert {name for name, what in state.items() if what == "degraded"} == {
        "web-01", "ci-runner", "erp-data", "build-cache"
    }  # fmt: skip
    assert list(state.values()).count("optimized") >= 5 and list(state.values()).count("removed") == 2
    rules = [(fix["rule"], names.get(fix["target"], "")) for fix in checked["fixes"]]
    assert sorted(rules) == [
        ("B-COPY", "dr-standby"),
        ("B-COPY", "web-db"),
        ("B-IMPORT", "mail-spool"),
        ("B-REPLICA", "crm-db-monday"),
        ("C-HIDDEN", "build-cache-before"),
        ("C-LITTER", ""),
        ("C-REMOVED", "ci-4410"),
        ("C-REMOVED", "ci-4411"),
        ("C-UNNAMED", ""),
        ("M-CHAIN", "git-server-before"),
        ("M-CHAIN", "monitoring-before"),
        ("O-FLAT", "ci-runner"),
        ("O-FLAT", "web-01"),
        ("O-FORMAT", "erp-data"),
        ("O-HEADER", "build-cache"),
    ]
    removed = [fix for fix in checked["fixes"] if fix["rule"] == "C-REMOVED"]
    assert all(fix["cost"]["reclaimed_bytes"] > MiB for fix in removed)
    assert [names[fix["target"]] for fix in checked["fixes"] if fix["waits_for"]] == ["dr-standby"]
    copy = next(i for i in checked["images"] if names[i["id"]] == "web-db")
    assert copy["operation"]["percent"] == 40 and copy["operation"]["host"] == "host-b"
    assert all(image["status"] == "optimized" for image in images(run, "demo-offsite").values())


def test_one_removed_image_can_come_back_and_the_half_deleted_one_cannot(demo: Path, run: Command):
    """The removal of ci-4411 can be undone; the clean of ci-4410 had begun when it was killed."""
    ids = {name: image for image, name in run.json("demo", "--path", demo)["names"].items()}
    run("restore", "demo", ids["ci-4411"])
    assert run.json("status", "demo", ids["ci-4411"])["status"] == "optimized"
    assert "being deleted" in run("restore", "demo", ids["ci-4410"], code=5).err


def test_fix_all_mends_everything_but_what_needs_a_decision_or_waits(demo: Path, run: Command):
    """After fix --all every image is optimized with the content that it had or was to have; left are the copy
    whose source is not connected and what cannot be undone. With that said, and connected, the rest goes too."""
    names = run.json("demo", "--path", demo)["names"]
    ids = {name: image for image, name in names.items() if image in images(run)}
    before = digests("demo")
    assert len(before) == 9
    done = run.json("fix", "demo", "--all")
    assert done["failed"] == []
    assert sorted((left["rule"], names.get(left["image"], "")) for left in done["left"]) == [
        ("B-COPY", "dr-standby"), ("C-EVIDENCE", "crm-db-monday"), ("C-LOST", ""), ("C-REMOVED", "ci-4410"),
        ("C-REMOVED", "ci-4411"), ("M-CHAIN", "git-server-before"), ("M-CHAIN", "monitoring-before"),
    ]  # fmt: skip
    after = images(run)
    assert {names[i]: image["status"] for i, image in after.items() if image["status"] != "optimized"} == {
        "dr-standby": "broken", "ci-4410": "removed", "ci-4411": "removed",
    }  # fmt: skip
    now = digests("demo")
    assert {image: now[image] for image in before} == before
    offsite = digests("demo-offsite")
    assert now[ids["crm-db-monday"]] == offsite[ids["crm-db-monday"]]

    export = demo.parent / "export.raw"
    run("export", "demo", ids["web-db"], export, "--format", "raw")
    assert export.read_bytes() == raw(40 * MiB, demo_build.scattered("web-db", 4096, 640, 65536))
    export.unlink()
    run("export", "demo", ids["mail-spool"], export, "--format", "raw")
    assert export.read_bytes() == raw(8 * MiB, demo_build.solid("mail-spool", 4 * MiB))

    run("connect", "demo-archive", "localfs-1.0", f"path={demo}/archive")
    run("fix", "demo", "--all", "--irreversible")
    assert run.json("check", "demo")["fixes"] == []
    assert {image["status"] for image in images(run).values()} == {"optimized"}
    archive = set(digests("demo-archive").values())
    assert archive == {digests("demo")[ids["dr-standby"]]}


def test_a_second_run_without_a_terminal_shows_what_is_there(demo: Path, run: Command):
    """It does not ask, changes nothing, and exits with 0."""
    before = tree(demo)
    done = run("demo", "--path", demo)
    assert "13 images" in done.out and done.err == ""
    assert tree(demo) == before


@pytest.mark.parametrize(("answer", "again"), [(b"n\n", False), (b"\x04", False), (b"y\n", True)])
def test_on_a_terminal_it_asks_before_it_deletes(demo: Path, run: Command, answer: bytes, again: bool):
    """Only "y" makes the demo again; anything else shows the one that is there."""
    before = run.json("demo", "--path", demo)["names"]
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    process: subprocess.Popen[Any] = start(
        "demo", "--path", demo, "--no-color", stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # how the end of a terminal reads
        pass
    os.close(ours)
    _, err, code = finish(process)
    assert code == 0, err
    assert b"make it again? [y/N]" in err
    assert b"13 images" in said
    assert (run.json("demo", "--path", demo)["names"] != before) is again


def test_fresh_makes_all_of_it_again_and_leaves_what_others_put_there(demo: Path, run: Command):
    """--fresh gives other images under the same handles; a file of somebody else in the directory stays."""
    (demo / "notes.txt").write_text("mine")
    before = run.json("demo", "--path", demo)
    after = run.json("demo", "--path", demo, "--fresh")
    assert after["created"] is True and after["repositories"] == before["repositories"]
    assert not after["names"].keys() & before["names"].keys()
    assert sorted(after["names"].values()) == sorted(before["names"].values())
    assert (demo / "notes.txt").read_text() == "mine"
    assert [r["name"] for r in run.json("repos")["repositories"]] == ["demo", "demo-offsite"]


def test_fresh_is_refused_while_an_image_is_in_use(demo: Path, run: Command):
    """With an image prepared, --fresh exits with 4 and nothing is deleted or disconnected."""
    shown = run.json("demo", "--path", demo)
    disk = next(image for image, name in shown["names"].items() if name == "wiki")
    run("prepare", "demo", disk)
    before = tree(demo)
    assert "in use" in run("demo", "--path", demo, "--fresh", code=4).err
    before.pop(LOCK, None)
    assert {name: facts for name, facts in tree(demo).items() if name != LOCK and "/" in name} == {
        name: facts for name, facts in before.items() if "/" in name
    }
    assert run.json("demo", "--path", demo)["names"] == shown["names"]
    run("teardown", "demo", disk)


@pytest.mark.parametrize("flags", [(), ("--fresh",)])
@pytest.mark.parametrize("content", [{"disk.raw": "precious"}, {MARKER: "{}"}, {MARKER: '{"what": "else"}'}])
def test_a_directory_of_somebody_else_is_refused(
    tmp_path: Path, run: Command, flags: tuple[str, ...], content: dict[str, str]
):
    """Without our marker in it, a directory that is not empty is left as it is, with exit code 5."""
    root = tmp_path / "theirs"
    (root / "repository").mkdir(parents=True)
    for name, text in content.items():
        (root / name).write_text(text)
    before = tree(root)
    assert "no demo made" in run("demo", "--path", root, *flags, code=5).err
    assert tree(root) == before
    assert run.json("repos")["repositories"] == []


def test_a_folder_that_became_a_link_is_not_followed(demo: Path, run: Command, tmp_path: Path):
    """--fresh deletes directories of its own only: behind a link that stands for one, nothing is touched."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keep").write_text("precious")
    (demo / "files" / "mail-spool.raw").unlink()
    (demo / "files").rmdir()
    (demo / "files").symlink_to(tmp_path / "elsewhere")
    run("demo", "--path", demo, "--fresh", code=6)
    assert (tmp_path / "elsewhere" / "keep").read_text() == "precious"


def test_two_at_once_do_not_disturb_each_other(demo: Path, run: Command):
    """While another process has the directory's lock, --fresh exits with 4."""
    with open(demo / LOCK, "w", encoding="ascii") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        before = tree(demo)
        assert "another process" in run("demo", "--path", demo, "--fresh", code=4).err
        assert tree(demo) == before


def test_an_interrupted_creation_is_begun_again(tmp_path: Path, run: Command):
    """Ended in the middle, by Ctrl-C and then by SIGKILL, the next run without --fresh deletes the part and
    makes it whole. Nothing of a part is connected."""
    root = tmp_path / "demo"
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        process: subprocess.Popen[Any] = start("demo", "--path", root, **piped())
        assert process.stderr is not None
        while "format" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, _, ended = finish(process)
        assert ended == code
        assert json.loads((root / MARKER).read_text())["state"] == "partial"
        assert run.json("repos")["repositories"] == []
    shown = run.json("demo", "--path", root)
    assert shown["created"] is True and len(shown["images"]) == 15
    assert sorted(path.name for path in root.iterdir()) == ["archive", MARKER, LOCK, "files", "offsite", "repository"]


def test_names_in_use_are_left_to_their_owners(made: Demo, main_repo: str, tmp_path: Path, run: Command):
    """When this host calls something else demo, the demo is connected as demo-2 and demo-2-offsite, and says so."""
    run("disconnect", main_repo)
    run("connect", "demo", "localfs-1.0", f"path={tmp_path}/main")
    root = tmp_path / "copy"
    subprocess.run(["cp", "-a", "--sparse=always", str(made.root), str(root)], check=True)
    shown = run.json("demo", "--path", root)
    assert shown["repositories"].keys() == {"demo-2", "demo-2-offsite"}
    assert shown["repository"] == "demo-2" and any(" why demo-2 " in command for command in shown["next"])
    assert run.json("images", "demo")["images"] == []
    assert run.json("demo", "--path", root)["repositories"] == shown["repositories"]


def test_without_a_path_it_stands_in_the_data_directory_of_the_user(made: Demo, tmp_path: Path, run: Command):
    """The default is $XDG_DATA_HOME/diskwright/demo."""
    root = Path(os.environ["XDG_DATA_HOME"]) / "diskwright" / "demo"
    root.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", "--sparse=always", str(made.root), str(root)], check=True)
    shown = run.json("demo")
    assert shown["path"] == str(root) and shown["next"][-1] == "diskwright demo --fresh"
