"""What a command works with: its arguments, the engine of this host, the output."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from engine.errors import BadRequest, DiskwrightError, NotFound
from tui.cli.arguments import PREFIX_DIGITS, Parser, UsageError, json_argument, key_values, option_value, parse_rate
from tui.cli.render import Output, is_terminal
from tui.directories import user_directory
from tui.text import words
from tui.text.printable import printable

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.data.model import ImageReport
    from engine.host.state import Task
    from tui.view.machines import MachineRow
    from tui.work.noted import NotedEngine

HOST_BYTES = 64
ID_DIGITS = 32
_HEX = frozenset("0123456789abcdef")

T = TypeVar("T")


def host_name(given: str | None) -> str:
    """The name of this host as records will show it; BadRequest when it cannot be one."""
    name = given if given is not None else os.environ.get("DISKWRIGHT_HOST") or os.uname().nodename
    good = name.isprintable() and "/" not in name and name not in ("", ".", "..")
    if not good or len(name.encode("utf-8")) > HOST_BYTES:
        raise BadRequest(
            f"{name!r:.100} cannot name a host", f"Use up to {HOST_BYTES} bytes of printable characters, no slash"
        )
    return name


def state_directory(given: str | None, host: str) -> str:
    """Where this host keeps its notes: DIR/<host>, absolute. Several hosts may share one DIR."""
    base = given or os.environ.get("DISKWRIGHT_STATE") or user_directory("XDG_STATE_HOME", ".local/state")
    return os.path.join(os.path.abspath(base), host)


class Session:
    """One run of a command. The engine is made when it is first needed."""

    def __init__(self, out: Output, host: str, state: str) -> None:
        self.out = out
        self.host = host
        self.state = state
        self._engine: NotedEngine | None = None
        self._names: ImageNames | None = None

    @property
    def engine(self) -> NotedEngine:
        """This host's engine."""
        if self._engine is None:
            from engine.assembly import real_doors
            from tui.work.noted import NotedEngine

            self._engine = NotedEngine(real_doors(self.host, self.state), self.state, "command")
            self._tell_what_ended(self._engine)
        return self._engine

    @property
    def names(self) -> ImageNames:
        """What the names of images mean to this command."""
        if self._names is None:
            self._names = ImageNames(self.engine)
        return self._names

    def _tell_what_ended(self, engine: NotedEngine) -> None:
        """On a terminal: what went on by itself and has ended since somebody looked."""
        if self.out.json_wanted or not is_terminal(sys.stderr) or not engine.history.going_on():
            return
        from tui.work import away

        with contextlib.suppress(DiskwrightError):
            for text in away.news(away.settle(engine.notes)):
                self.out.say(text)

    def followed(self, id: str) -> None:
        """Work was followed to its end: the history has it, and nobody is told again."""
        from tui.work import away

        with contextlib.suppress(DiskwrightError):
            away.settle(self.engine.notes, {id})

    def close(self) -> None:
        """Close what is open in this process."""
        if self._engine is not None:
            self._engine.close()

    # -- what arguments mean

    def image(self, repo_id: str, text: str) -> str:
        """As ``ImageNames.one``."""
        return self.names.one(repo_id, text)

    def options(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """The options of the API that the flags say; only those that were given."""
        found: dict[str, Any] = {}
        for text, value in key_values(arguments.option or [], "option").items():
            found[text] = option_value(value)
        given = vars(arguments)
        for flag, name in (("no_auto_fix", "auto_fix"), ("no_digest", "digest")):
            if given.get(flag):
                found[name] = False
        for name in ("full", "deep", "quiesce"):
            if given.get(name):
                found[name] = True
        if given.get("rate"):
            found["rate"] = parse_rate(arguments.rate)
        if given.get("strategy"):
            found["strategy"] = arguments.strategy
        if given.get("participating"):
            found["participating_repositories"] = arguments.participating
        if given.get("hint"):
            hints = key_values(arguments.hint, "hint")
            found["image_hints"] = {self.image(repo, image): repo for image, repo in hints.items()}
        return found

    @staticmethod
    def user_data(arguments: argparse.Namespace) -> Any:
        """The value of ``--user-data`` with the ``--name`` in it, None when neither was given."""
        data = None if arguments.user_data is None else json_argument(arguments.user_data, "user data")
        return data if arguments.name is None else renamed(data, arguments.name)

    def tell_namesakes(self, repo_id: str, image: str, name: str | None) -> None:
        """Say that other images of the repository have the name that ``image`` was just given: no command takes it for
        one of them then. Only where this one has looked for images by name anyway: no others are read for a note."""
        if not name or not self.names.known(repo_id):
            return
        others = sorted({*self.names.having(repo_id, name.strip())} - {image})
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            self.out.say(
                f"Note: {others[0]}{more} in {printable(repo_id)} has the name {printable(name)!r:.80} too: "
                "what is meant has to be said by its id."
            )

    # -- what goes on

    def task_on(self, repo_id: str, image: str, but: Collection[str] = ()) -> Task | None:
        """The task of this host that works on an image, other than those ``but``; None when there is none."""
        for task in self.engine.list_tasks():
            if task.id not in but and task.repo_id == repo_id and image == (task.image or self.engine.task_image(task)):
                return task
        return None


def renamed(data: Any, name: str) -> dict[str, Any]:
    """User data with another name in it; UsageError when it is no object, which could have one."""
    require(name.strip() and name.isprintable(), f"{name!r:.80} cannot be a name", "Use printable characters")
    require(data is None or isinstance(data, dict), "the user data is no JSON object, so it has no room for a name")
    return {**(data or {}), "name": name.strip()}


def looked(
    engine: Engine, named: Sequence[str] | None, look: Callable[[str], T], unread: list[tuple[str, str]]
) -> Iterator[tuple[str, T]]:
    """Yield what a look at each repository found: at those that are named, of which each must be readable, or at all;
    of these those that cannot be read come into ``unread`` with the reason. Storages that do not answer are waited for
    together."""
    places = sorted(engine.list_repositories()) if named is None else named
    away = engine.context.open_together(places)
    for repo_id in places:
        try:
            if repo_id in away:
                raise away[repo_id]
            found = look(repo_id)
        except DiskwrightError as error:
            if named is not None:
                raise
            unread.append((repo_id, error.message))
        else:
            yield repo_id, found


class ImageNames:
    """What the names of images mean. A repository is listed once, when the first name is looked for in it: that takes
    all of its records; a whole id takes none."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._listed: dict[str, list[ImageReport]] = {}

    def one(self, repo_id: str, text: str) -> str:
        """The id that ``text`` is, or is the beginning of, or the image of ``repo_id`` that has that name."""
        if _is_whole(text):
            return text.lower()
        return _only(text, dict.fromkeys(self._images(repo_id), repo_id), repo_id)

    def having(self, repo_id: str, name: str) -> list[str]:
        """The ids of the images that have that name, removed ones too."""
        return [image.id for image in self._images(repo_id) if image.name == name]

    def known(self, repo_id: str) -> bool:
        """Whether the repository was listed already."""
        return repo_id in self._listed

    def anywhere(self, text: str, repositories: list[str] | None = None, home: str = "") -> str:
        """As ``one``, among the images of all connected repositories (or of those named); a name that one image of
        ``home`` has alone means that one."""
        if _is_whole(text):
            return text.lower()
        if home:
            there = self.having(home, text)
            if len(there) == 1:
                return there[0]
        known: dict[ImageReport, str] = {}
        places: dict[str, ImageReport] = {}
        unread: list[tuple[str, str]] = []
        for repo_id, images in looked(self._engine, repositories, self._images, unread):
            for image in images:
                first = places.setdefault(image.id, image)
                known[first] = f"{known[first]}, {repo_id}" if first in known else repo_id
        silent = ", ".join(repo_id for repo_id, _ in unread)
        where = "the connected repositories" + (f" ({silent} cannot be read)" if silent else "")
        return _only(text, known, where)

    def _images(self, repo_id: str) -> list[ImageReport]:
        if repo_id not in self._listed:
            self._listed[repo_id] = self._engine.list_images(repo_id)
        return self._listed[repo_id]


def _is_whole(text: str) -> bool:
    return len(text) == ID_DIGITS and set(text.lower()) <= _HEX


def _only(text: str, known: dict[ImageReport, str], where: str) -> str:
    """The one image of ``known`` that ``text`` means: that name, else the beginning of an id."""
    found, step = [image for image in known if image.name == text], "It is the name of each of them: give an id"
    if not found and len(text) >= PREFIX_DIGITS:
        found, step = [image for image in known if image.id.startswith(text.lower())], "Give more digits"
    if not found:
        raise NotFound(
            f"no image in {where} has the name {text!r:.80} or an id that begins so",
            f"diskwright images lists what is there; of an id, {PREFIX_DIGITS} digits or more are needed",
        )
    if len(found) > 1:
        from engine.errors import Ambiguous

        shown = sorted(f"{image.id} ({image.name or '-'}, {known[image]})" for image in found)
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise Ambiguous(f"{text!r:.80} may mean {len(found)} images: {', '.join(shown[:8])}{more}", step)
    return found[0].id


def image_json(image: ImageReport) -> dict[str, Any]:
    """An image as JSON data."""
    data = image._asdict()
    data["operation"] = image.operation._asdict() if image.operation else None
    data["kind"] = kind(image)
    data["status"] = shown_status(image)
    data["running"] = {"who": image.busy, "percent": percent(image)} if image.busy else None
    data["usable"] = usable(image)
    del data["hidden"]
    return data


def machine_json(row: MachineRow) -> dict[str, Any]:
    """An image that is prepared here as JSON data; ``pid`` is its holder's."""
    return {
        "repository": row.repository,
        "image": row.image,
        "name": row.name,
        "path": row.path,
        "format": row.format,
        "writable": row.writable,
        "pid": row.holder,
        "since": row.since,
        "monitor": row.monitor,
        "state": str(row.state),
        "users": [user._asdict() for user in row.users],
        "below": [{"image": tag, "name": name} for tag, name in row.below],
        "work": row.work,
        "problem": row.problem,
    }


def kind(image: ImageReport) -> str:
    """disk or snapshot."""
    return "disk" if image.mutable else "snapshot"


def percent(image: ImageReport) -> int:
    """How far the work on it is; -1 when that is not known."""
    return image.operation.come_to if image.operation else -1


def running(image: ImageReport) -> str:
    """What is said beside the status of an image that somebody works on."""
    return words.running(percent(image))


def usable(image: ImageReport) -> bool:
    """Whether the image can be used now."""
    return image.status in ("optimized", "degraded") and not image.removed


def shown_status(image: ImageReport) -> str:
    """The status that is shown: a removed image is REMOVED, whatever its data are."""
    return "removed" if image.removed else str(image.status)


def require(condition: object, message: str, next_step: str = "See diskwright --help") -> None:
    """UsageError unless ``condition`` holds."""
    if not condition:
        raise UsageError(message, next_step)


def absolute(path: str) -> str:
    """A path of the operator as the engine wants it; UsageError when it is empty, which is no path."""
    require(path, "the path is empty", "Give the path of a file")
    return os.path.abspath(path)


class Handler(NamedTuple):
    """The code of a command."""

    add: Callable[[Parser], None]
    """Fills the parser."""
    run: Callable[[Session, argparse.Namespace], int]
    """Runs the command and returns its exit code."""
    help_of: Callable[[str], str] | None = None
    """Returns the help of an action that has a parser of its own, "" for any other."""
