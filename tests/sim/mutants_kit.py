"""Changing one statement of the engine while a test runs, and finding the statements to change."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import engine

ROOT = os.path.dirname(engine.__path__[0])
SYNCS = frozenset("sync sync_directory settle settle_all flush".split())
HIT = "_mutant_was_here"
Change = Callable[[ast.stmt], list[ast.stmt] | None]
"""What takes the place of a statement; None: nothing does."""


class Site(NamedTuple):
    """A statement that makes something durable."""

    module: str
    function: str
    """Qualified name of the outermost function."""
    line: int
    text: str
    nth: int = 1
    """The how manieth of such in the function."""

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}.py {self.function}: {self.text}"

    @property
    def name(self) -> str:
        """As a test's name, the same when lines move."""
        what = self.text.partition("(")[0] + (f"#{self.nth}" if self.nth > 1 else "")
        return f"{self.module.removeprefix('engine.')}.{self.function}:{what}"


def sites() -> list[Site]:
    """Every statement of the engine that is nothing but a call that makes something durable. Not what stands
    behind the doors, for which others are put, and not what is said to a terminal."""
    found = []
    for folder, _, names in sorted(os.walk(os.path.join(ROOT, "engine"))):
        for name in sorted(names):
            module = os.path.relpath(os.path.join(folder, name), ROOT)[:-3].replace(os.sep, ".")
            if name.endswith(".py") and not module.startswith("engine.tools."):
                found += list(_sites_of(module))
    return sorted(found)


def hidden_syncs() -> list[str]:
    """Calls that make something durable and are only a part of a statement, so that none of the above is one."""
    found = []
    for module in sorted({site.module for site in sites()}):
        tree = ast.parse(_source(module))
        plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_sync(node)}
        found += [
            f"{module}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and id(node) not in plain and _is_sync_call(node)
        ]
    return found


def _sites_of(module: str) -> Iterator[Site]:
    for name, function in _functions(ast.parse(_source(module))):
        counts: Counter[str] = Counter()
        nodes = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and is_sync(node)]
        for node in sorted(nodes, key=lambda node: node.lineno):
            text = ast.unparse(node)
            counts[text.partition("(")[0]] += 1
            yield Site(module, name, node.lineno, text, counts[text.partition("(")[0]])


def is_sync(node: ast.stmt) -> bool:
    """Whether the statement only makes something durable."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _is_sync_call(node.value)


def _is_sync_call(node: ast.Call) -> bool:
    called = node.func
    return isinstance(called, ast.Attribute) and called.attr in SYNCS and ast.unparse(called) != "sys.stdout.flush"


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from (
                (f"{node.name}.{inner.name}", inner) for inner in node.body if isinstance(inner, ast.FunctionDef)
            )


def _source(module: str) -> str:
    with open(os.path.join(ROOT, module.replace(".", os.sep) + ".py"), encoding="utf-8") as stream:
        return stream.read()


class _Changer(ast.NodeTransformer):
    def __init__(self, change: Change) -> None:
        self._change = change
        self.changed = 0

    def visit(self, node: ast.AST) -> Any:
        new = self._change(node) if isinstance(node, ast.stmt) else None
        if new is None:
            return self.generic_visit(node)
        self.changed += 1
        return new


@contextlib.contextmanager
def patched(module: str, function: str, change: Change) -> Iterator[list[int]]:
    """Run with one function compiled anew from a changed source. What is put in may call ``hit``; yields a list that
    is as long as that happened often."""
    tree = ast.parse(_source(module))
    changer = _Changer(change)
    body = next(node for name, node in _functions(tree) if name == function)
    changer.visit(body)
    assert changer.changed, f"there is nothing to change in {module}.{function}"
    ast.fix_missing_locations(tree)
    code = compile(tree, os.path.join(ROOT, module.replace(".", os.sep) + ".py"), "exec")
    target = _function(module, function)
    hits: list[int] = []
    target.__globals__[HIT] = lambda: hits.append(1)
    before = target.__code__
    target.__code__ = _code_of(code, function)
    try:
        yield hits
    finally:
        target.__code__ = before
        target.__globals__.pop(HIT, None)


def _function(module: str, function: str) -> types.FunctionType:
    found: Any = importlib.import_module(module)
    for part in function.split("."):
        found = found.__dict__[part] if isinstance(found, type) else getattr(found, part)
    while hasattr(found, "__wrapped__"):
        found = found.__wrapped__
    assert isinstance(found, types.FunctionType)
    return found


def _code_of(code: types.CodeType, function: str) -> types.CodeType:
    for part in function.split("."):
        code = next(const for const in code.co_consts if isinstance(const, types.CodeType) and const.co_name == part)
    return code


def statement(text: str) -> ast.stmt:
    """A statement from its source."""
    return ast.parse(text).body[0]


def hit() -> ast.stmt:
    """A statement that says that it was run."""
    return statement(f"{HIT}()")


def without_if(text: str) -> Change:
    """A function without the guard whose condition has ``text`` in it."""
    return lambda node: [hit()] if isinstance(node, ast.If) and text in ast.unparse(node.test) else None


def deleted(site: Site) -> contextlib.AbstractContextManager[list[int]]:
    """Run without one sync."""
    return patched(
        site.module, site.function, lambda node: [hit()] if is_sync(node) and node.lineno == site.line else None
    )
