"""Completion, topics of the help, and the manual page."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module

import pytest

from tests.cli.conftest import Command
from tui.cli import manual
from tui.cli.arguments import Parser
from tui.cli.completion import SHELLS, make_parser, script
from tui.cli.help import COMMANDS, TOPICS


def offered(line: str) -> list[str]:
    """What is offered at the end of a line: as argcomplete asks, without the descriptors of a shell."""
    from argcomplete.finders import CompletionFinder
    from argcomplete.lexers import split_line

    quote, prefix, _, words, position = split_line(f"diskwright {line}", len(f"diskwright {line}"))
    finder = CompletionFinder(make_parser(line.split()), always_complete_options=False)
    return sorted(word.rstrip() for word in finder._get_completions(words, prefix, quote, position))


def test_what_is_there_is_completed_by_name(run: Command, main_repo: str):
    """Commands, options, values, repositories, images by their names, fixes; ids where a name does not say which."""
    disk = run.id("create-disk", main_repo, "1M", "--name", "web-db")
    twin = [run.id("create-disk", main_repo, "1M", "--name", "twin") for _ in range(2)]
    run("remove", main_repo, disk)
    assert offered("create-d") == ["create-disk"] and "main" in offered("images ")
    assert offered("images main --sta") == ["--state", "--status"]
    assert offered("why main ") == sorted(["web-db", *twin]) and offered("why main web") == ["web-db"]
    assert offered(f"why main {disk[:6]}") == [disk]
    assert offered("fix main ") == [run.json("check", main_repo)["fixes"][0]["id"]]
    assert offered("help exit") == ["exit-codes"]


def test_what_cannot_be_read_offers_nothing(run: Command):
    """An unknown repository, a host name that cannot be: no offer, no error."""
    assert offered("why nowhere x") == [] and offered("copy nowhere 12") == []
    assert offered("--host a/b why ") == [] and offered("--host a/b create-d") == ["create-disk"]


def test_formats_are_those_that_the_command_takes(run: Command):
    """Repositories have others than image files, and what is written has others than what is read."""
    assert offered("create-repo loc") == ["localfs-1.0"]
    assert {"raw.xz", "vmdk"} <= set(offered("import main x --format "))
    assert "qcow2-zstd" in offered("export main web x --format ")


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script(run: Command, shell: str):
    """It names the command, and bash can read it."""
    assert "diskwright" in run("completion", shell).out and run.json("completion", shell)["script"] == script(shell)
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script(shell), text=True, check=True)


@pytest.mark.parametrize("name", TOPICS)
def test_topics_fit_a_terminal(run: Command, name: str):
    """Each topic of the help has a text, and it is in the top help."""
    text = run("help", name).out
    assert len(text) > 200 and max(map(len, text.splitlines())) <= 120
    assert name in run("--help").out


def test_the_manual_page_has_every_command_and_option():
    """And roff takes no line of a text for a request."""
    page = manual.page()
    plain = page.replace("\\-", "-")
    for name, item in COMMANDS.items():
        parser = Parser(name, "", "")
        import_module(item.module).HANDLERS[name].add(parser)
        assert f".SS {name}\n" in plain
        for action in parser._actions:
            assert all(option in plain for option in action.option_strings if option not in ("-h", "--help"))
    requests = {line.split(" ")[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".B", ".TP", ".PP", ".nf", ".fi"}
    assert not re.search(r"[^\x00-\x7f✖◐●○?·→…×–]", page)
