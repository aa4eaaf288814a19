"""Documents are true where a machine can tell: links, names of files and modules, commands, the example in Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.contracts.source import ROOT
from tui.cli.arguments import Parser
from tui.cli.help import COMMANDS

DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "scenarios/README.md",
    *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
)
TOPS = ("engine", "tui", "sim", "tests", "scenarios", "docs")
PACKAGES = ("engine", "tui", "sim")

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?:{'|'.join(TOPS)})/[\w./*-]*\Z")
_MODULE = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[a-z_][a-z0-9_]*)+\Z")
_COMMAND = re.compile(r"diskwright [^()|;&`\n]*")
_MAP_ENTRY = re.compile(r"([a-z_]+(?:/|\.py))")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def anchors(document: Path) -> set[str]:
    """The names under which the headings of a document can be linked to."""
    headings = _HEADING.findall(_FENCE.sub("", document.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(document: str) -> Iterator[str]:
    for link in _LINK.findall(_FENCE.sub("", text_of(document))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        if not target.exists():
            yield f"{document}: {link}: there is no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{document}: {link}: there is no such heading"


def missing_names(document: str) -> Iterator[str]:
    for code in _CODE.findall(_FENCE.sub("", text_of(document))):
        if _PATH.match(code) and not list(ROOT.glob(code.rstrip("/"))):
            yield f"{document}: {code}: there is no such file"
        if _MODULE.match(code) and not any(is_module(name) for name in (code, code.rpartition(".")[0])):
            yield f"{document}: {code}: there is no such module"


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def code_lines(document: str) -> Iterator[str]:
    """Lines that are to be typed: indented by four, or fenced."""
    fenced = False
    for line in text_of(document).split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line


def commands(document: str) -> Iterator[str]:
    """Each command line to be typed, without what is explained behind it."""
    for line in code_lines(document):
        for command in _COMMAND.findall(line):
            yield re.split(r" {3,}|  #", command)[0]


def problem_with(command: str) -> str:
    """Why the command line would be refused, "" when it would be understood."""
    _, name, *words = shlex.split(command.split(" -- ", maxsplit=1)[0], comments=True)
    if name.startswith("-"):
        return ""
    spec = COMMANDS.get(name)
    if spec is None:
        return "there is no such command"
    parser = Parser(name, spec.summary, spec.example)
    import_module(spec.module).HANDLERS[name].add(parser)
    try:
        parser.read(words)
    except Exception as error:  # noqa: BLE001 - whatever it is refused for, it is told
        return str(error)
    return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    """Each relative link leads to a file, and to a heading that is in it."""
    assert not list(broken_links(document))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_modules_that_are_named_exist(document: str):
    """Whoever follows a name in a document finds what it names."""
    assert not list(missing_names(document))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_understood(document: str):
    """Each command line that a reader may copy is one that the program understands."""
    wrong = [f"{command}: {problem}" for command in commands(document) if (problem := problem_with(command))]
    assert not wrong, "\n".join(wrong)


def test_every_command_in_the_readme_is_looked_at():
    """The check of commands sees those that stand inside of a shell's line, too."""
    found = list(commands("README.md"))
    assert any(command.startswith("diskwright create-disk main") for command in found)
    assert len(found) > 20


def test_a_wrong_command_would_be_found():
    """The check is one: an unknown command and an unknown option are told."""
    assert problem_with("diskwright repair demo")
    assert problem_with("diskwright fix demo --everything")
    assert not problem_with("diskwright fix demo --all")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_has_every_room(package: str):
    """ARCHITECTURE's map names each folder of a package, and none that is not there."""
    lines = text_of("ARCHITECTURE.md").split("\n")
    start = next(index for index, line in enumerate(lines) if re.match(rf"    {package}/ ", line))
    entries: set[str] = set()
    for line in lines[start + 1 :]:
        if not line.startswith("      "):
            break
        entries.update(_MAP_ENTRY.findall(line[6:].split("  ")[0]))
    folders = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
    assert {entry for entry in entries if entry.endswith("/")} == folders
    assert all((ROOT / package / entry).exists() for entry in entries)


def test_the_example_in_python_runs(tmp_path: Path):
    """What README says of Python is what a stranger can type."""
    example = re.search(r"^```python\n(.*?)^```", text_of("README.md"), re.MULTILINE | re.DOTALL)
    assert example is not None
    code = (
        example[1]
        .replace("/var/lib/diskwright", str(tmp_path / "notes"))
        .replace("/srv/images", str(tmp_path / "images"))
    )
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert re.fullmatch("[0-9a-f]{32}", str(names["disk"]))
