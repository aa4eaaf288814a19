"""``diskwright help TOPIC``: what no single command is about, told from the tables that the programs go by."""

from __future__ import annotations

from collections.abc import Callable

from tui.cli.help import EXIT_CODES

_CONFIGURATION = """\
Options of every command: --host, --state, --json, --no-color. In the environment:

  DISKWRIGHT_HOST    name of this host (else what the system says)
  DISKWRIGHT_STATE   where this host keeps its notes (else $XDG_STATE_HOME/diskwright,
                     ~/.local/state/diskwright), in a directory with the host's name
  DISKWRIGHT_DEBUG   1: show tracebacks
  COLUMNS            width of lines, also in a pipe
  NO_COLOR, COLORTERM, TERM   as everywhere

What is where

  STATE/HOST/connections.json   what is connected under which name
  STATE/HOST/tasks/             what runs, and the logs of what ran (the newest 200)
  STATE/HOST/history.jsonl      what was done here: diskwright log
  STATE/HOST/console/           queue, plans and runs
  STATE/HOST/crash.log          tracebacks of errors that nobody foresaw
  /run/diskwright/              paths of prepared images; gone after a boot
  ~/.config/diskwright/console.toml   settings of the console and of plans

console.toml

  theme = "dark"              # dark, light, high, terminal
  reserve = 2.5               # percent of the storage that plans keep free
  ascii = false

  [keys]                      # act = key, or a list of keys
  run = "r"

  [priorities]                # kind of fix or rule = 1 to 4
  C-REMOVED = 2

No repository depends on any of this: losing it costs a reconnect."""

_FIXES = """\
What is wrong is not repaired by itself: check offers fixes, and people decide which to run.

  mend       makes a broken image usable
  optimize   gives a degraded one a better representation
  merge      makes one of two layers
  clean      frees what nothing needs any more

Each says what it needs, frees and risks. What is not `reversible` cannot be undone and needs --irreversible, or the
repository's name typed on a terminal:

  reversible       it can be stopped, and nothing that was there before is lost
  rewrites a base  it overwrites a layer that nothing else needs
  irreversible     what it deletes does not come back
  loses data       data is given up

A fix is JSON and runs on any host: check --json > fixes.json here, fix --file fixes.json there. It is refused as stale
when something it was computed from has changed. One that waits says for what. To look first: plan, or fix --dry-run;
to run exactly what was shown: fix --plan ID.

  diskwright check main; diskwright plan main; diskwright fix main --all
  diskwright why B-COPY      what a rule means, what its fix does and needs"""


def topic(name: str) -> str:
    """The text of a topic of ``help.TOPICS``."""
    return _TEXTS[name]()


def _statuses() -> str:
    from tui.text.statuses import COUNTED, LOOKS

    lines = [f"  {look.sign} {look.code}  {state:<9}  {look.meaning}" for state in COUNTED if (look := LOOKS[state])]
    return "\n".join(
        [
            "The status of an image is the engine's judgement, by a policy that may change between versions. Its",
            "reason is a rule: diskwright why REPO IMAGE tells it with the evidence, why RULE what the rule means.",
            "",
            *lines,
            "",
            "Removed is no status of an image: it says that the data is still there and can be restored. Unknown is",
            "not broken: nothing is concluded from what could not be read. Images that could be merged are optimized.",
        ]
    )


def _rules() -> str:
    from textwrap import wrap

    from tui.text.rules import EVERY

    room = max(map(len, EVERY)) + 4
    lines = [
        "Each status has a rule as its reason, each fix is offered by one. diskwright why RULE tells all of it.",
        "",
    ]
    for rule in EVERY.values():
        lines += wrap(rule.means, 110, initial_indent=f"  {rule.code}".ljust(room), subsequent_indent=" " * room)
    return "\n".join(lines)


def _json() -> str:
    return """\
--json prints one document on standard output, ASCII only, and all narration goes to standard error. An error is a
document too: {"error": {"code", "message", "next_step"}}; its code is stable, the message is for people. With --watch
each change is a document in a line of its own.

diskwright help json --json has the schema under "schema" (JSON Schema 2020-12): what each command prints is in $defs
under its name. "version" is 1.

Numbers of bytes end in _bytes, moments are seconds since 1970, ids are 32 hexadecimal digits. What a document has is
not taken away and does not change its meaning within a version of the schema; more may be added."""


_TEXTS: dict[str, Callable[[], str]] = {
    "statuses": _statuses,
    "fixes": lambda: _FIXES,
    "rules": _rules,
    "exit-codes": lambda: EXIT_CODES,
    "configuration": lambda: _CONFIGURATION,
    "json": _json,
}
