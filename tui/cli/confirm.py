"""Asking, on a terminal, before something that cannot be undone. Elsewhere nobody can answer, so the answer is no."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.data.model import Fix
from tui.cli.fixes import Names, called
from tui.cli.render import Output, is_terminal
from tui.text.printable import printable

_SHOWN = 20


def confirmed(out: Output, repo_id: str, fixes: Sequence[Fix], names: Names) -> bool:
    """Whether the operator typed the repository's name after reading what would be lost."""
    if out.json_wanted or not is_terminal(sys.stdin) or not is_terminal(sys.stderr):
        return False
    out.say("This cannot be undone:")
    for fix in fixes[:_SHOWN]:
        out.say(f"  {fix.id}  {fix.type} {printable(fix.rule)} {called(names, fix.target)}: {printable(fix.why)}")
    if len(fixes) > _SHOWN:
        out.say(f"  and {len(fixes) - _SHOWN} more")
    sys.stderr.write(f"Type {printable(repo_id)} and enter to do it. Enter alone leaves it as it is: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() == repo_id
