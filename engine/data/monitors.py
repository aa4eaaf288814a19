"""How a machine can be spoken to, as people write it: ``qmp:PATH``, or ``libvirt:URI/DOMAIN``."""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import BadRequest

_QMP, _LIBVIRT = "qmp:", "libvirt:"
_LOCAL = ("qemu", "qemu+unix")
"""Of the ways to libvirt, those that stay on this host: a path means another disk on another one."""


class Qmp(NamedTuple):
    """The socket of a monitor of qemu."""

    path: str
    """Absolute."""

    def __str__(self) -> str:
        return f"{_QMP}{self.path}"


class Libvirt(NamedTuple):
    """A domain of a libvirt of this host."""

    uri: str
    domain: str

    def __str__(self) -> str:
        return f"{_LIBVIRT}{self.uri}/{self.domain}"


def parse(text: str) -> Qmp | Libvirt:
    """Return what a monitor is. BadRequest for what is none."""
    if text.startswith(f"{_QMP}/") and text.isprintable():
        return Qmp(text.removeprefix(_QMP))
    if text.startswith(_LIBVIRT):
        uri, _, domain = text.removeprefix(_LIBVIRT).rpartition("/")
        if domain and text.isprintable() and _is_local(uri):
            return Libvirt(uri, domain)
    raise BadRequest(
        f"{text!r:.200} is no monitor",
        "Use qmp:/PATH/OF/SOCKET, the path absolute, or libvirt:qemu:///system/DOMAIN, of a libvirt of this host",
    )


def waits(text: str) -> bool:
    """Tell whether a machine that is spoken to so waits with what it was told, and can work on each of its layers:
    libvirt ends its jobs itself, and works on the top layer alone."""
    return text.startswith(_QMP)


def _is_local(uri: str) -> bool:
    from urllib.parse import urlsplit  # every command imports this module, and few name a monitor

    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return parts.scheme in _LOCAL and not parts.netloc and len(parts.path) > 1
