"""A house in which a stranger finds any line: no import circle, no crowded folder, no endless file."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.source import ROOT

PACKAGES = ("engine", "sim", "tui")
MOST_ENTRIES = 16
MOST_LINES = 500

Graph = dict[str, set[str]]


def modules(root: Path, packages: tuple[str, ...]) -> dict[str, Path]:
    """All modules by their names; a package has the name of its folder."""
    found = {}
    for package in packages:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source: str, known: frozenset[str]) -> Iterator[str]:
    """The known modules that a source imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in known)


def graph(root: Path, packages: tuple[str, ...] = PACKAGES) -> Graph:
    """Who imports whom."""
    paths = modules(root, packages)
    known = frozenset(paths)
    return {name: set(imported(path.read_text(encoding="utf-8"), known)) - {name} for name, path in paths.items()}


def reachable(imports: Graph, start: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    found: set[str] = set()
    todo = [start]
    while todo:
        new = imports[todo.pop()] - found
        found |= new
        todo += new
    return found


def circles(imports: Graph) -> list[list[str]]:
    """Modules that import each other in the end, each group once."""
    left = imports
    while ends := {name for name, others in left.items() if not others}:
        left = {name: others - ends for name, others in left.items() if name not in ends}
    reached = {name: reachable(left, name) for name in left}
    found = {frozenset(other for other in reached[name] if name in reached[other]) for name in left}
    return sorted(sorted(group) for group in found - {frozenset()})


def test_no_module_imports_itself_in_the_end():
    """No circle of imports in the product, function-local ones and those for type checking included."""
    assert circles(graph(ROOT)) == []


WAYS = ["from box.b import B", "def f():\n    import box.b", "if TYPE_CHECKING:\n    from box import b"]


@pytest.mark.parametrize("way", WAYS)
def test_a_circle_is_found_in_whatever_way_it_is_imported(way: str, tmp_path: Path):
    """At the top, in a function, for type checking alone."""
    folder = tmp_path / "box"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "a.py").write_text(way)
    (folder / "b.py").write_text("import box.c\n")
    (folder / "c.py").write_text("from box.a import f\n")
    assert circles(graph(tmp_path, ("box",))) == [["box.a", "box.b", "box.c"]]
    (folder / "c.py").write_text("import os\n")
    assert circles(graph(tmp_path, ("box",))) == []


def folders() -> Iterator[Path]:
    for package in PACKAGES:
        yield ROOT / package
        yield from (path for path in (ROOT / package).rglob("*") if path.is_dir() and path.name != "__pycache__")


def test_no_folder_is_crowded():
    """A reader sees a folder at one look."""
    counts = {path: sum(not entry.name.startswith(("__", ".")) for entry in path.iterdir()) for path in folders()}
    assert {str(path.relative_to(ROOT)): count for path, count in counts.items() if count > MOST_ENTRIES} == {}


def shared_prefixes(folder: Path) -> set[str]:
    """First words that more than two modules of a folder have in common."""
    words = Counter(path.stem.split("_")[0] for path in folder.glob("*_*.py") if not path.stem.startswith("_"))
    return {word for word, count in words.items() if count > 2}


def test_no_prefix_stands_for_a_folder():
    """Modules that belong together have a folder, not the same first word."""
    found = {str(path.relative_to(ROOT)): shared_prefixes(path) for path in folders()}
    assert {path: words for path, words in found.items() if words} == {}


def test_a_prefix_that_stands_for_a_folder_is_found(tmp_path: Path):
    """Three modules with the same first word are too many."""
    for name in ("rules_clean.py", "rules_merge.py", "rules.py", "judge.py"):
        (tmp_path / name).touch()
    assert shared_prefixes(tmp_path) == set()
    (tmp_path / "rules_image.py").touch()
    assert shared_prefixes(tmp_path) == {"rules"}


def test_no_file_is_endless():
    """A file is read in one sitting."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for package in (*PACKAGES, "tests")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
