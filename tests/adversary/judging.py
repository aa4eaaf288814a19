"""What is looked at after a round and at the end: listings, statuses, contents, fixes, what is left over."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.adversary.doors.hosts import Done, Host
from tests.adversary.oracle.contents import judge
from tests.adversary.oracle.findings import Finding
from tests.adversary.oracle.model import ABSENT, PRESENT, REMOVED, Image, halves, undecided
from tests.adversary.world import World

ROUNDS_OF_FIXES = 6
IN_USE = 4
"""Exit code, as documented: somebody holds the image."""


def look(world: World, host: Host, touched: set[str]) -> list[Finding]:
    """Compare repositories with the model: which images are there, and what usable ones contain. Where commands are
    slow, only those that were touched."""
    world.quiet()
    found = world.machines_hurt()
    for repository in touched if world.site.sparing else world.places:
        found += _Look(world, host, repository, strict=False).all()
    return found


def settle(world: World, host: Host) -> list[Finding]:
    """Run all fixes that lose nothing; then every undamaged image must be usable, if what it needs is there."""
    world.quiet()
    found = []
    for repository in world.places:
        found += _fix_all(world, host, repository)
    for repository in world.places:
        found += _Look(world, host, repository, strict=True).all()
    return found


def end(world: World, host: Host) -> list[Finding]:
    """Bring a world to rest: undamaged images are readable, fixes lead to a clean repository, it can be emptied."""
    world.teardown_all()
    for repository in list(world.replaced):
        world.accept(repository)
    found = settle(world, host) or _deep(world, host)
    for repository in world.places:
        found = found or _converges(world, host, repository)
    found = found or [one for repository in world.places for one in _Look(world, host, repository, strict=True).all()]
    for repository in world.places:
        found = found or _empties(world, host, repository)
    return found


def _fix_all(world: World, host: Host, repository: str, *more: str) -> list[Finding]:
    done = _fix_everywhere(world, host, repository, *more)
    for _ in range(2):
        if not done.code:
            break
        done = _fix_everywhere(world, host, repository, *more)
    world.quiet()
    _may_be_cleaned(world, repository)
    hurt = any(image.hurt or image.grown_from for image in world.model.repositories[repository].values())
    if not done.code or hurt or any(m.repository == repository for m in world.machines.values()):
        return []
    return [Finding("fixes fail", repository, "", f"fix --all ended with {done.code} three times: {done.error[-500:]}")]


def _fix_everywhere(world: World, host: Host, repository: str, *more: str) -> Done:
    """Run all fixes on a host, and where imports are left, on the others: only where one began its file is read."""
    done = host.run("fix", repository, "--all", *more)
    for other in world.hosts:
        left = done.output.get("left", [])
        if done.code or other is host or all(fix["rule"] != "B-IMPORT" for fix in left):
            continue
        world.quiet()
        done = other.run("fix", repository, "--all", *more)
    return done


def _may_be_cleaned(world: World, repository: str) -> None:
    for image in world.model.repositories[repository].values():
        if REMOVED in image.states:
            image.states.add(ABSENT)


class _Look:
    """One look at one repository from one host."""

    def __init__(self, world: World, host: Host, repository: str, *, strict: bool) -> None:
        self.world, self.host, self.repository, self.strict = world, host, repository, strict
        self.images = world.model.repositories[repository]

    def all(self) -> list[Finding]:
        done = self.host.run("images", self.repository)
        if done.code and self.repository in self.world.replaced:
            return []
        if done.code:
            return [self._finding("unreadable repository", "", f"images ended with {done.code}: {done.last_words}")]
        listed = {one["id"]: one for one in done.output["images"]}
        found, groups = self._strangers(listed), undecided(self.images.values())
        for image in list(self.images.values()):
            found += self._state(image, listed.get(image.id))
        found += [self._finding("half a group", "", says) for says in halves(groups, self.images)]
        with ThreadPoolExecutor(max_workers=2) as pool:
            for more in pool.map(lambda image: self._content(image, listed.get(image.id)), list(self.images.values())):
                found += more
        return found

    def _finding(self, kind: str, image: str, says: str) -> Finding:
        return Finding(kind, self.repository, image, says)

    def _strangers(self, listed: dict[str, Any]) -> list[Finding]:
        """Find out which images the listed ones are that no command has told."""
        found = []
        known = {image.id for image in self.images.values()}
        for image_id, one in listed.items():
            if image_id in known:
                continue
            output = self.host.run("user-data", "get", self.repository, image_id).output
            image = self._called(output.get("name", ""), one["size_bytes"]) if isinstance(output, dict) else None
            if image and not image.id:
                image.id = image_id
            elif not any(one.hurt for one in self.images.values()):
                says = f"{image_id} ({one['status']}, {one['reason']}, user data {output}) was made by no command"
                found.append(self._finding("stranger", "", says))
        return found

    def _called(self, name: str, size: int) -> Image | None:
        """Return the image that a command gave that name; of a group that which has this length."""
        members = (one for one in self.images.values() if one.group == name and one.contents[0].size == size)
        return self.images.get(name) or next(members, None)

    def _state(self, image: Image, one: dict[str, Any] | None) -> list[Finding]:
        actual = ABSENT if one is None else REMOVED if one["removed"] else PRESENT
        if f"{self.repository}/{image.name}" in self.world.away:
            return []
        if not image.may_be(actual):
            allowed = " or ".join(sorted(image.states))
            return [self._finding("state", image.name, f"{image.id} is {actual}, must be {allowed}; listed: {one}")]
        image.states = {actual}
        if actual == ABSENT:
            del self.images[image.name]
        return []

    def _content(self, image: Image, one: dict[str, Any] | None) -> list[Finding]:
        if one is None or one["removed"] or f"{self.repository}/{image.name}" in self.world.away:
            return []
        if image.grown_from and one["size_bytes"] == image.grown_from:
            return self._grown(image, one)
        if not one["usable"]:
            return self._unusable(image, one)
        if image.checked and not self.strict:
            return []
        if image.hurt in ("volume", "torn"):
            return []
        return self._exported(image, one)

    def _grown(self, image: Image, one: dict[str, Any]) -> list[Finding]:
        fixes = self.host.run("check", self.repository).output.get("fixes", [])
        if one["rule"] or any(fix["target"] == image.id for fix in fixes):
            return []
        says = (
            f"it is {one['status']} with {one['size_bytes']} bytes and nothing is said, but its machine saw"
            f" {image.contents[0].size} bytes and wrote into the last ones"
        )
        return [self._finding("status better than the truth", image.name, says)]

    def _unusable(self, image: Image, one: dict[str, Any]) -> list[Finding]:
        model = self.world.model
        if (
            not self.strict
            or image.hurt
            or not model.source_is_there(image)
            or self.world.in_use(self.repository, image.name)
        ):
            return []
        says = (
            f"{image.id} is {one['status']} after all fixes: {one['reason']} ({one['rule']}); nothing of it was damaged"
        )
        return [self._finding("not usable", image.name, says)]

    def _exported(self, image: Image, one: dict[str, Any]) -> list[Finding]:
        path = self.world.file(".raw")
        done = self.host.run("export", self.repository, image.id, str(path), "--format", "raw")
        try:
            if done.code:
                if self.world.in_use(self.repository, image.name) or image.hurt:
                    return []
                if done.code == IN_USE and self.world.is_prepared(self.repository, image.id):
                    return []
                says = f"{image.id} is {one['status']}, but export ended with {done.code}: {done.last_words}"
                return [self._finding("status better than the truth", image.name, says)]
            fits, why = judge(image.contents, path)
            if fits is None:
                return [self._finding("content", image.name, f"{image.id} is {one['status']} ({one['reason']}): {why}")]
            image.checked = True
            if not self.world.in_use(self.repository, image.name):
                fits.settle(path)
                image.contents, image.follows, image.source = [fits], "", ""
            return []
        finally:
            path.unlink(missing_ok=True)


def _deep(world: World, host: Host) -> list[Finding]:
    """Read everything: no undamaged image may be declared broken."""
    found = []
    for repository, images in world.model.repositories.items():
        output = host.run("check", repository, "--deep").output
        for one in output.get("images", []):
            image = next((image for image in images.values() if image.id == one["id"]), None)
            if (
                image
                and not one["usable"]
                and not one["removed"]
                and not image.hurt
                and world.model.source_is_there(image)
            ):
                says = (
                    f"a deep check calls it {one['status']}: {one['reason']} ({one['rule']}); nothing of it was damaged"
                )
                found.append(Finding("false alarm", repository, image.name, says))
    return found


def _converges(world: World, host: Host, repository: str) -> list[Finding]:
    """Run fixes, also what cannot be undone, until none is left."""
    told: list[str] = []
    for number in range(ROUNDS_OF_FIXES):
        _fix_everywhere(world, host, repository, *(["--irreversible"] if number else []))
        world.quiet()
        _may_be_cleaned(world, repository)
        output = host.run("check", repository).output
        fixes = [fix for fix in output.get("fixes", []) if not _waits_rightly(world, repository, fix)]
        told = [f"{fix['type']} {fix['rule']} {fix['target']}: {fix['waits_for'] or fix['why']}" for fix in fixes]
        if not told:
            return []
    return [Finding("no end of fixes", repository, "", f"after {ROUNDS_OF_FIXES} rounds: " + "; ".join(told[:4]))]


def _waits_rightly(world: World, repository: str, fix: dict[str, Any]) -> bool:
    image = world.model.by_id(repository, fix["target"])
    if not fix["waits_for"] or image is None:
        return False
    return bool(image.hurt) or not world.model.source_is_there(image)


def _empties(world: World, host: Host, repository: str) -> list[Finding]:
    """Remove everything: nothing may be left of it."""
    left: list[dict[str, Any]] = []
    for _ in range(ROUNDS_OF_FIXES):
        left = host.run("images", repository).output.get("images", [])
        for one in left:
            if not one["removed"]:
                host.run("remove", repository, one["id"])
        host.run("fix", repository, "--all", "--irreversible")
        world.quiet()
        if not left:
            break
    files = world.places[repository].left_over()
    if not left and not files:
        return []
    told = [f"{one['id']} {one['status']} {one['reason']}" for one in left]
    output = host.run("check", repository).output
    told += [
        f"offered: {fix['rule']} {fix['target']} waits for {fix['waits_for']!r}" for fix in output.get("fixes", [])
    ]
    return [Finding("can't be emptied", repository, "", "; ".join(told + files)[:900])]
