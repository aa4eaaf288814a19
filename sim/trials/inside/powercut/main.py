"""In a guest: records operations on dm-log-writes, cuts the power in many ways, and compares with what is legal.

``main`` prints one JSON object: {"states", "seconds", "repaired", "wrong": [...]}; see ``sim.trials.powercut``.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from sim.trials.inside.powercut import file_sequences, group_sequences, verbs
from sim.trials.inside.powercut.request import Asked


def main(words: list[str]) -> int:
    """Do what the one argument, JSON, asks for."""
    asked = Asked(**json.loads(words[0]))
    started = time.monotonic()
    if asked.kind == "verbs":
        found = verbs.compared(asked)
    elif asked.on == "lvm":
        found = group_sequences.compared(asked)
    else:
        found = file_sequences.compared(asked)
    answer: dict[str, Any] = {**found._asdict(), "seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0
