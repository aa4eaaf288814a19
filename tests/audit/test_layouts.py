"""What every layout promises, whatever it finds."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from engine.audit.layouts.base import Layout
from engine.audit.layouts.registry import LAYOUTS, layout_of
from engine.audit.places import Places
from engine.tools.local.trees import RealTree
from tests.audit.kit import raw

EVERY = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)


@pytest.fixture
def jumble(tmp_path: Path) -> Path:
    """Names of all layouts mixed, links, pipes, odd names, a file where a directory belongs and the other way round."""
    domain = tmp_path / "00000000-0000-4000-8000-000000000001"
    for path in ("images/100", "template/iso", "dom_md", "nvram"):
        (tmp_path / path).mkdir(parents=True)
    (domain / "images" / "00000000-0000-4000-8000-000000000002").mkdir(parents=True)
    (domain / "dom_md").mkdir()
    raw(domain / "images" / "00000000-0000-4000-8000-000000000003")
    (domain / "images" / "_remove_me_x" / "deep").mkdir(parents=True)
    raw(domain / "images" / "_remove_me_x" / "deep" / "file")
    (tmp_path / "images/100/vm-100-disk-0.qcow2").mkdir()
    (tmp_path / "images/100/00000000-0000-4000-8000-000000000004.meta").mkdir()
    for name in ("vm-100-disk-1.raw", "base-\n.raw", "snap-", "x.meta", os.fsdecode(b"\xff\xfe.img")):
        raw(tmp_path / "images/100" / name)
    os.mkfifo(tmp_path / "images/100/pipe.qcow2")
    (tmp_path / "images/101").symlink_to("100")
    return tmp_path


@EVERY
def test_a_layout_says_of_every_file_what_it_is(layout: Layout, jumble: Path):
    """Each regular file has one candidate, and nothing but regular files has; findings name what was listed."""
    with closing(RealTree(str(jumble))) as tree:
        places = Places([tree])
        contents = layout.contents(places, str(jumble))
    assert set(contents.candidates) == {name.path for name in places.files()}
    assert all(found.path in places.names for found in contents.found)
    assert contents.layout == layout.name


@EVERY
def test_an_empty_or_unreadable_place_is_no_error(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is there, or nothing can be listed: nothing is found."""
    with closing(RealTree(str(tmp_path))) as tree:
        assert layout.contents(Places([tree]), str(tmp_path)).candidates == {}
        monkeypatch.setattr(RealTree, "list", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        places = Places([tree])
        assert layout.contents(places, str(tmp_path)).candidates == {}
        assert layout_of(places, str(tmp_path)).name == "directory"
