"""What comes in: from standard input, packed, verified; and what is adopted."""

from __future__ import annotations

import io
import lzma
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.data.digests import DigestList
from engine.errors import Damaged, StorageError
from tests.cli.conftest import Command

MIB = 1 << 20


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files of ours are meanwhile."""
    place = tmp_path / "spool"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def given(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))


def exported(run: Command, repo: str, image: str, path: Path) -> bytes:
    run("export", repo, image, path, "--format", "raw")
    return path.read_bytes()


def test_standard_input_becomes_a_disk(
    run: Command, main_repo: str, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its length is what came; it is read back and compared; nothing of it is left elsewhere."""
    content = b"1" * 5000 + bytes(MIB) + b"2" * 300
    given(monkeypatch, content)
    image = run.id("import", main_repo, "-", "--format", "raw", "--verify")
    assert exported(run, main_repo, image, tmp_path / "out.raw") == content
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("file", ["packed.qcow2.xz", "-"])
def test_a_packed_qcow2_becomes_a_disk(
    run: Command, main_repo: str, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, file: str
):
    """From a file or from standard input."""
    plain = tmp_path / "plain.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", plain, "1M"], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 64k", plain], check=True, capture_output=True)
    packed = lzma.compress(plain.read_bytes())
    (tmp_path / "packed.qcow2.xz").write_bytes(packed)
    given(monkeypatch, packed)
    image = run.id("import", main_repo, file if file == "-" else tmp_path / file, "--format", "qcow2.xz")
    expected = bytes(64 << 10) + b"\7" * (64 << 10) + bytes(MIB - (128 << 10))
    assert exported(run, main_repo, image, tmp_path / "out.raw") == expected
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    "content, format, why, code",
    [
        (b"", "raw", "not one byte came", 2),
        (lzma.compress(bytes(MIB))[:-9], "qcow2.xz", "", 5),
        (bytes(MIB), "qcow2", "is no qcow2 image", 2),
    ],
)
def test_what_is_nothing_or_cut_off_leaves_nothing(
    run: Command,
    main_repo: str,
    spool: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    format: str,
    why: str,
    code: int,
):
    """One sentence, no image, no file."""
    given(monkeypatch, content)
    assert why in run("import", main_repo, "-", "--format", format, code=code).err
    assert list(spool.iterdir()) == [] and run.json("images", main_repo)["images"] == []


def test_what_is_imported_stays_while_nobody_can_tell_how_far_that_is(
    run: Command, main_repo: str, spool: Path, monkeypatch: pytest.MonkeyPatch
):
    """The repository cannot be read after the commit: the import may go on later, and has nothing but that file."""

    def unreadable(*_: object) -> None:
        raise StorageError("the storage does not answer", "Look at it")

    given(monkeypatch, b"1" * 5000)
    monkeypatch.setattr("engine.api.Engine.get_image_status", unreadable)
    done = run("import", main_repo, "-", "--format", "raw", code=StorageError.exit_code)
    (kept,) = spool.iterdir()
    assert kept.read_bytes() == b"1" * 5000 and f"{kept} is what is imported" in done.err


def test_a_disk_that_reads_otherwise_than_it_was_written_is_told(
    run: Command, main_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A storage that lies, or memory: what is read back is not what was read from the file."""
    path = tmp_path / "in.raw"
    path.write_bytes(b"1" * MIB)
    monkeypatch.setattr("engine.survey.deep.compute", lambda *_: DigestList(MIB))
    done = run("import", main_repo, path, "--format", "raw", "--verify", code=Damaged.exit_code)
    assert "does not read as what was written to it" in done.err


def test_adopt_says_what_becomes_of_each_file_and_does_it(run: Command, main_repo: str, tmp_path: Path):
    """First without doing it; then the file is an image, and has lost its old name; the history tells."""
    path, other = tmp_path / "web.raw", tmp_path / "odd.raw"
    path.write_bytes(bytes(1 << 20))
    other.write_bytes(bytes(1000))
    words = ("adopt", main_repo, path, other, "--format", "raw")
    planned = run.json(*words, "--dry-run")
    assert [item["path"] for item in planned["plan"]] == [str(path)] and path.exists()
    assert "multiple of 4096" in planned["refused"][0]["reason"]
    done = run.json(*words, "--wait")
    assert [item["status"] for item in done["images"]] == ["optimized"]
    assert not path.exists() and other.exists()
    assert "web.raw" in run("log").out
    assert "nothing can be adopted" in run("adopt", main_repo, other, "--format", "raw", code=5).err


def test_adopt_says_who_does_what_is_left(run: Command, main_repo: str, tmp_path: Path):
    """A process where one works on it, else the operator; and nobody when there is nothing left."""
    told = []
    for name, more in (("web.raw", ()), ("db.raw", ("--no-auto-fix",))):
        (tmp_path / name).write_bytes(bytes(1 << 20))
        told.append(run("adopt", main_repo, tmp_path / name, "--format", "raw", *more).err)
    assert "goes on in process" in told[0] or "and usable" in told[0]
    assert f"What is left are fixes: diskwright check {main_repo}" in told[1]


def test_an_adoption_that_was_committed_has_succeeded_whatever_is_found_then(
    run: Command, main_repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The storage goes away after the commit: the exit code is that of the verb, and each file's id was printed."""

    def unreadable(*_: object) -> None:
        raise StorageError("the storage does not answer", "Look at it")

    (tmp_path / "web.raw").write_bytes(bytes(1 << 20))
    monkeypatch.setattr("engine.api.Engine.get_image_status", unreadable)
    told = run("adopt", main_repo, tmp_path / "web.raw", "--format", "raw", "--no-auto-fix", code=0)
    assert "web.raw" in told.out


def test_the_history_tells_how_an_adoption_has_ended(run: Command, main_repo: str, tmp_path: Path):
    """Followed or not, of one file or of several: the verb began work, and each file is entered when that is done."""
    names = ("web", "db", "mail")
    for name in names:
        (tmp_path / f"{name}.raw").write_bytes(bytes(1 << 20))
    run("adopt", main_repo, tmp_path / "web.raw", "--format", "raw", "--wait")
    run("adopt", main_repo, tmp_path / "db.raw", tmp_path / "mail.raw", "--format", "raw", "--wait")
    found = [(entry["verb"], entry["name"], entry["result"]) for entry in run.json("log", main_repo)["entries"]]
    assert found.count(("adopt", "", "started")) == 2
    assert {name for verb, name, result in found if (verb, result) == ("adopt", "done")} == {*names}
