"""What every repository format that has a manager must do: ``engine.formats.base.Manager``."""

from __future__ import annotations

import pytest

from engine.errors import Refused
from engine.formats.base import Manager
from tests.formats.kit import MANAGED, SIZE, Storage, raw

pytestmark = pytest.mark.parametrize("storage", MANAGED, indirect=True)


def manager(storage: Storage) -> Manager:
    """Of a handle of its own."""
    found = storage.open().manager
    assert found is not None
    return found


def test_who_made_a_repository_manages_it(storage: Storage):
    """The host is told, and taking the role once more changes nothing."""
    role = manager(storage)
    host = role.host()
    assert host
    role.take("")
    assert manager(storage).host() == host


def test_without_a_manager_no_volume_is_made(storage: Storage):
    """The role is given up: nobody has it, and whoever takes it can go on."""
    repository = storage.open()
    assert repository.manager is not None
    host = repository.manager.host()
    repository.manager.release()
    assert repository.manager.host() == ""
    with pytest.raises(Refused):
        repository.volumes.make(raw(), SIZE, None)
    with pytest.raises(Refused):
        repository.manager.release()
    repository.manager.take("")
    assert repository.manager.host() == host
    repository.volumes.make(raw(), SIZE, None)
