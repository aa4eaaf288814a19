"""Mounts of the engine and what others do with them: nobody loses one that he uses."""

from __future__ import annotations

import pytest

from engine.errors import Conflict
from sim.explore.cases.driver import MiB
from tests.formats.nfs.test_repository import NFS, PLACE, Site


def test_creating_over_a_connected_repository_leaves_it_usable():
    """Refused, also while an image is prepared; the path of that one stays valid."""
    site = Site()
    engine = site.engine()
    engine.connect_storage_repository("main", NFS, PLACE)
    disk = engine.create_virtual_disk("main", MiB)
    engine.prepare_image("main", disk)
    with pytest.raises(Conflict):
        site.engine().create_repository(NFS, PLACE)
    assert site.mounted() == ["nas:/srv/exp"]
    engine.teardown_image("main", disk)
    engine.disconnect_storage_repository("main")
    assert site.mounted() == []


@pytest.mark.parametrize("other", [{"directory": "main/"}, {"export": "/srv//exp/"}, {"options": ""}])
def test_the_same_place_in_other_words_takes_no_mount_away(other: dict[str, str]):
    """They mean the very same mount point, which belongs to the connected one."""
    site = Site()
    site.engine().connect_storage_repository("main", NFS, PLACE)
    with pytest.raises(Conflict, match="main"):
        site.engine().connect_storage_repository("again", NFS, PLACE | other)
    assert site.mounted() == ["nas:/srv/exp"]
