"""A repository on a volume group as the console sees it: its manager, and facts that are in no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.api import Engine
from tests.console_model.kit import NOW
from tests.formats.kit import LvmStorage
from tui.view.facts import facts_of
from tui.view.gather import gather
from tui.view.why import explain


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A host that manages a volume group, which is made of files."""
    monkeypatch.delenv("DISKWRIGHT_TEST_LVM_DEVICE", raising=False)
    storage = LvmStorage(tmp_path)
    engine = Engine(storage.doors(), str(tmp_path / "state"))
    engine.connect_storage_repository("san", storage.format, storage.parameters)
    return engine


def test_the_manager_is_seen_at_each_look(engine: Engine):
    """This host while it is, and a question mark as soon as nobody is."""
    first = gather(engine, "san")
    assert first.srm == "host-1" and first.constraints is not None and first.constraints.needs_srm
    engine.release_srm("san")
    assert gather(engine, "san", known=first.constraints).srm == "?"


def test_facts_name_the_logical_volume_that_they_are_in(engine: Engine):
    """Record and data of an image on LVM are in no file of their own."""
    image = engine.create_virtual_disk("san", 1 << 26, options={"auto_fix": False})
    facts = facts_of(engine, "san", image)
    found = explain(gather(engine, "san"), image, NOW, facts)
    assert found is not None
    record = next(fact for fact in found.facts if fact.kind == "record")
    assert record.place.startswith("dw-meta in volume group dwtest, ")
    assert all(fact.place and fact.kind != "rule" for fact in found.facts if fact.kind != "lease")
