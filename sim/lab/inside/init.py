"""Process 1 of a guest: ``python -I -S init.py CONFIG``. CONFIG is the file that ``sim.lab.guest`` wrote.

Until the configuration is read nothing but the standard library can be imported.
"""

from __future__ import annotations

import json
import sys


def main(path: str) -> None:
    """Prepare the machine, then obey until it is switched off."""
    with open(path, encoding="utf-8") as stream:
        config = json.load(stream)
    sys.path[:] = config["path"]
    sys.executable = config["executable"]
    from sim.lab.inside import agent, prepare

    facts = prepare.prepare(config)
    agent.Agent(prepare.open_line()).run(facts)


if __name__ == "__main__":
    main(sys.argv[1])
