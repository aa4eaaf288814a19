"""Random operations of a torture: what is done, and what the model knows when it is done or may have been."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from sim.scenario.backends.operations import HERE
from sim.scenario.language.patterns import BLOCK_BYTES
from sim.scenario.language.patterns import data as pattern_data
from sim.trials.torture.model import SECTOR_BYTES, Known, Model, Possible

MAX_IMAGES = 7
"""Of one repository; then some are removed."""
_MIN_BLOCKS, _MAX_BLOCKS = 16, 512  # of 4 KiB


class Action(NamedTuple):
    """An operation on one host."""

    verb: str
    arguments: dict[str, Any]
    images: frozenset[str]
    """Images that the operation works on: nothing else may meanwhile."""
    done: Callable[[Any], None]
    """To be called when the operation was acknowledged, with its result."""
    unsure: Callable[[], None]
    """To be called when the operation was interrupted, or failed: it has happened, or not."""
    about: str


class Choices:
    """Chooses operations that make sense for what the model knows."""

    def __init__(self, model: Model, repos: tuple[str, ...], random: random.Random) -> None:
        self._model = model
        self._repos = repos
        self._random = random
        self._count = 0

    def choose(self, busy: frozenset[str]) -> Action:
        """Choose an operation that touches none of the images ``busy``."""
        kinds: list[Callable[[frozenset[str]], Action | None]] = [
            self._create, self._create, self._write, self._write, self._write, self._snapshot, self._snapshot,
            self._clone, self._copy, self._copy, self._remove, self._restore, self._user_data, self._fix,
        ]  # fmt: skip
        crowded = [repo for repo in self._repos if len(self._model.there(repo)) >= MAX_IMAGES]
        if crowded:
            kinds = [self._remove, self._remove, self._remove, self._write, self._fix]
        while True:
            action = self._random.choice(kinds)(busy)
            if action is not None:
                return action
            kinds.append(self._create if not crowded else self._fix)

    def fix(self, repo: str, type: str = "") -> Action:
        """Run all fixes of a repository, or those of one type."""
        arguments = {
            "repo": repo, "kind": type, "image": "", "lose_data": False, "deep": False, "given": None, "nth": 0,
        }  # fmt: skip
        return Action("fix", arguments, frozenset(), lambda result: None, lambda: None, f"fix {repo}")

    def _one(self, images: list[Known], busy: frozenset[str]) -> Known | None:
        free = [image for image in images if image.id not in busy]
        return self._random.choice(free) if free else None

    def _maker(
        self, verb: str, arguments: dict[str, Any], images: frozenset[str], made: Possible, about: str
    ) -> Action:
        def done(result: Any) -> None:
            self._model.add(made.repo, str(result), made.mutable, made.data, made.user_data)

        return Action(verb, arguments, images, done, lambda: self._model.possible.append(made), about)

    def _create(self, busy: frozenset[str]) -> Action | None:
        repo = self._random.choice(self._repos)
        size = self._random.randint(_MIN_BLOCKS, _MAX_BLOCKS) * BLOCK_BYTES
        size += self._random.choice((0, 0, 512, 1000))
        strategy = self._random.choice(("space", "performance"))
        self._count += 1
        arguments = {
            "repo": repo, "size": size, "base": None, "user_data": {"number": self._count},
            "options": {"strategy": strategy}, "work": HERE,
        }  # fmt: skip
        made = Possible(repo, True, bytes(size), "", {"number": self._count})
        return self._maker("create_disk", arguments, frozenset(), made, f"create a disk in {repo}")

    def _clone(self, busy: frozenset[str]) -> Action | None:
        base = self._one(self._model.there(mutable=False), busy)
        if base is None:
            return None
        arguments = {
            "repo": base.repo, "size": len(base.data), "base": base.id, "user_data": {},
            "options": {"image_hints": {base.id: base.repo}}, "work": HERE,
        }  # fmt: skip
        made = Possible(base.repo, True, base.data, "", {})
        return self._maker("create_disk", arguments, frozenset({base.id}), made, f"create a disk from {base.id[:8]}")

    def _snapshot(self, busy: frozenset[str]) -> Action | None:
        disk = self._one(self._model.there(mutable=True), busy)
        if disk is None:
            return None
        arguments = {"repo": disk.repo, "disk": disk.id, "user_data": {}, "options": {}}
        made = Possible(disk.repo, False, disk.data, "", {})
        return self._maker("create_snapshot", arguments, frozenset({disk.id}), made, f"snapshot {disk.id[:8]}")

    def _copy(self, busy: frozenset[str]) -> Action | None:
        image = self._one(self._model.there(), busy)
        others = [repo for repo in self._repos if image is not None and repo != image.repo]
        if image is None or not others:
            return None
        target = self._random.choice(others)
        id = "" if image.mutable else image.id
        there = self._model.images.get((target, id))
        arguments = {
            "repo": target, "image": image.id, "base": None, "user_data": {"copied": 1},
            "options": {"image_hints": {image.id: image.repo}}, "work": HERE,
        }  # fmt: skip
        made = Possible(target, image.mutable, image.data, id, {"copied": 1})
        action = self._maker("copy", arguments, frozenset({image.id}), made, f"copy {image.id[:8]} to {target}")
        if there is not None and there.removed:  # it may come back
            return action._replace(unsure=lambda: _unsure(there))
        return action

    def _write(self, busy: frozenset[str]) -> Action | None:
        disk = self._one(self._model.there(mutable=True), busy)
        if disk is None:
            return None
        self._count += 1
        blocks = len(disk.data) // SECTOR_BYTES
        first = self._random.randrange(blocks)
        length = self._random.randint(1, min(blocks - first, self._random.choice((8, 128, 4096)))) * SECTOR_BYTES
        name = self._random.choice(("zeros", f"p{self._count}", f"p{self._count}", f"p{self._count}"))
        start = first * SECTOR_BYTES
        new = bytearray(disk.data)
        new[start : start + length] = pattern_data(name, start, length)

        def done(result: Any) -> None:
            disk.data = bytes(new)

        def unsure() -> None:
            disk.maybe = bytes(new)

        arguments = {"repo": disk.repo, "disk": disk.id, "pieces": [[name, start, length, 0, 1]]}
        about = f"write {length} bytes into {disk.id[:8]}"
        return Action("write", arguments, frozenset({disk.id}), done, unsure, about)

    def _remove(self, busy: frozenset[str]) -> Action | None:
        image = self._one(self._model.there(), busy)
        if image is None:
            return None

        def done(result: Any) -> None:
            image.removed = True

        return self._on_image("remove", image, done)

    def _restore(self, busy: frozenset[str]) -> Action | None:
        image = self._one([one for one in self._model.images.values() if one.removed], busy)
        if image is None:
            return None

        def done(result: Any) -> None:
            image.removed = False

        return self._on_image("restore", image, done)

    def _on_image(self, verb: str, image: Known, done: Callable[[Any], None]) -> Action:
        arguments = {"repo": image.repo, "image": image.id}
        return Action(verb, arguments, frozenset({image.id}), done, lambda: _unsure(image), f"{verb} {image.id[:8]}")

    def _user_data(self, busy: frozenset[str]) -> Action | None:
        image = self._one(self._model.there(), busy)
        if image is None:
            return None
        self._count += 1
        value = {"number": self._count, "text": "x" * self._random.choice((1, 3000))}

        def done(result: Any) -> None:
            image.user_data = image.user_data_maybe = value

        def unsure() -> None:
            image.user_data_maybe = value

        arguments = {"repo": image.repo, "image": image.id, "data": value}
        return Action("set_user_data", arguments, frozenset({image.id}), done, unsure, f"user data of {image.id[:8]}")

    def _fix(self, busy: frozenset[str]) -> Action | None:
        return self.fix(self._random.choice(self._repos))


def _unsure(image: Known) -> None:
    image.unsure = True
