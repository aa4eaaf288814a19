"""What refers to images from outside: definitions of machines, of libvirt (XML, also OVF) and of Proxmox VE.

Everything that looks like a name counts as a reference, wherever it stands: an attribute that is new, an argument for
qemu, a description; and in whatever way it is written (``engine.audit.readings``). Too many references only
hide an orphan; one too few would make one up. XML is read by a parser that expands no entities and fetches nothing.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.audit.places import Name, Places
from engine.doors.files import Kind

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_BYTES = 4 << 20
_SETTING = re.compile(r"(?P<key>[A-Za-z][A-Za-z0-9_-]*):\s*(?P<value>.*)\Z")
_VOLUME = re.compile(r"(?P<storage>[A-Za-z][A-Za-z0-9_.-]*):(?P<name>[^,]+)")
_STORAGE = re.compile(r"(?P<type>[a-z]+):\s+(?P<name>\S+)\s*\Z")
_XML_STARTS = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe", b"\xfe\xff")


class Reference(NamedTuple):
    """One name of an image that a definition has where an image belongs."""

    path: str
    """Absolute, or relative to the file that has it."""
    format: str = ""
    """As it says; "" where it does not."""
    firm: bool = True
    """That the file is missing is worth telling."""


class Definition(NamedTuple):
    """One file that defines machines, storage, or the like."""

    path: str
    who: str
    """The machine, as it is told."""
    references: tuple[Reference, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()
    """(storage, name) of volumes that are named by their storage."""
    storages: tuple[tuple[str, str], ...] = ()
    """(name, directory) of storages that it defines."""
    words: frozenset[str] = frozenset()
    """Everything else that it says, to look for names of images in."""
    problem: str = ""
    """Why it was not understood; "" where it was."""


_BESIDE = (".xml", ".ovf", ".conf", ".cfg", ".vmx", ".vbox", ".json")
"""Ends of the names of definitions that stand among images."""


def definitions_beside(places: Places) -> list[Definition]:
    """Read the definitions that stand among the images of the given places."""
    return [_read(name) for name in places.files() if name.path.lower().endswith(_BESIDE)]


def read_definitions(places: Places) -> list[Definition]:
    """Read all files below the given places as definitions, each once. What is not understood is told as such."""
    found = [_read(name) for name in places.files()]
    for name in places.names.values():
        if name.stat.kind is Kind.SYMLINK and places.lead(name.path, "/").name is None:
            found.append(
                Definition(name.path, name.path, problem=f"it is a link to {name.target}, which was not given")
            )
    found += [Definition(path, path, problem=reason) for path, reason in places.unreadable.items()]
    return found


def _read(name: Name) -> Definition:
    who = posixpath.basename(name.path)
    try:
        data = name.tree.read(name.inside, 0, _MAX_BYTES + 1)
    except OSError as error:
        return Definition(name.path, who, problem=error.strerror or str(error))
    if len(data) > _MAX_BYTES:  # asked of what was read: it may have grown since it was listed
        return Definition(name.path, who, problem=f"it is longer than {_MAX_BYTES} bytes")
    if data.lstrip()[:2].startswith(_XML_STARTS):
        return _xml(name.path, who, data)
    if b"\0" in data:
        return Definition(name.path, who, problem="it is neither text nor XML")
    read = _settings(name.path, who, data.decode("utf-8", "surrogateescape"))
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return read._replace(problem="it is not UTF-8 throughout, so what it names is not known")
    return read


# -- XML


def _xml(path: str, who: str, data: bytes) -> Definition:
    """Read a definition in XML: of a machine, its snapshots, a pool, an OVF."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(data)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        return Definition(path, who, problem=f"it is no XML that is understood ({str(error) or type(error).__name__})")
    name = root.findtext(".//name") or who
    references: list[Reference] = []
    volumes: list[tuple[str, str]] = []
    words: set[str] = set()
    for element in root.iter():
        if not isinstance(element.tag, str):
            continue
        words.update(_texts(element))
        references += _references(element)
        if _local(element.tag) == "source" and element.get("pool") and element.get("volume"):
            volumes.append((str(element.get("pool")), str(element.get("volume"))))
    storages: tuple[tuple[str, str], ...] = ()
    if _local(root.tag) == "pool":
        target = root.findtext("./target/path") or ""
        storages = ((name, target),) if target else ()
        words.discard(target)
    return Definition(path, name, tuple(references), tuple(volumes), storages, frozenset(words))


def _texts(element: Element) -> Iterator[str]:
    yield from element.attrib.values()
    for text in (element.text, element.tail):
        if text and text.strip():
            yield text


def _references(element: Element) -> Iterator[Reference]:
    """The files that one element has where libvirt has images."""
    kind = _local(element.tag)
    if kind in ("disk", "mirror", "backingStore"):
        driver = element.find("./driver" if kind == "disk" else "./format")
        stated = "" if driver is None else driver.get("type") or ""
        firm = kind == "disk" and element.get("device", "disk") == "disk"
        for source in element.findall("./source"):
            for name in ("file", "dev"):
                if value := source.get(name):
                    yield Reference(value, stated, firm and not source.get("startupPolicy"))
    elif kind == "nvram" and element.text and element.text.strip():
        yield Reference(element.text.strip(), firm=False)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


# -- any text


def _settings(path: str, who: str, text: str) -> Definition:
    """Read a configuration of Proxmox VE (of a machine, a container, the storages); any other text is words."""
    machine = who.removesuffix(".conf")
    references: list[Reference] = []
    volumes: list[tuple[str, str]] = []
    storages: list[tuple[str, str]] = []
    words = {text, " ".join(text.split()), *_strings(text)}  # names with line breaks in them, and lines that are broken
    storage = ""
    for line in text.splitlines():
        if heading := _STORAGE.match(line):
            storage = heading["name"]
        elif storage and line[:1] in (" ", "\t") and line.split()[:1] == ["path"]:
            storages.append((storage, line.strip()[4:].strip()))
        elif setting := _SETTING.match(line):
            value = setting["value"].strip()
            if volume := _VOLUME.match(value):
                volumes.append((volume["storage"], volume["name"]))
            elif value.startswith("/"):
                references.append(Reference(value.partition(",")[0], firm=False))
    told = f"machine {machine}" if machine.isdigit() else who
    return Definition(path, told, tuple(references), tuple(volumes), tuple(storages), frozenset(words))


def _strings(text: str) -> Iterator[str]:
    """All strings of a text that is JSON."""
    if text.lstrip()[:1] not in ("{", "["):
        return
    try:
        todo: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):
        return  # it is still searched as any text is
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, (dict, list)):
            todo += (*value, *value.values()) if isinstance(value, dict) else value
