"""All layouts, and which one a place has."""

from __future__ import annotations

from engine.audit.layouts.base import Layout
from engine.audit.layouts.directory import Directory
from engine.audit.layouts.proxmox import Proxmox
from engine.audit.layouts.vdsm.files import Vdsm
from engine.audit.layouts.vdsm.volumes import VdsmGroup
from engine.audit.layouts.volumes import Volumes
from engine.audit.places import Places

LAYOUTS: tuple[Layout, ...] = (VdsmGroup(), Volumes(), Vdsm(), Proxmox(), Directory())
"""The most particular first; the last one fits everything."""


def layout_of(places: Places, root: str) -> Layout:
    """Return the first layout that recognises a place."""
    return next(layout for layout in LAYOUTS if layout.recognises(places, root))
