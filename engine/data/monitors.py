"""How a machine can be spoken to, as people write it: ``qmp:PATH``, or ``libvirt:URI/DOMAIN``. The first may tell where
the agent in its guest is to be had: ``qmp:PATH,agent=PATH``; libvirt knows that itself."""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import BadRequest

_QMP, _LIBVIRT = "qmp:", "libvirt:"
_AGENT = ",agent="
_LOCAL = ("qemu", "qemu+unix")
"""Of the ways to libvirt, those that stay on this host: a path means another disk on another one."""


class Qmp(NamedTuple):
    """The socket of a monitor of qemu."""

    path: str
    """Absolute."""
    agent: str = ""
    """That of the agent in its guest, absolute; "" where nobody has told of one."""

    def __str__(self) -> str:
        return f"{_QMP}{self.path}{_AGENT}{self.agent}" if self.agent else f"{_QMP}{self.path}"


class Libvirt(NamedTuple):
    """A domain of a libvirt of this host."""

    uri: str
    domain: str

    def __str__(self) -> str:
        return f"{_LIBVIRT}{self.uri}/{self.domain}"


def parse(text: str) -> Qmp | Libvirt:
    """Return what a monitor is. BadRequest for what is none."""
    if text.startswith(f"{_QMP}/") and text.isprintable():
        path, told, agent = text.removeprefix(_QMP).partition(_AGENT)
        if not told or agent.startswith("/"):
            return Qmp(path, agent)
    if text.startswith(_LIBVIRT):
        uri, _, domain = text.removeprefix(_LIBVIRT).rpartition("/")
        if domain and text.isprintable() and _is_local(uri):
            return Libvirt(uri, domain)
    raise BadRequest(
        f"{text!r:.200} is no monitor",
        "Use qmp:/PATH/OF/SOCKET, or qmp:/PATH,agent=/PATH with that of the guest agent, the paths absolute, or "
        "libvirt:qemu:///system/DOMAIN, of a libvirt of this host",
    )


def has_agent(text: str) -> bool:
    """Tell whether the guest of that machine can be asked, as far as anybody has told."""
    address = parse(text)
    return isinstance(address, Libvirt) or bool(address.agent)


def same(text: str, other: str) -> bool:
    """Tell whether both are of the same machine, as far as they tell: one may know more of it."""
    one, two = parse(text), parse(other)
    if isinstance(one, Qmp) and isinstance(two, Qmp):
        return one.path == two.path and (one.agent == two.agent or not (one.agent and two.agent))
    return one == two


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
