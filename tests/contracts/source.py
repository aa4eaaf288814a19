"""Reading the engine's source as data, for the contracts that a linter cannot express."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

EFFECT_MODULES = frozenset(
    """
    asyncio concurrent ctypes fcntl fileinput getpass glob linecache mmap multiprocessing os pathlib platform pty pwd
    random resource sched secrets select selectors shelve shutil signal socket sqlite3 subprocess tempfile threading
    time uuid zipfile
    """.split()
)
"""Modules of the standard library through which a program sees or changes anything but its own memory."""

IMPORTERS = frozenset({"importlib", "runpy", "__import__", "exec", "eval", "compile"})
"""What would get at such a module without an import statement."""

CLOCK_READS = frozenset({"now", "utcnow", "today"})
"""Of datetime only the arithmetic is free of effects."""


class Finding(NamedTuple):
    """A use of an effect: where, which module, and in which words."""

    line: int
    module: str
    words: str


def python_files(package: str) -> list[Path]:
    """All modules of a top-level package, sorted."""
    return sorted((ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    """As a person would name the file: from the root of the project."""
    return path.relative_to(ROOT).as_posix()


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of each import, wherever it stands in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "."
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def _import_findings(tree: ast.AST, modules: frozenset[str]) -> Iterator[Finding]:
    for line, name in imported_modules(tree):
        top = name.partition(".")[0]
        if top in modules or top in IMPORTERS:
            yield Finding(line, top, f"import of {name}")
        elif name in {"io.open", "io.FileIO", "io.open_code"}:
            yield Finding(line, "open", f"import of {name}")


def _name_findings(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in {"open", "input", *IMPORTERS}:
            yield Finding(node.lineno, node.id, f"use of {node.id}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            whole = f"{node.value.id}.{node.attr}"
            if whole in {"io.open", "io.FileIO", "io.open_code"}:
                yield Finding(node.lineno, "open", f"use of {whole}")
            elif node.value.id in {"datetime", "date"} and node.attr in CLOCK_READS:
                yield Finding(node.lineno, "datetime", f"use of {whole}")


def effects(source: str, modules: frozenset[str] = EFFECT_MODULES) -> list[Finding]:
    """Every way out of memory in this source, each told once, in the order of its lines.

    Imports are judged by the top-level module; ``os.path`` counts as ``os``: names of files that
    belong to a repository are joined with ``posixpath``.
    """
    tree = ast.parse(source)
    found = {(f.line, f.module): f for f in (*_name_findings(tree), *_import_findings(tree, modules))}
    return [found[key] for key in sorted(found)]


assert sys.stdlib_module_names >= EFFECT_MODULES, EFFECT_MODULES - sys.stdlib_module_names
