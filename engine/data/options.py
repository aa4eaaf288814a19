"""Options of the verbs: known everywhere, or to one verb; anything else is an error, not ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.data.model import Strategy, require_id
from engine.errors import BadRequest


class Options(NamedTuple):
    """Options after checking."""

    auto_fix: bool = True
    """Start the fix that makes the image usable soonest."""
    strategy: Strategy | None = None
    """None: the verb's default (space, or what the image already has)."""
    participating_repositories: tuple[str, ...] | None = None
    """Look for images only in these connected repositories."""
    image_hints: tuple[tuple[str, str], ...] = ()
    """(image id, repository) pairs: look for that image there and fail if it is not there."""
    digest: bool = True
    """copy_image, import_image: compute the content digest of an immutable image on the way."""
    full: bool = False
    """copy_image: copy all bits when the base cannot be used."""
    deep: bool = False
    """check_storage_repository, get_image_status: read the data too."""
    irreversible: bool = False
    """fix_storage_repository, run_fixes: also do what cannot be undone."""

    quiesce: bool = False
    """create_snapshot, create_snapshot_group, copy_image, export_image, stream_image: of a disk whose machine runs,
    with the file systems of its guest frozen, or not at all."""

    rate: int = 0
    """copy_image, import_image, export_image, stream_image, fix_storage_repository, run_fixes: bytes per second that
    the work moves at most; 0: as fast as it goes."""

    def hint(self, image: str) -> str | None:
        """Return the repository in which ``image`` must be looked for, None when none was named."""
        return dict(self.image_hints).get(image)


_MOST_RATE = (1 << 63) - 1
"""What a machine can be told."""
EVERYWHERE = frozenset({"auto_fix", "strategy", "participating_repositories", "image_hints"})
OF_VERB = {
    "create_snapshot": frozenset({"quiesce"}),
    "create_snapshot_group": frozenset({"quiesce"}),
    "copy_image": frozenset({"digest", "full", "quiesce", "rate"}),
    "import_image": frozenset({"digest", "rate"}),
    "export_image": frozenset({"quiesce", "rate"}),
    "stream_image": frozenset({"quiesce", "rate"}),
    "check_storage_repository": frozenset({"deep"}),
    "get_image_status": frozenset({"deep"}),
    "fix_storage_repository": frozenset({"irreversible", "rate"}),
    "run_fixes": frozenset({"irreversible", "rate"}),
}


def parse(verb: str, options: Mapping[str, Any] | None) -> Options:
    """Check ``options`` for ``verb``; BadRequest names the first one that is wrong."""
    if options is None:
        return Options()
    if not isinstance(options, Mapping):
        raise BadRequest(f"options must be an object, not {type(options).__name__}")
    known = EVERYWHERE | OF_VERB.get(verb, frozenset())
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise BadRequest(f"{verb} has no option {name!r:.60}", f"It knows {', '.join(sorted(known))}")
        values[name] = _checked(name, value)
    return Options(**values)


def _checked(name: str, value: Any) -> Any:
    if name == "strategy":
        if value not in list(Strategy):
            raise BadRequest(f"strategy {value!r:.60} is unknown", "Use space or performance")
        return Strategy(value)
    if name == "participating_repositories":
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise BadRequest("participating_repositories must be a list of connected repositories")
        return tuple(value)
    if name == "image_hints":
        if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
            raise BadRequest("image_hints must map image ids to connected repositories")
        return tuple((require_id(image, "image_hints key"), repo) for image, repo in value.items())
    if name == "rate":
        return require_rate(value)
    if not isinstance(value, bool):
        raise BadRequest(f"option {name} must be true or false, not {value!r:.60}")
    return value


def require_rate(value: object) -> int:
    """Return a limit in bytes per second, 0 for none; BadRequest for what is no such number."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_RATE:
        raise BadRequest(f"rate {value!r:.60} is no number of bytes per second", "Use 0 for no limit")
    return value
