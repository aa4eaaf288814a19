"""From a file to a ``Scenario``: every word known, every name given before it is used.

What cannot be played is found here as far as reading can find it, and told with its line.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from sim.scenario.language import schema, source
from sim.scenario.language.fields import BACKENDS, Field
from sim.scenario.language.model import (
    ExpectedError,
    FaultPlan,
    Interruption,
    Point,
    RepositoryPlan,
    Scenario,
    Step,
)
from sim.scenario.language.patterns import Piece
from sim.scenario.language.source import Mapping, Node, Scalar, Sequence, nearest, what
from sim.scenario.language.values import Reader

_GIVES = {
    "save": "content", "check": "fixes", "export": "file", "make_file": "file", "back_up": "backup",
    "start_machine": "machine",
}  # fmt: skip
"""What the name is of that a verb gives; the others give images."""
_NAMED = {"from": "fixes"}
"""What a field names that is not called so itself."""
_ONE_OF = {
    "set_user_data": ("data", "bytes", "nested"), "add_file": ("text", "length", "link_to"),
    "chmod": ("path", "image"),
}  # fmt: skip
"""Fields of which a verb needs exactly one."""
_MAX_STEPS = 500


def load(path: str) -> Scenario:
    """The scenario in a file, or ScenarioError."""
    return _Parser(path).scenario(source.load(path))


def parse(path: str, text: str) -> Scenario:
    """The scenario that ``text`` is, as if it stood in the file ``path``."""
    return _Parser(path).scenario(source.parse(path, text))


class _Parser(Reader):
    """Reads one file; knows the names that were given so far."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.backends: tuple[str, ...] = ()
        self.repositories: dict[str, RepositoryPlan] = {}
        self.hosts: tuple[str, ...] = ()
        self.names: dict[str, tuple[str, str]] = {}
        """(kind, home repository) by name; kind is image, content, fixes, file, job, machine or copy."""
        self.jobs: dict[str, str] = {}
        """The host of each frozen process."""
        self._each = False
        """Some step crashes at each of its effects."""
        self.frozen: set[str] = set()
        """Hosts that stand still."""

    # -- the whole

    def scenario(self, root: Mapping) -> Scenario:
        found: dict[str, Node] = {}
        for key, value in root.items:
            if key.text not in schema.TOP:
                self.wrong(key, f"a scenario has no {key.text!r:.60}; {nearest(key.text, list(schema.TOP))}")
            found[key.text] = value
        for name in ("title", "backends", "repositories", "hosts", "steps"):
            if name not in found:
                self.wrong(root, f"the scenario lacks {name}: {schema.TOP[name]}")
        self.backends = self._backends(found["backends"])
        self._repositories(found["repositories"])
        self.hosts = self._hosts(found["hosts"])
        profile = self.choice(found["profile"], schema.PROFILES) if "profile" in found else "posix"
        steps = self.sequence(found["steps"], "a list of steps")
        if not steps.items or len(steps.items) > _MAX_STEPS:
            self.wrong(steps, f"expected 1 to {_MAX_STEPS} steps, found {len(steps.items)}")
        return Scenario(
            path=self.path,
            title=" ".join(self.text(found["title"]).split()),
            story=self.text(found["story"]) if "story" in found else "",
            backends=self.backends,
            profile=profile,
            repositories=tuple(self.repositories.values()),
            hosts=self.hosts,
            steps=tuple(self._step(node) for node in steps.items),
        )

    def _backends(self, node: Node) -> tuple[str, ...]:
        items = self.sequence(node, "a list of backends such as [sim, local]").items
        if not items:
            self.wrong(node, "no backend is named; known: " + ", ".join(BACKENDS))
        return tuple(dict.fromkeys(self.choice(item, BACKENDS) for item in items))

    def _hosts(self, node: Node) -> tuple[str, ...]:
        items = self.sequence(node, "a list of host names").items
        names = tuple(self.name(item) for item in items)
        if not names or len(set(names)) < len(names):
            self.wrong(node, "expected at least one host, each name once")
        if len(names) > schema.SHARING_HOSTS and any(plan.shared for plan in self.repositories.values()):
            self.wrong(node, f"at most {schema.SHARING_HOSTS} hosts share a repository here")
        return names

    def _repositories(self, node: Node) -> None:
        if isinstance(node, Sequence):
            for item in node.items:
                self._repository(item, self.name(item), None)
        else:
            for key, value in self.mapping(node, "a list of names, or names with fields").items:
                self._repository(key, self.name(key), value)
        if not self.repositories:
            self.wrong(node, "expected at least one repository")

    def _repository(self, where: Node, name: str, value: Node | None) -> None:
        if name in self.repositories:
            self.wrong(where, f"the repository {name} is named twice")
        empty = value is None or (isinstance(value, Scalar) and value.kind == "null")
        values = {} if value is None or empty else self.fields(value, schema.REPOSITORY, f"repository {name}")[0]
        plan = RepositoryPlan(
            name, values.get("directory", name), values.get("format", schema.FORMATS[0]), values.get("server", ""),
            values.get("shared", False),
        )  # fmt: skip
        bad = plan.directory in ("", ".", "..") or "/" in plan.directory or "\0" in plan.directory
        if bad or len(plan.directory.encode()) > 200:
            self.wrong(where, f"{plan.directory!r:.60} cannot be the name of a directory")
        if plan.directory in [other.directory for other in self.repositories.values()]:
            self.wrong(where, f"two repositories have the directory {plan.directory!r:.60}")
        if plan.server and not plan.format.startswith("nfs-"):
            self.wrong(where, f"the format {plan.format} has no server")
        if plan.shared and not plan.format.startswith("lvm-"):
            self.wrong(where, f"shared is for lvm-1.0; hosts use the format {plan.format} without it")
        backends = schema.BACKENDS_OF[plan.format]
        if not set(self.backends) <= set(backends):
            self.wrong(where, f"the format {plan.format} needs backends: [{', '.join(backends)}]")
        self.repositories[name] = plan

    # -- a step

    def _step(self, node: Node) -> Step:
        items = self.mapping(node, "a step, such as create_snapshot: {of: web, as: monday}").items
        verbs = [(key, value) for key, value in items if key.text not in schema.MODIFIERS]
        modifiers = {key.text: (key, value) for key, value in items if key.text in schema.MODIFIERS}
        for key, _ in verbs:
            if key.text not in schema.VERBS:
                known = [*schema.VERBS, *schema.MODIFIERS]
                self.wrong(key, f"there is no verb {key.text!r:.60}; {nearest(key.text, known)}")
        if len(verbs) != 1:
            found = ", ".join(key.text for key, _ in verbs) or "none"
            self.wrong(node, f"expected one verb in a step, found {found}; each step begins with a dash of its own")
        key, value = verbs[0]
        verb = schema.VERBS[key.text]
        for backend in self.backends:
            if backend not in verb.backends:
                self.wrong(key, f"{key.text} cannot be played on {backend}: this scenario needs {_list(verb.backends)}")
        if key.text == "expect" and isinstance(value, Mapping) and [name.text for name, _ in value.items] == ["any_of"]:
            alternatives = self._alternatives(key, value.items[0][1])
            told = f"expect {' or '.join(one.text.removeprefix('expect ') for one in alternatives)}"
            step = Step("expect", key.line, {}, {}, told, self.hosts[0], alternatives=alternatives)
            return self._modified(step, modifiers, interruptible=False)
        if key.text == "expect":
            subject, fields = self._subject(value)
        else:
            subject, fields = "", verb.fields
            if verb.short and isinstance(value, Scalar):
                value = Mapping(((Scalar(verb.short, "str", value.line), value),), value.line)
        values, lines = self.fields(value, fields, key.text)
        self._references(key.text, fields, values, lines)
        step = Step(key.text, key.line, values, lines, _text(key.text, values, fields), self.hosts[0], subject=subject)
        step = self._modified(step, modifiers, verb.interruptible)
        self._check_step(step, value)
        self._stand_still(step, key)
        self._give(step, fields)
        return step

    def _alternatives(self, key: Scalar, node: Node) -> tuple[Step, ...]:
        items = self.sequence(node, "a list of expectations").items
        if len(items) < 2:
            self.wrong(node, "any_of needs two expectations or more")
        return tuple(self._step(Mapping(((key, item),), item.line)) for item in items)

    def _subject(self, value: Node) -> tuple[str, dict[str, Field]]:  # noqa: RET503 - the last line raises
        items = self.mapping(value, "expectations, such as {image: web, status: broken}").items
        present = {key.text for key, _ in items}
        for subject, fields in schema.EXPECTATIONS.items():
            if subject in present:
                return subject, fields
        known = list(dict.fromkeys(name for fields in schema.EXPECTATIONS.values() for name in fields))
        unknown = sorted(present - set(known))
        hint = f"; there is no {unknown[0]!r:.60}: {nearest(unknown[0], known)}" if unknown else ""
        self.wrong(value, f"expected what it is about: {_list(tuple(schema.EXPECTATIONS))}{hint}")

    def _modified(self, step: Step, modifiers: dict[str, tuple[Scalar, Node]], interruptible: bool) -> Step:
        for name, (key, value) in modifiers.items():
            if name in ("crash", "freeze", "stop"):
                if not interruptible:
                    self.wrong(key, f"{step.verb} cannot be interrupted by {name}")
                if step.interruption is not None:
                    self.wrong(key, "only one of crash, freeze and stop can befall a step")
                step = step._replace(interruption=self._interruption(name, value))
            elif name == "faults":
                step = step._replace(faults=self._faults(key, value))
            elif name == "host":
                step = step._replace(host=self._host(value))
            elif name == "error":
                step = step._replace(error=self._error(value))
            elif name == "may_fail":
                step = step._replace(may_fail=tuple(self._code(value, code) for code in self.words(value)))
            elif name == "process":
                step = step._replace(process=self._process(step, key, value))
            elif name == "within":
                step = step._replace(within_s=self._within(step, key, value))
            else:
                step = step._replace(note=" ".join(self.text(value).split()))
        if step.within_s and (step.interruption is not None or step.faults):
            self.wrong(modifiers["within"][0], "within cannot stand beside crash, freeze, stop and faults")
        if step.process and (step.interruption is not None or step.within_s or step.values.get("by_runner")):
            self.wrong(modifiers["process"][0], "process cannot stand beside crash, freeze, stop, within and by_runner")
        if step.interruption is not None and step.interruption.job:
            self.jobs[step.interruption.job] = step.host
        return step

    def _process(self, step: Step, key: Scalar, node: Node) -> str:
        if step.verb not in schema.BY_A_PROCESS:
            self.wrong(key, f"{step.verb} is done by no process of a host")
        if "lab" in self.backends:
            self.wrong(key, "process cannot be played on lab: this scenario needs sim, local")
        return self.name(node)

    def _within(self, step: Step, key: Scalar, node: Node) -> float:
        if step.verb not in schema.PATIENT:
            self.wrong(key, f"{step.verb} is not tried again; within is for {_list(schema.PATIENT)}")
        if set(self.backends) & {"local"}:
            self.wrong(key, "within cannot be played on local: time passes on sim and lab")
        seconds = float(self.seconds(node))
        if seconds <= 0:
            self.wrong(node, f"expected a number of seconds above 0, found {seconds:g}")
        return seconds

    def _host(self, node: Node) -> str:
        name = self.name(node)
        if name not in self.hosts:
            self.wrong(node, f"there is no host {name}; {nearest(name, list(self.hosts))}")
        return name

    def _interruption(self, how: str, node: Node) -> Interruption:
        known = {"freeze": schema.FREEZE, "crash": schema.POINT | schema.EACH}.get(how, schema.POINT)
        values, _ = self.fields(node, known, how)
        chosen = [name for name in ("before", "effect", "percent", "each") if values.get(name, False) is not False]
        if len(chosen) != 1 or ("nth" in values and "before" not in values):
            self.wrong(node, f"{how} needs one of before (and nth), effect, percent; found {_list(tuple(values))}")
        point = Point(**{name: value for name, value in values.items() if name != "as"})
        if point.before and point.before not in schema.EFFECTS:
            self.wrong(node, f"there is no effect {point.before!r:.60}; {nearest(point.before, [*schema.EFFECTS])}")
        if not point.nth or ("effect" in values and not point.effect) or point.percent > 100:
            self.wrong(node, "nth and effect count from 1, percent goes to 100")
        if point.each and self._each:
            self.wrong(node, "one step of a scenario can crash at each effect, and another one does so already")
        self._each = self._each or point.each
        if how == "freeze":
            self._new(node, values["as"], "job", "")
        return Interruption(how, point, values.get("as", ""))

    def _faults(self, key: Node, node: Node) -> tuple[FaultPlan, ...]:
        if set(self.backends) & {"local"}:
            self.wrong(key, "faults cannot be played on local: this scenario needs backends: [sim]")
        items = node.items if isinstance(node, Sequence) else (node,)
        return tuple(self._fault(item) for item in items)

    def _fault(self, node: Node) -> FaultPlan:
        values, lines = self.fields(node, schema.FAULT, "a fault")
        self._references("faults", schema.FAULT, values, lines)
        call = values.get("call", "*")
        if not any(fnmatchcase(name, call) for name in schema.CALLS):
            self.wrong(node, f"there is no call {call!r:.60}; {nearest(call, [*schema.CALLS])}")
        if "part" in values and "of" not in values:
            self.wrong(node, "part needs of: the image")
        return FaultPlan(
            values["error"], call, max(1, values.get("nth", 1)), values.get("times", 0), values.get("in", ""),
            values.get("of", ""), values.get("part", ""),
        )  # fmt: skip

    def _error(self, node: Node) -> ExpectedError:
        if isinstance(node, Scalar | Sequence):
            return ExpectedError(tuple(self._code(node, code) for code in self.words(node)), "")
        values, _ = self.fields(node, schema.ERROR, "error")
        if not values:
            self.wrong(node, "error needs a code, or says")
        code = values.get("code", "")
        return ExpectedError((self._code(node, code),) if code else (), values.get("says", ""))

    def _code(self, node: Node, code: str) -> str:
        if code not in schema.ERROR_CODES:
            self.wrong(node, f"there is no error {code!r:.60}; {nearest(code, [*schema.ERROR_CODES])}")
        return code

    # -- names

    def _references(self, of: str, fields: dict[str, Field], values: dict[str, Any], lines: dict[str, int]) -> None:
        for name, value in values.items():
            where = Scalar(str(value), "str", lines[name])
            kind = fields[name].kind
            if kind == "repository":
                self._known_repository(where, value)
            elif kind == "host" and value not in self.hosts:
                self.wrong(where, f"there is no host {value}; {nearest(value, list(self.hosts))}")
            elif kind == "image":
                self._known(where, value, "image")
            elif kind == "snapshots":
                for disk in value:
                    self._known(where, disk, "image")
            elif kind == "content":
                self._content_reference(where, value)
            elif kind == "name":
                self._known(where, value, _NAMED.get(name, name))
            elif of == "copy" and name == "only":
                for repository in value:
                    self._known_repository(where, repository)

    def _content_reference(self, where: Node, value: dict[str, Any]) -> None:
        if "as" in value:
            self._known(where, value["as"], "image")
        if "saved" in value:
            self._known(where, value["saved"], "content")
        if "in" in value:
            self._known_repository(where, value["in"])

    def _known_repository(self, where: Node, name: str) -> None:
        if name not in self.repositories:
            self.wrong(where, f"there is no repository {name}; {nearest(name, list(self.repositories))}")

    def _known(self, where: Node, name: str, kind: str) -> None:
        if name not in self.names or self.names[name][0] != kind:
            known = [other for other, (its, _) in self.names.items() if its == kind]
            word = {"content": "saved content", "fixes": "kept list of fixes", "job": "frozen process"}.get(kind, kind)
            hint = nearest(name, known) if known else "none was given before this line"
            self.wrong(where, f"no {word} is called {name} here; {hint}")

    def _new(self, where: Node, name: str, kind: str, home: str) -> None:
        if name in self.names:
            self.wrong(where, f"the name {name} is taken: it is a {self.names[name][0]} already")
        self.names[name] = kind, home

    def _give(self, step: Step, fields: dict[str, Field]) -> None:
        for snapshot in step.values["disks"].values() if step.verb == "create_snapshot_group" else ():
            self._new(Scalar(snapshot, "str", step.lines["disks"]), snapshot, "image", self.home(step))
        name = step.values.get("as")
        if name is None or fields.get("as", Field("", "")).kind != "new":
            return
        kind = _GIVES.get(step.verb, "image")
        self._new(Scalar(name, "str", step.lines["as"]), name, kind, self.home(step) if kind == "image" else "")

    def home(self, step: Step) -> str:
        """The repository in which a step works."""
        values = step.values
        named = values.get("to") or values.get("in") or values.get("repository")
        image = values.get("image") or values.get("disk") or values.get("of") or next(iter(values.get("disks", ())), "")
        return str(named or (self.names[image][1] if image in self.names else ""))

    # -- what cannot be

    def _check_step(self, step: Step, node: Node) -> None:
        values = step.values
        if step.verb in ("write", "machine_writes", "write_file"):
            self.make_piece(node, values)
        elif step.verb == "fix":
            given = [name for name in ("rule", "type", "all") if values.get(name)]
            if len(given) != 1:
                self.wrong(node, f"fix needs one of rule, type and all, found {_list(tuple(given))}")
            if "change" in values and ("from" not in values or not isinstance(values["change"], dict)):
                self.wrong(node, "change needs from, and names fields of the fixes with their values")
        elif step.verb == "damage":
            kinds = ("record", "header", "truncate", "overwrite", "written", "text", "delete", "digests")
            given = [name for name in kinds if name in values]
            if len(given) != 1:
                self.wrong(node, f"damage does one thing, found {_list(tuple(given))}")
            for kind in ("overwrite", "written"):
                if "pieces" not in values.get(kind, {"pieces": 1}):
                    self.wrong(node, f"{kind} needs a list of pieces")
        elif step.verb == "make_file" and "bitmap" in values and values.get("format") != "qcow2":
            self.wrong(node, "only a qcow2 file has bitmaps")
        elif step.verb in _ONE_OF and len(values.keys() & set(_ONE_OF[step.verb])) != 1:
            self.wrong(node, f"{step.verb} needs one of {', '.join(_ONE_OF[step.verb])}")
        elif step.verb == "make_file" and "pieces" not in values.get("content", {"pieces": 1}):
            self.wrong(node, "the content of a made file is a list of pieces")
        elif step.verb == "add_file" and any(part in ("", ".", "..") for part in values["path"].split("/")):
            self.wrong(node, f"{values['path']!r:.60} is not a path inside the repository")
        elif step.verb == "expect":
            self._check_expectation(step, node)
        elif step.verb == "wait" and values["seconds"] < 0:
            self.wrong(node, "time does not pass backwards")

    def _stand_still(self, step: Step, key: Node) -> None:
        """Hosts that are frozen do nothing."""
        name = str(step.values.get("name", ""))
        if step.verb == "thaw_host" and name not in self.frozen:
            self.wrong(key, f"the host {name} is not frozen here")
        if step.verb == "freeze_host":
            if name in self.frozen:
                self.wrong(key, f"the host {name} is frozen already")
            self.frozen.add(name)
        elif step.verb in ("thaw_host", "kill_host", "reset_host"):
            self.frozen.discard(name)
        elif step.verb == "power_cut":
            self.frozen.clear()
        else:
            host = self.jobs.get(step.values["job"], "") if step.verb == "thaw" else step.host
            if host in self.frozen:
                self.wrong(key, f"the host {host} is frozen here: thaw_host comes first")

    def _check_expectation(self, step: Step, node: Node) -> None:
        about = {step.subject, "in", "deep", "image", "file", "fix"}
        if not step.values.keys() - about and step.subject != "fix":
            self.wrong(
                node, f"this expects nothing; say what must be so: {_list(tuple(schema.EXPECTATIONS[step.subject]))}"
            )


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words) or "nothing"


def _text(verb: str, values: dict[str, Any], fields: dict[str, Field]) -> str:
    """A step in one line."""
    bare = ("image", "disk", "of", "repository", "name", "job", "machine", "copy", "file", "fix")
    parts = [verb]
    parts += [str(values[name]) for name in bare if name in values]
    parts += [f"{name} {_shown(value, fields[name].kind)}" for name, value in values.items() if name not in bare]
    return " ".join(parts)


def _shown(value: Any, kind: str) -> str:
    if kind == "size" or (kind == "room" and value is not None):
        return _bytes(value)
    if kind == "room":
        return "plenty"
    if kind == "content":
        pieces = "; ".join(_piece(piece) for piece in value.get("pieces", ()))
        return pieces or " ".join(f"{key} {name}" for key, name in value.items() if key != "pieces") or "zeros"
    if kind == "snapshots":
        return " ".join(f"{disk}={snapshot}" for disk, snapshot in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return what(Scalar(str(value), "str", 0)) if kind == "text" else str(value)


def _piece(piece: Piece) -> str:
    times = f" x {piece.times}, every {_bytes(piece.every)}" if piece.times > 1 else ""
    return f"{piece.pattern} at {_bytes(piece.at)} + {_bytes(piece.length)}{times}"


def _bytes(count: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return str(count)
