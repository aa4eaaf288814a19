"""images: the worst first, by name, as wide as what reads it; and names wherever an id is taken."""

from __future__ import annotations

import errno
import json
import os
import shlex
import threading
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from engine.data.model import Fix, FixType, RepositoryReport
from engine.doors.files import Entry
from engine.tools.local.files import RealFiles
from tests.cli.conftest import Command
from tui.cli.commands.look import CLEANABLE, verdict
from tui.cli.selection import Choice


@pytest.fixture
def three(run: Command, main_repo: str, backup_repo: str) -> dict[str, str]:
    """In ``backup`` a disk "web-1", a removed one "ci", and a copy "db" that was only committed."""
    web = run.id("create-disk", backup_repo, "4M", "--user-data", '{"name": "web-1"}')
    removed = run.id("create-disk", backup_repo, "1M", "--user-data", '{"name": "ci"}')
    run("remove", backup_repo, removed)
    source = run.id("create-snapshot", main_repo, run.id("create-disk", main_repo, "2M"))
    copy = run.id("copy", backup_repo, source, "--no-auto-fix", "--user-data", '{"name": "db"}')
    return {"web-1": web, "ci": removed, "db": copy}


def names(run: Command, *words: str) -> list[str]:
    return [image["name"] for image in run.json("images", "backup", *words)["images"]]


def test_images_are_sorted_and_chosen(run: Command, three: dict[str, str]):
    """By severity unless another order is asked for; by status, kind and name; at most so many."""
    assert names(run) == ["db", "ci", "web-1"]
    assert names(run, "--sort", "name") == ["ci", "db", "web-1"]
    assert names(run, "--sort", "size") == ["web-1", "db", "ci"]
    assert names(run, "--status", "broken", "--status", "removed") == ["db", "ci"]
    assert names(run, "--kind", "snapshot") == ["db"]
    assert names(run, "--name", "w*") == ["web-1"]
    assert names(run, "--limit", "1") == ["db"]
    assert "2 more" in run("images", "backup", "--limit", "1").err
    assert "none is like that" in run("images", "backup", "--name", "nothing").err


@pytest.mark.parametrize("command", ["images", "check"])
def test_columns_are_kept_in_a_pipe_too(
    run: Command, three: dict[str, str], monkeypatch: pytest.MonkeyPatch, command: str
):
    """With $COLUMNS no line of a table is longer, and ids are short; without, a pipe gets everything whole."""
    assert three["db"] in run(command, "backup").out
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(command, "backup").out.splitlines()
    assert max(map(len, lines)) <= 80, max(lines, key=len)


@pytest.mark.parametrize("command", [["images"], ["images", "--tree"], ["repos"]])
def test_storages_that_do_not_answer_are_waited_for_together(
    run: Command, main_repo: str, backup_repo: str, monkeypatch: pytest.MonkeyPatch, command: list[str]
):
    """Neither is opened before the other was asked for, and none is asked twice; each is told."""
    both = threading.Barrier(2, timeout=60)
    places = {repo["parameters"]["path"] for repo in run.json("repos")["repositories"]}
    list_directory = RealFiles.list_directory
    asked: list[str] = []

    def silent(self: RealFiles, path: str, having: str = "") -> list[Entry]:
        if path in places:
            asked.append(path)
            both.wait()
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return list_directory(self, path, having)

    monkeypatch.setattr(RealFiles, "list_directory", silent)
    done = run(*command, code=None)
    for repo in (main_repo, backup_repo):
        assert repo in done.out + done.err
    assert sorted(asked) == sorted(places)


def test_a_step_that_older_versions_refuse_may_wait_for_ever():
    """The offer to note who needs whom is no reason for a script to do something."""
    fix = Fix("1", FixType.OPTIMIZE, "O-USES", "", "a", (), {}, "")
    assert verdict(RepositoryReport((), (fix,), (), 0, 0)) == 0
    assert verdict(RepositoryReport((), (fix._replace(rule="C-LITTER"),), (), 0, 0)) == CLEANABLE
    by_kind = Choice((), frozenset(map(str, FixType)), irreversible=True, every=True)
    assert by_kind.of([fix, fix._replace(rule="C-LITTER")]) == [fix._replace(rule="C-LITTER")]
    assert by_kind._replace(named=(fix,)).of([fix]) == [fix]


def test_a_name_does_where_an_id_is_taken(run: Command, three: dict[str, str]):
    """Unique names; of two images with one name the candidates are listed."""
    assert run.json("status", "backup", "web-1")["id"] == three["web-1"]
    assert "web-1" in run("status", "backup", "web-1").out
    run("remove", "backup", "web-1")
    run("restore", "backup", "web-1")
    other = run.id("create-disk", "backup", "1M", "--user-data", '{"name": "web-1"}')
    done = run("status", "backup", "web-1", code=4)
    assert other in done.err and three["web-1"] in done.err
    run("status", "backup", "web-2", code=3)


def test_what_runs_is_said_beside_the_status(run: Command, three: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    """An image that somebody works on says RUNNING with its percentage, whatever its status is."""
    from engine.api import Engine
    from engine.data.model import OperationStatus

    real = Engine.inspect_repository

    def busy(self: Engine, repo_id: str, options: object = None) -> RepositoryReport:
        found = real(self, repo_id)
        work = OperationStatus("copy", "host-b", 2, 3, 40, "", 1.0)
        images = [image._replace(busy="host-b", operation=work) for image in found.images]
        return found._replace(images=tuple(images))

    monkeypatch.setattr(Engine, "inspect_repository", busy)
    assert run("images", "backup").out.count("RUNNING 40 %") == 3
    (image, *_) = run.json("images", "backup")["images"]
    assert image["running"] == {"who": "host-b", "percent": 40}


def test_names_are_given_kept_and_changed(run: Command, main_repo: str, backup_repo: str):
    """--name on what makes an image, beside other user data; a copied snapshot keeps its name, a copied disk gets a
    mark; rename leaves the rest alone."""
    disk = run.id("create-disk", main_repo, "2M", "--name", "web", "--user-data", '{"team": "a"}')
    assert run.json("user-data", "get", main_repo, disk) == {"team": "a", "name": "web"}
    run("create-snapshot", main_repo, "web", "--name", "web-monday")
    run("copy", backup_repo, "web-monday", "--wait")
    run("copy", backup_repo, "web", "--wait")
    run("copy", backup_repo, "web", "--name", "other", "--wait")
    assert sorted(names(run)) == ["other", "web (copy)", "web-monday"]
    run("rename", main_repo, "web", "web-2")
    assert run.json("user-data", "get", main_repo, disk) == {"team": "a", "name": "web-2"}
    run("rename", main_repo, "web-2", " ", code=2)
    run("user-data", "set", main_repo, disk, "[1]")
    assert "no JSON object" in run("rename", main_repo, disk, "x", code=2).err


def test_check_tells_by_its_exit_code(run: Command, main_repo: str, backup_repo: str):
    """0, 10 for space, 11 degraded, 12 broken: the worst counts, in text and JSON, and only when asked for."""
    disk = run.id("create-disk", main_repo, "2M")
    run("check", main_repo, "--exit-code", code=0)
    run("remove", main_repo, run.id("create-disk", main_repo, "1M"))
    run("check", main_repo, "--exit-code", code=10)
    run("strategy", main_repo, disk, "performance")
    run("check", main_repo, "--exit-code", code=11)
    source = run.id("create-snapshot", main_repo, disk)
    run("copy", backup_repo, source, "--no-auto-fix")
    run("check", backup_repo, "--exit-code", code=12)
    run("check", backup_repo, "--exit-code", "--json", code=12)
    run("check", backup_repo, code=0)


def test_images_says_when_there_may_be_more(run: Command, three: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    """A directory that cannot be listed is named with the reason, in both forms: what is in it has not vanished."""
    shard = f"/tags/{three['db'][:2]}"
    original = RealFiles.list_directory

    def listed(files: RealFiles, path: str) -> list[Entry]:
        if path.endswith(shard):
            raise OSError(errno.EACCES, "Permission denied", path)
        return original(files, path)

    assert "There may be more" not in run("images", "backup").err
    assert "incomplete" not in run.json("images", "backup")
    monkeypatch.setattr(RealFiles, "list_directory", listed)
    assert f"There may be more: cannot list {shard[1:]}: Permission denied [EACCES]" in run("images", "backup").err
    assert [found["name"] for found in run.json("images", "backup")["incomplete"]] == [shard[1:]]


def test_a_disk_is_made_longer(run: Command, main_repo: str):
    """To a size or by so much, as text and JSON; a shorter one is a mistake in what was asked for."""
    disk = run.id("create-disk", main_repo, "1M")
    assert "2.0 MiB" in run("resize", main_repo, disk[:8], "2M").err
    assert run.json("resize", main_repo, disk, "+1M") == {
        "repository": main_repo, "image": disk, "size_bytes": 3 << 20, "was_bytes": 2 << 20,
    }  # fmt: skip
    assert "shorter" in run("resize", main_repo, disk, "1M", code=2).err
    assert run.json("status", main_repo, disk)["size_bytes"] == 3 << 20


def test_a_disk_is_reverted_and_restored(run: Command, main_repo: str):
    """The id on standard output is that of the old state, which restore brings back by a name that says so."""
    disk = run.id("create-disk", main_repo, "1M", "--name", "web")
    snapshot = run.id("create-snapshot", main_repo, disk)
    kept = run.id("revert", main_repo, "web", snapshot)
    assert run.json("status", main_repo, kept)["removed"]
    run("restore", main_repo, kept)
    assert run.json("status", main_repo, "web (before revert)")["id"] == kept


def test_prepare_prints_what_a_hypervisor_takes(run: Command, main_repo: str):
    """Arguments that qemu's own tool opens the disk with, quoted for the shell, and an element of XML; --json has them
    beside the path."""
    disk = run.id("create-disk", main_repo, "1M", "--name", "web")
    found = run.json("prepare", main_repo, "web", "--print", "qemu")
    flag, node, device, about = shlex.split(found["print"])
    assert (flag, device) == ("-blockdev", "-device") and f"drive={json.loads(node)['node-name']}" in about
    assert json.loads(node)["file"]["filename"] == found["path"] and json.loads(node)["driver"] == found["format"]
    run("teardown", main_repo, disk)
    disk_element = fromstring(run("prepare", main_repo, "web", "--print", "libvirt", "--read-only").out)
    (source,) = disk_element.findall("source")
    assert source.attrib["file"].endswith("/disk") and disk_element.find("readonly") is not None
    run("teardown", main_repo, disk)
    run("prepare", main_repo, "web", "--print", "qemu", "--", "true", code=2)


def test_a_base_by_name_is_that_of_the_repository(run: Command, main_repo: str, backup_repo: str):
    """Another repository may have an image of that name; a copy, whose source is elsewhere, has to be told which."""
    found = {}
    for repo in (main_repo, backup_repo):
        found[repo] = run.id("create-snapshot", repo, run.id("create-disk", repo, "1M"), "--name", "golden")
    disk = run.id("create-disk", backup_repo, "1M", "--base", "golden")
    (family,) = run.json("images", backup_repo, "--tree")["families"]
    assert {image["id"]: image["stands_on"] for image in family["images"]}[disk] == found[backup_repo]
    run("copy", main_repo, "golden", code=4)


def test_the_worst_image_of_all_repositories_comes_first(run: Command, three: dict[str, str], tmp_path: Path):
    """Without a repository all are listed, each image with its own; one that cannot be read hides no other."""
    found = run.json("images")["images"]
    assert (found[0]["name"], found[0]["repository"]) == ("db", "backup")
    assert {image["repository"] for image in found} == {"main", "backup"}
    assert "REPOSITORY" in run("images").out and "REPOSITORY" not in run("images", "backup").out
    (tmp_path / "main").rename(tmp_path / "away")
    assert "There may be more in main" in run("images").err
    assert "There may be more in main" in run("images", "--tree").err
    assert [item["name"] for item in run.json("images")["incomplete"]] == ["main"]
    trees = run.json("images", "--tree")
    assert {family["repository"] for family in trees["families"]} == {"backup"}
    assert [item["name"] for item in trees["incomplete"]] == ["main"]
    assert "REPOSITORY" in run("images", "--tree").out and "REPOSITORY" not in run("images", "backup", "--tree").out


def test_an_image_goes_to_standard_output(run: Command, main_repo: str):
    """All of it and nothing else; other formats, which are not written in order, and --json are refused."""
    disk = run.id("create-disk", main_repo, "1M")
    assert run("export", main_repo, disk, "-", "--format", "raw", "--rate", "64M").out == "\0" * (1 << 20)
    assert "not a size" in run("export", main_repo, disk, "-", "--format", "raw", "--rate", "fast", code=2).err
    assert "raw alone" in run("export", main_repo, disk, "-", "--format", "qcow2", code=2).err
    assert "--json" in run("export", main_repo, disk, "-", "--format", "raw", "--json", code=2).err


def test_several_disks_are_frozen_together(run: Command, main_repo: str):
    """The snapshots are printed in the order of the disks, and each has the name; the log of each disk and of each
    snapshot tells of it."""
    disks = [run.id("create-disk", main_repo, "1M", "--name", name) for name in ("root", "data")]
    found = run.json("create-snapshot-group", main_repo, "data", "root", "--name", "monday")
    assert [one["disk"] for one in found["snapshots"]] == disks[::-1]
    for one in found["snapshots"]:
        assert run.json("user-data", "get", main_repo, one["image"]) == {"name": "monday"}
    assert len(run("create-snapshot-group", main_repo, *disks).out.split()) == 2
    assert "twice" in run("create-snapshot-group", main_repo, "root", disks[0], code=2).err
    snapshot = found["snapshots"][0]["image"]
    assert snapshot in [one["made"] for one in run.json("log", main_repo, "data")["entries"]]
    (entry,) = run.json("log", main_repo, snapshot)["entries"]
    assert (entry["verb"], entry["image"], entry["text"]) == ("create-snapshot-group", disks[1], "monday")
    assert "root root" in run("log").out, "what was refused"
