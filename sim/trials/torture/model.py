"""What must be in the repositories of a torture: what was acknowledged, and all else whole or not at all.

Contents are kept as bytes. Of an operation that was interrupted or failed both outcomes are allowed, of a write in
each sector; what is found then becomes what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from engine.data.model import ImageReport
from sim.scenario.report.outcome import usable

SECTOR_BYTES = 512


class Known:
    """An image that was acknowledged, or found."""

    def __init__(self, repo: str, id: str, mutable: bool, data: bytes, user_data: Any = None) -> None:
        self.repo = repo
        self.id = id
        self.mutable = mutable
        self.data = data
        self.maybe: bytes | None = None
        """The content if the interrupted write was done."""
        self.user_data: Any = user_data
        self.user_data_maybe: Any = user_data
        self.removed = False
        self.unsure = False
        """Whether it is removed is not known: a removal or a restoration was interrupted."""


class Possible(NamedTuple):
    """An image that an interrupted operation may have made."""

    repo: str
    mutable: bool
    data: bytes
    id: str
    """"" when nobody was told."""
    user_data: Any


class Model:
    """All images, by repository and id."""

    def __init__(self) -> None:
        self.images: dict[tuple[str, str], Known] = {}
        self.possible: list[Possible] = []

    def add(self, repo: str, id: str, mutable: bool, data: bytes, user_data: Any = None) -> None:
        """An image was made. Success again for one that was there: it keeps its content."""
        known = self.images.get((repo, id))
        if known is None:
            self.images[repo, id] = Known(repo, id, mutable, data, user_data)
        else:
            known.removed = known.unsure = False
            known.user_data_maybe = user_data

    def there(self, repo: str = "", mutable: bool | None = None) -> list[Known]:
        """Images that can be used, in an order that does not depend on chance."""
        return [
            image
            for image in self.images.values()
            if not image.removed and repo in ("", image.repo) and mutable in (None, image.mutable)
        ]

    def settle(
        self, repo: str, reports: Iterable[ImageReport], read: Callable[[str], bytes], user_data: Callable[[str], Any]
    ) -> list[str]:
        """Compare with what is there; what is wrong, in sentences. Afterwards nothing of the repository is unsure.

        ``read`` gives the content of an image, ``user_data`` what is kept with it."""
        found = {report.id: report for report in reports if not report.hidden}
        wrong: list[str] = []
        for (where, id), image in list(self.images.items()):
            if where == repo:
                wrong += self._settle_one(image, found.pop(id, None), read, user_data)
        for report in found.values():
            wrong += self._adopt(repo, report, read, user_data)
        self.possible = [one for one in self.possible if one.repo != repo]
        return wrong

    def _settle_one(
        self, image: Known, report: ImageReport | None, read: Callable[[str], bytes], user_data: Callable[[str], Any]
    ) -> list[str]:
        gone = report is None or report.removed
        if image.unsure:
            image.removed, image.unsure = gone, False
        if image.removed:
            if report is None:
                del self.images[image.repo, image.id]
            return [] if gone else [f"image {image.id} in {image.repo} was removed, and is there again"]
        name = f"{'disk' if image.mutable else 'snapshot'} {image.id} in {image.repo}"
        if report is None or gone:
            return [f"{name} was acknowledged, and is gone"]
        if not usable(report):
            return [f"{name} is {report.status}: {report.reason}"]
        wrong = _differences(name, image, read(image.id))
        kept = user_data(image.id)
        if kept not in (image.user_data, image.user_data_maybe):
            wrong.append(f"{name} has the user data {kept!r:.80}, not {image.user_data!r:.80}")
        image.user_data = image.user_data_maybe = kept
        return wrong

    def _adopt(
        self, repo: str, report: ImageReport, read: Callable[[str], bytes], user_data: Callable[[str], Any]
    ) -> list[str]:
        if report.removed:
            return []
        name = f"image {report.id} in {repo}"
        candidates = [one for one in self.possible if one.repo == repo and one.id in ("", report.id)]
        candidates = [one for one in candidates if one.mutable == report.mutable]
        if not candidates:
            return [f"{name} is there, and nothing has made it"]
        if not usable(report):
            return [f"{name}, of an interrupted operation, is {report.status}: {report.reason}"]
        data = read(report.id)
        for one in candidates:
            if one.data == data and user_data(report.id) == one.user_data:
                self.possible.remove(one)
                self.add(repo, report.id, report.mutable, data, one.user_data)
                return []
        return [f"{name}, of an interrupted operation, has a content that none of them gave it"]


def _differences(name: str, image: Known, data: bytes) -> list[str]:
    """Compare, sector by sector where a write was interrupted; then what was found is what is known."""
    old, new = image.data, image.maybe or image.data
    image.data, image.maybe = data, None
    if data in (old, new):
        return []
    if len(data) != len(old):
        return [f"{name} is {len(data)} bytes long, not {len(old)}"]
    for start in range(0, len(data), SECTOR_BYTES):
        part = slice(start, start + SECTOR_BYTES)
        if data[part] not in (old[part], new[part]):
            return [f"{name} has the wrong content from byte {start} on"]
    return []
