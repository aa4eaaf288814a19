"""Which images nobody refers to: said only where nothing is left that could. No effects.

An image is needed when a definition names it, when a program has it open, when its layout says so, or when a needed
image stands on it. One that is not needed is an orphan only if every place that could refer to it was given and was
understood: one name that leads out of the given places may lead back into them, so it takes that away from all images.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from engine.audit import rules
from engine.audit.chains import Images
from engine.audit.definitions import Definition, Reference
from engine.audit.gather import Gathered, Key, key_of, keys_below
from engine.audit.model import Finding, Role
from engine.audit.names import meant
from engine.audit.places import Places, Where
from engine.audit.readings import MAX_CHARACTERS, TooMany, readings
from engine.audit.rules import finding

_SHOWN_UNSURE = 50
_SHOWN = 200
"""Characters of a name that is no path."""


class References:
    """Who refers to which image, and what may refer to one although nobody can say so."""

    def __init__(self, places: Places, gathered: Gathered, definitions: Sequence[Definition]) -> None:
        self.by: dict[Key, list[str]] = defaultdict(list)
        self.findings: list[Finding] = []
        self.unsure: list[tuple[str, str]] = []
        """(where, why) no image may be called an orphan."""
        self._places, self._gathered = places, gathered
        self._by_base: dict[str, list[Key]] = defaultdict(list)
        self._storages = dict(pair for definition in definitions for pair in definition.storages)
        for key in gathered.images:
            for name in gathered.names[key]:
                self._by_base[posixpath.basename(name.path)].append(key)
        self._texts: list[tuple[str, set[str]]] = []
        """(who, all that it says): where a name may be hidden."""
        self._room = MAX_CHARACTERS
        for definition in definitions:
            self._read(definition)
        self._take_texts_of_images()
        self._all_words = "\0".join({text for _, texts in self._texts for text in texts})
        self._doubt_images()
        self.unsure += [(path, f"it cannot be listed: {reason}") for path, reason in places.unreadable.items()]

    def _read(self, definition: Definition) -> None:
        if definition.problem:
            self.unsure.append((definition.path, definition.problem))
        for reference in definition.references:
            self._refer(definition, reference)
        for storage, volume in definition.volumes:
            self._refer_to_volume(definition, storage, volume)
        texts = self._take_texts(definition.path, definition.who, definition.words)
        for line in {line.strip() for text in texts for line in (text, *text.splitlines())}:
            if line.startswith("/"):
                self._refer_to_directory(definition, line.rstrip("/"))

    def _refer(self, definition: Definition, reference: Reference) -> None:
        name = meant(reference.path)
        if not name.alone:
            self.unsure.append(
                (definition.path, f"{definition.who} uses {name.words[:_SHOWN]}, which may mean any file")
            )
        if not name.path:
            return
        lead = self._places.lead(name.path, posixpath.dirname(definition.path))
        if lead.name is not None:
            self._note(key_of(lead.name), definition, reference.format)
        elif lead.where is Where.MISSING and reference.firm:
            evidence = ((f"in {definition.path}", reference.path),)
            self.findings.append(
                finding(rules.A_MISSING, definition.path, evidence=evidence, who=definition.who, name=reference.path)
            )
        elif lead.where is not Where.MISSING:
            self.unsure.append((definition.path, f"{definition.who} uses {reference.path}, which was not given"))

    def _refer_to_volume(self, definition: Definition, storage: str, volume: str) -> None:
        directory = self._storages.get(storage)
        base = posixpath.basename(volume)
        if directory is not None:
            for path in (posixpath.join(directory, volume), posixpath.join(directory, "images", volume)):
                lead = self._places.lead(path, "/")
                if lead.name is not None:
                    self._note(key_of(lead.name), definition, "")
        for part in dict.fromkeys((*volume.split("/"), base)):  # a linked clone names its base too
            for key in self._by_base.get(part, ()):
                self._note(key, definition, "")

    def _refer_to_directory(self, definition: Definition, path: str) -> None:
        """A directory that a machine is given has all that is below it, known by name or not."""
        lead = self._places.lead(path, "/")
        listed = lead.path in self._places.children
        below = [lead.path] if listed else self._places.roots_below(path)
        for name in (name for directory in below for name in self._places.files(directory)):
            if key_of(name) in self._gathered.images:
                self._note(key_of(name), definition, "")

    def _note(self, key: Key, definition: Definition, stated: str) -> None:
        if definition.who not in self.by[key]:
            self.by[key].append(definition.who)
        seen = self._gathered.images.get(key)
        if seen is not None and stated and seen.image.format and stated != seen.image.format:
            says = f"that it is {stated}"
            words: dict[str, Any] = {"format": seen.image.format, "source": definition.who, "stated": says}
            evidence = ((f"in {definition.path}", stated), ("by its first bytes", seen.image.format))
            self.findings.append(finding(rules.A_DISAGREE, seen.image.path, "format", evidence, **words))

    def _doubt_images(self) -> None:
        for seen in self._gathered.images.values():
            image = seen.image
            if image.unread or image.problem:
                self.unsure.append((image.path, f"it may stand on any image: {image.unread or image.problem}"))
            elif image.stands:
                self.unsure.append((image.path, f"it may stand on another file, as {image.format} can"))
            for link in (seen.backing, seen.data):
                away = (Where.OUTSIDE, Where.UNREADABLE, Where.CIRCLE)
                if link is not None and link.lead is not None and link.lead.where in away:
                    self.unsure.append((image.path, f"it names {link.name}, which was not given or cannot be read"))
                elif link is not None and not link.alone:
                    self.unsure.append((image.path, f"it names {link.told}, which may mean any file"))

    def mention(self, words: Sequence[str]) -> str:
        """Return who says one of these words anywhere; "" for nobody."""
        if not any(word in self._all_words for word in words):
            return ""
        return next(who for who, texts in self._texts for text in texts if any(word in text for word in words))

    def _take_texts(self, path: str, who: str, texts: AbstractSet[str]) -> set[str]:
        """Keep texts in which a name may be hidden, in all their readings; return these."""
        try:
            read = readings(texts, self._room)
        except TooMany:
            self.unsure.append((path, "it is too long to look for names in all that it may mean"))
            read = set(texts)
        self._room -= sum(map(len, read)) - sum(map(len, texts))
        self._texts.append((who, read))
        return read

    def _take_texts_of_images(self) -> None:
        for seen in self._gathered.images.values():
            texts = {seen.image.says} if seen.image.says else set()
            for link in (seen.backing, seen.data):  # it may have been moved, and still be what was meant
                found = link is not None and link.alone and link.key in self._gathered.images
                if link is not None and not found:
                    texts.add(link.written)
            if texts:
                self._take_texts(seen.image.path, seen.image.path, texts)


def needed_from(images: Images, starts: set[Key]) -> set[Key]:
    """Return these images, and all that they need."""
    found, todo = set(starts), list(starts)
    while todo:
        seen = images.get(todo.pop())
        new = {key for key in keys_below(seen) if key not in found} if seen is not None else set()
        found |= new
        todo += new
    return found


def unneeded(gathered: Gathered, references: References, certain: bool) -> Iterator[Finding]:
    """Find images that nobody refers to. ``certain``: an operator says that all that refers was given."""
    images = gathered.images
    starts = {key for key, seen in images.items() if seen.image.users or seen.candidate.needed_by or references.by[key]}
    starts |= {key for key in images if images[key].role is not Role.IMAGE}
    needed = needed_from(images, starts)
    for key in [key for key in images if key not in needed]:  # the costly look, only for what is left
        words = [posixpath.basename(name.path) for name in gathered.names[key]]
        if who := references.mention([*words, *images[key].candidate.mentions]):
            references.by[key].append(who)
            needed |= needed_from(images, {key})
    below = {base for key, seen in images.items() if key not in needed for base in keys_below(seen)}
    doubt = not certain or references.unsure
    for key, seen in images.items():
        if key in needed:
            continue
        image = seen.image
        elsewhere = image.links > len(image.names)
        evidence = (("other names of the file", str(image.links - len(image.names))),) if elsewhere else ()
        if doubt or elsewhere:
            if key not in below:
                yield finding(rules.A_UNSEEN, image.path, evidence=evidence, size_bytes=image.allocated)
            continue
        case = "base" if key in below else "image"
        typed = seen.candidate.remedy or None
        yield finding(rules.A_ORPHAN, image.path, case, size_bytes=image.allocated, command=typed)


def doubts(references: References) -> Iterator[Finding]:
    """Return what keeps images from being called orphans, each as a finding of its own."""
    for path, why in dict.fromkeys(references.unsure[:_SHOWN_UNSURE]):
        yield finding(rules.A_UNSURE, path, problem=why)
