"""What is told of a key that has no meaning on the page that is shown: where it has one, or that it has none."""

from __future__ import annotations

from textual import events

from tui.console.acts import KeyMap, shown_key
from tui.console.shell import Shell

_WAYS = {
    "triage": "Triage (1)", "images": "Images (2)", "runs": "Runs (3)", "timeline": "Timeline (4)",
    "plan": "the plan (p in Triage)", "why": "Why (w)", "record": "an opened fact (enter in Why)",
    "family": "a family (F in Images)", "machines": "Machines (5)",
}  # fmt: skip
"""How one gets to a page."""
_MOST = 2


def tell(shell: Shell, event: events.Key) -> bool:
    """Tell where a key that means nothing here has a meaning; False, and nothing is told, for a key that is none of
    the console's and writes nothing."""
    found = []
    for page, acts in shell.page_acts().items():
        act = KeyMap(acts, shell.config.keys).find(event.key)
        if act is not None:
            found.append(f"{act.label} in {_WAYS.get(page, page)}")
    if not found and not event.is_printable:
        return False
    key = shown_key(event.key)
    if found:
        shell.tell(f"{key} does nothing here: it is {', '.join(found[:_MOST])}.")
    else:
        shell.tell(f"{key} does nothing here; ? lists the keys that do.")
    return True
