"""A process of a host in a scenario on this machine: it does one deed and is interrupted by a signal.

``python -m sim.scenario.worker SPEC`` reads a JSON file, does the deed on real doors and, just before
the chosen effect, notes where it is and sends itself SIGKILL (crash), SIGSTOP (freeze) or SIGTERM
(stop: as ``engine.runner`` it goes on to its next step and keeps everything). When it lives to the end
it prints one JSON object: {"result", "failure", "effects"}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from engine.api import Engine
from engine.errors import DiskwrightError
from sim.scenario.deeds import do
from sim.scenario.model import Point
from sim.scenario.on_local import local_doors
from sim.scenario.watch import Reached, Watch, watching
from sim.victim import die, die_with_parent

SIGNALS: dict[str, Callable[[], None]] = {
    "crash": die,
    "freeze": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "stop": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


def work(spec: dict[str, Any]) -> dict[str, Any]:
    """Do what the spec says."""
    requests: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: requests.append(number))

    def act(reached: Reached) -> None:
        with open(spec["note"], "w", encoding="utf-8") as stream:
            json.dump(reached, stream)
        SIGNALS[spec["how"]]()

    watch = Watch(Point(**spec["point"]), act)
    engine = Engine(watching(local_doors(spec["host"], spec["top"], spec["seed"]), watch), spec["state"])
    result, failure = None, None
    try:
        result = do(engine, spec["verb"], spec["arguments"], lambda: bool(requests))
    except DiskwrightError as error:
        failure = (error.code, str(error))
    finally:
        engine.close()
    return {"result": result, "failure": failure, "effects": watch.names}


def main(path: str) -> None:
    """Entry point of the process."""
    die_with_parent()
    with open(path, encoding="utf-8") as stream:
        spec = json.load(stream)
    sys.stdout.write(json.dumps(work(spec)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
