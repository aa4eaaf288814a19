"""What a repository must contain, told without the engine: the oracle of explorations and fuzzing.

A ``Model`` is a set of images with their exact content, and the files that were exported. Verbs are
functions from one model to the next. A verb that was acknowledged has one successor; one that was
interrupted may have happened or not, so what may be found is a *list* of models, thinned out by
what is then seen. There is no third outcome: an image that no model knows, or one that is
half-made, fits none of them.

Images are keyed by (repository, id). An image whose id nobody was told (its creation was
interrupted) is in ``unnamed``; ``fit`` finds it by what it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from engine.data.model import Status
from engine.data.records import canonical
from sim.disk.content import Content

Key = tuple[str, str]
"""(repository, image id)"""

OWN, BELOW = "own", "below"

USABLE = (Status.OPTIMIZED, Status.DEGRADED)


class Image(NamedTuple):
    """What a user knows of an image."""

    size: int
    content: Content
    mutable: bool
    user_data: Any = None
    removed: bool = False
    """The removal of the image was acknowledged. The image may be gone for good, or restorable; it must not be
    visible."""
    hurt: tuple[tuple[int, int], ...] = ()
    """Ranges that the case destroyed: they may be zeros, and the image may be broken. All of it: it may be gone, and
    what only a deep look finds may be wrong with it."""
    grown: Content | None = None
    """What its volume shows that another tool made longer: the image has its old size, or all of this."""
    torn: tuple[tuple[int, int], ...] = ()
    """Ranges that were written and not flushed, as far as is known: they may be old, new or a mixture."""
    cut: str = ""
    """Which of its volumes another tool made shorter, ``OWN`` or one ``BELOW``. That can be seen: the image may be
    broken, and what is said to be usable reads right, but for what is said to be lost: no more than ``hurt``."""

    @property
    def destroyed(self) -> bool:
        """Whether the case destroyed all of it."""
        return self.hurt == ((0, self.size),) and not self.cut

    def written(self, offset: int, data: bytes) -> Image:
        """With something written, in a volume that another tool made longer too."""
        grown = self.grown and self.grown.write(offset, data)
        return self._replace(content=self.content.write(offset, data), grown=grown)


class Found(NamedTuple):
    """An image as a check and a read found it."""

    size: int
    mutable: bool
    user_data: Any
    status: Status
    removed: bool
    content: Content | None
    """None: it could not be read, or was not to be."""
    lost: tuple[tuple[int, int], ...] = ()
    in_use: bool = False
    """A machine has it open for writing: only the machine knows what it shows."""
    prepared: bool = False
    """It is in use, or somebody holds it for a machine: fixes of it are offered when that has ended."""
    unreadable: str = ""
    """Why it could not be read that is said to be usable."""


class Model(NamedTuple):
    """Everything that is known to be true."""

    images: Mapping[Key, Image] = {}
    unnamed: tuple[tuple[str, Image], ...] = ()
    """(repository, image) whose ids are not known."""
    files: Mapping[str, Content | None] = {}
    """Exported files by path; None for one that was adopted, so it has not that name any more."""
    strays: Mapping[str, Content | None] = {}
    """Volumes that no record names, by id: they are kept somewhere until their deletion was acknowledged (None)."""
    kept: Mapping[str, Content] = {}
    """Files that are to be adopted, by the names they had: there under some name, whatever becomes of that."""

    # -- verbs

    def made(self, repo: str, image_id: str | None, image: Image) -> Model:
        """With one image more; the id None: it is not known."""
        if image_id is None:
            return self._replace(unnamed=(*self.unnamed, (repo, image)))
        return self._replace(images={**self.images, (repo, image_id): image})

    def changed(self, repo: str, image_id: str, **fields: Any) -> Model:
        """With some fields of one image changed."""
        image = self.images[repo, image_id]
        return self._replace(images={**self.images, (repo, image_id): image._replace(**fields)})

    def exported(self, path: str, content: Content | None) -> Model:
        """With one file more, or for certain without it."""
        return self._replace(files={**self.files, path: content})

    def stray(self, volume: str, content: Content | None) -> Model:
        """With a volume that no record names, or without it."""
        return self._replace(strays={**self.strays, volume: content})

    # -- comparison

    def key(self) -> bytes:
        """The same for equal models."""
        found = blake2b(digest_size=12)
        for name, image in sorted(self.images.items()):
            found.update(repr((name, _facts(image))).encode())
        for told in sorted(repr((repo, _facts(image))) for repo, image in self.unnamed):
            found.update(told.encode())
        for path, content in sorted(self.files.items()):
            found.update(repr((path, content and content.digest)).encode())
        for volume, data in sorted(self.strays.items()):
            found.update(repr((volume, data and data.digest)).encode())
        for path, content in sorted(self.kept.items()):
            found.update(repr((path, content.digest)).encode())
        return found.digest()

    def problems(self, seen: Mapping[Key, Found], waiting: Collection[Key] | None) -> Iterator[str]:
        """Why what was seen is not this model; nothing: it fits. ``waiting``: everything that can be fixed was, and
        these images wait for something by name; None: there is still something to fix."""
        strangers = {key: image for key, image in seen.items() if key not in self.images and not image.removed}
        for key, image in self.images.items():
            found = seen.get(key)
            if image.removed:
                if found is not None and not found.removed:
                    yield f"image {_name(key)} was removed and is back"
            elif image.destroyed and (found is None or found.content is None):
                continue
            elif found is None or found.removed:
                yield f"image {_name(key)} was acknowledged and is {'gone' if found is None else 'removed'}"
            else:
                yield from (
                    f"image {_name(key)} {text}" for text in differences(image, found, _must_be_whole(key, waiting))
                )
        for repo, image in self.unnamed:
            match = next(
                (
                    key
                    for key, found in strangers.items()
                    if key[0] == repo and not any(differences(image, found, _must_be_whole(key, waiting)))
                ),
                None,
            )
            if match is None:
                yield f"no new image in {repo} with {image.size} bytes and user data {image.user_data!r:.60}"
            else:
                del strangers[match]
        for key, found in strangers.items():
            yield f"image {_name(key)} ({found.size} bytes, {found.status}) was never made"


def _must_be_whole(key: Key, waiting: Collection[Key] | None) -> bool:
    return waiting is not None and key not in waiting


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _facts(image: Image) -> tuple[object, ...]:
    return (
        image.size, image.content.digest, image.mutable, canonical(image.user_data), image.removed, image.hurt,
        image.torn, image.cut,
        image.grown and image.grown.digest,
    )  # fmt: skip


def differences(image: Image, found: Found, final: bool) -> Iterator[str]:
    """How an image that is visible differs from what it must be."""
    if image.grown is not None and found.size == image.grown.size:
        image = image._replace(size=found.size, content=image.grown, grown=None)
    if image.grown is not None and final and not found.prepared:
        yield f"was made {image.grown.size} bytes long by another tool, and no fix adopts that"
    if (found.size, found.mutable) != (image.size, image.mutable):
        yield f"has {found.size} bytes (mutable: {found.mutable}), not {image.size} ({image.mutable})"
    if found.user_data != image.user_data:
        yield f"has the user data {found.user_data!r:.60}, not {image.user_data!r:.60}"
    if found.lost and not image.hurt:
        yield f"is said to have lost {found.lost}"
    elif image.cut and not all(_covered(part, image.hurt) for part in found.lost):
        yield f"is said to have lost {found.lost}, and only {image.hurt} was cut away"
    unknown = (*(found.lost if image.cut else image.hurt), *image.torn)
    if found.status in USABLE and not found.in_use:
        if found.content is None:
            yield f"is said to be {found.status} and cannot be read"
        elif not _without(found.content, unknown).same(_without(image.content, unknown)):
            yield f"is said to be {found.status} and reads wrong at {_first_difference(found.content, image.content)}"
    elif final and not (image.hurt or image.cut) and found.status not in USABLE:
        yield f"is {found.status} and no fix mends it"


def _covered(part: tuple[int, int], by: Iterable[tuple[int, int]]) -> bool:
    """Whether a range lies in ranges that are in order."""
    start, end = part[0], part[0] + part[1]
    for at, length in by:
        if at <= start < at + length:
            start = at + length
    return start >= end


def _without(content: Content, lost: Iterable[tuple[int, int]]) -> Content:
    for start, length in lost:
        content = content.punch(start, length)
    return content


def _first_difference(found: Content, wanted: Content) -> str:
    if found.size != wanted.size:
        return f"its end: {found.size} bytes, not {wanted.size}"
    for start in range(0, wanted.size, 4096):
        one, other = found.read(start, 4096), wanted.read(start, 4096)
        if one != other:
            offset = next(index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
            return f"byte {start + offset}: {one[offset]:#04x}, not {other[offset]:#04x}"
    return "nowhere"


def settled(model: Model, repo: str, image_id: str, size: int, shown: Content | None) -> Model:
    """The model when an image has been seen: with the size to which it was grown, and, of a snapshot, with what it
    shows, where nobody knew which of several things it would show. Unchanged where it shows something else."""
    image = model.images.get((repo, image_id))
    if image is None:
        return model
    if image.grown is not None and size == image.grown.size:
        image = image._replace(size=size, content=image.grown, grown=None)
    if image.torn and shown is not None and _without(shown, image.torn).same(_without(image.content, image.torn)):
        image = image._replace(content=shown, torn=())
    return model.made(repo, image_id, image)


def fitting(
    models: Iterable[Model], seen: Mapping[Key, Found], waiting: Collection[Key] | None
) -> tuple[list[Model], list[str]]:
    """(the models that what was seen fits, why it fits none of them)."""
    fit: list[Model] = []
    reasons: list[str] = []
    for model in models:
        problem = next(model.problems(seen, waiting), None)
        if problem is None:
            fit.append(model)
        else:
            reasons.append(problem)
    return fit, [] if fit else reasons
